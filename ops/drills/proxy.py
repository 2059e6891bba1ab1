"""A TCP proxy on loopback that causes network faults on demand."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: closing the socket sends a reset
_DISCONNECTED: Final = (OSError, RuntimeError)  # uvloop raises the latter on a reset or half-closed transport


class FaultProxy:
    """Forwards connections and causes faults.

    Attributes:
        port: where it listens, on 127.0.0.1.
        target: the port that new connections are forwarded to, on 127.0.0.1.
        latency_seconds: delay of all data, in each direction.
        bytes_per_second: maximum rate of each connection in each direction; None for no limit.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.port = 0
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._generation = 0  # connections of earlier generations are forgotten
        self._resets_forgotten = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listens. At the end, resets all connections."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.reset()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def black_hole(self) -> None:
        """Stops forwarding without a reset. It keeps the data, and new connections get no response."""
        self._forwarding.clear()

    def heal(self) -> None:
        """Forwards the data that it kept, and everything from now on, at full speed."""
        self.latency_seconds = 0.0
        self.bytes_per_second = None
        self._forwarding.set()

    def forget(self, *, resets: bool) -> None:
        """Forgets all current connections, like a host that was replaced.

        Args:
            resets: whether data on such a connection is answered by a reset. Otherwise the data is lost.
        """
        self._generation += 1
        self._resets_forgotten = resets

    def reset(self) -> None:
        """Resets all current connections at both ends."""
        for writer in list(self._writers):
            _reset(writer)

    def half_close(self) -> None:
        """Ends the target's direction of all current connections. Callers can still send; their responses are lost."""
        for writer in list(self._writers):
            if writer.get_extra_info("sockname")[1] == self.port and not writer.is_closing():
                self._half_closed.add(writer)
                writer.write_eof()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except _DISCONNECTED:
            pass  # one end disconnected; _registered() has reset the other
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._registered(writer):
            await self._forwarding.wait()
            generation = self._generation
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self.target)
            with self._registered(target_writer):
                to_target = asyncio.create_task(self._forward_all(reader, target_writer, generation))
                to_caller = asyncio.create_task(self._forward_all(target_reader, writer, generation))
                try:
                    await asyncio.gather(to_target, to_caller)
                finally:
                    to_target.cancel()
                    to_caller.cancel()

    @contextlib.contextmanager
    def _registered(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Registers the writer for faults. An exception resets its connection."""
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

    async def _forward_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, generation: int) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            await self._forward(data, writer, generation)
        await self._forwarding.wait()
        with contextlib.suppress(*_DISCONNECTED):
            writer.write_eof()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, generation: int) -> None:
        while data:
            await self._forwarding.wait()
            is_forgotten = generation != self._generation
            if writer.is_closing() or (is_forgotten and self._resets_forgotten):
                raise ConnectionResetError
            if is_forgotten or writer in self._half_closed:
                return
            # A limited rate is sent in pieces of 0.1 s, so that data trickles.
            piece = max(1, int(self.bytes_per_second / 10)) if self.bytes_per_second else len(data)
            writer.write(data[:piece])
            await writer.drain()
            if self.bytes_per_second:
                await asyncio.sleep(piece / self.bytes_per_second)
            data = data[piece:]


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
