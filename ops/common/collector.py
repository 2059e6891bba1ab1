"""A collector that counts the spans it receives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Receives spans over OTLP.

    Attributes:
        port: where it listens, on 127.0.0.1.
        spans: number received so far.
        requests: how many of them are spans of requests.
        backwards: how many of them end before they start.
        traces: the IDs of their traces.
        bytes: of the exports, as they were sent.
    """

    def __init__(self) -> None:
        self.port = 0
        self.spans = 0
        self.requests = 0
        self.backwards = 0
        self.traces: set[bytes] = set()
        self.bytes = 0

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
        body = await request.read()
        self.bytes += request.content_length or len(body)  # the body is already uncompressed
        sent = ExportTraceServiceRequest.FromString(body)
        for span in (span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans):
            self.spans += 1
            self.requests += span.kind == Span.SPAN_KIND_SERVER
            self.traces.add(span.trace_id)
            self.backwards += span.end_time_unix_nano < span.start_time_unix_nano
        return web.Response(content_type="application/x-protobuf")
