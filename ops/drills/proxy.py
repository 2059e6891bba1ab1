"""A TCP proxy on loopback that fails on demand, as networks do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
_GONE: Final = (OSError, RuntimeError)  # the latter is uvloop's where the transport is reset or half closed already


class FaultProxy:
    """Passes connections on, until it is told to do worse.

    Attributes:
        port: where it listens, on 127.0.0.1.
        target: the port that new connections are passed on to, on 127.0.0.1.
        latency_seconds: how much later all that comes is passed on, in each direction.
        bytes_per_second: the most that each connection passes in each direction; None for no limit.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.port = 0
        self._passing = asyncio.Event()
        self._passing.set()
        self._era = 0  # connections of former ones are forgotten
        self._resets_forgotten = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listens, and at the end resets whatever is still connected."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.reset()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def black_hole(self) -> None:
        """Nothing passes any more, and nobody is told: what comes is kept, and new connections are answered by none."""
        self._passing.clear()

    def heal(self) -> None:
        """Whatever was kept passes, and all else from now on, as fast as it can."""
        self.latency_seconds = 0.0
        self.bytes_per_second = None
        self._passing.set()

    def forget(self, *, resets: bool) -> None:
        """Connections of now are known to nobody any more, as where a host was replaced.

        Args:
            resets: whether they learn it once they are used, by a reset; else what they send is lost.
        """
        self._era += 1
        self._resets_forgotten = resets

    def reset(self) -> None:
        """Resets all connections of now, at both ends."""
        for writer in list(self._writers):
            _reset(writer)

    def half_close(self) -> None:
        """Ends what connections of now send to those who made them, who may go on sending; their answers are lost."""
        for writer in list(self._writers):
            if writer.get_extra_info("sockname")[1] == self.port and not writer.is_closing():
                self._half_closed.add(writer)
                writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except _GONE:
            pass  # an end of the connection is gone, and the other learns it below
        finally:
            self._serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._known(writer):
            await self._passing.wait()
            era = self._era
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            with self._known(far_writer):
                there = asyncio.create_task(self._pass_all(reader, far_writer, era))
                back = asyncio.create_task(self._pass_all(far_reader, writer, era))
                try:
                    await asyncio.gather(there, back)
                finally:
                    there.cancel()
                    back.cancel()

    @contextlib.contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Keeps the writer where faults find it; if its connection did not end well, its other end learns that too."""
        self._writers.add(writer)
        try:
            yield
        except BaseException:
            _reset(writer)
            raise
        finally:
            self._writers.discard(writer)
            self._half_closed.discard(writer)
            writer.close()

    async def _pass_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, era: int) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            await self._pass(data, writer, era)
        await self._passing.wait()
        with contextlib.suppress(*_GONE):
            writer.write_eof()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, era: int) -> None:
        while data:
            await self._passing.wait()
            is_forgotten = era != self._era
            if writer.is_closing() or (is_forgotten and self._resets_forgotten):
                raise ConnectionResetError
            if is_forgotten or writer in self._half_closed:
                return
            # A tenth of a second's worth at a time, so that a slow drip is one.
            piece = max(1, int(self.bytes_per_second / 10)) if self.bytes_per_second else len(data)
            writer.write(data[:piece])
            await writer.drain()
            if self.bytes_per_second:
                await asyncio.sleep(piece / self.bytes_per_second)
            data = data[piece:]


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()
