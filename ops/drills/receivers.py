"""Receivers of the service's telemetry: a reader of its log and a collector of its traces."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import cast

import orjson
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

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


class Collector:
    """Receives spans over OTLP.

    Attributes:
        port: where it listens, on 127.0.0.1.
        spans: number received so far.
        requests: how many of them are spans of requests.
        backwards: how many of them end before they start.
    """

    def __init__(self) -> None:
        self.port = 0
        self.spans = 0
        self.requests = 0
        self.backwards = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Collector"]:
        """Listens."""
        server = await asyncio.get_running_loop().create_server(web.Server(self._receive), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for span in (span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans):
            self.spans += 1
            self.requests += span.kind == Span.SPAN_KIND_SERVER
            self.backwards += span.end_time_unix_nano < span.start_time_unix_nano
        return web.Response(content_type="application/x-protobuf")
