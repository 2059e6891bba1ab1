"""A reader of the service's log."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import cast

import orjson

from svc.logs import names


class LogReader(asyncio.Protocol):
    """Reads a service's log from a pipe.

    Attributes:
        stdout: the other end of the pipe, for the service.
        requests: number of request lines so far.
        dropped: number of dropped lines so far, according to the metrics in the log.
    """

    def __init__(self, stdout: int) -> None:
        self.stdout = stdout
        self.requests = 0
        self.dropped = 0
        self._unfinished = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport of the pipe."""
        self._pipe = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Counts lines."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in map(orjson.loads, lines):
            self.requests += line.get(names.EVENT) == names.REQUEST
            self.dropped += line.get(names.LOG_LINES_DROPPED, 0)

    def pause(self) -> None:
        """Stops reading."""
        self._pipe.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        self._pipe.resume_reading()

    def close(self) -> None:
        """Closes the pipe, so that writes to it fail."""
        self._pipe.close()


@contextlib.asynccontextmanager
async def log_reader() -> AsyncIterator[LogReader]:
    """Creates a pipe and a reader of it."""
    read_end, stdout = os.pipe()
    pipe = os.fdopen(read_end, "rb", 0)
    _, reader = await asyncio.get_running_loop().connect_read_pipe(lambda: LogReader(stdout), pipe)
    try:
        yield reader
    finally:
        os.close(stdout)
        reader.close()
