"""A fake collector: receives spans by OTLP over gRPC or HTTP, and keeps them."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.patience import wait_until


@dataclass
class Collector:
    """What the collector received.

    Attributes:
        endpoint: the URL that it listens on.
        refuses: whether it rejects all exports.
        exports: the number of exports, including rejected ones.
        spans: in order of arrival.
        resources: the attributes of each export's resource.
    """

    endpoint: str = ""
    refuses: bool = False
    exports: int = 0
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a service that exports here, and soon: at its end it has only 2 s."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}

    async def wait_for(self, spans: int) -> None:
        """Waits until so many have arrived."""
        await wait_until(lambda: len(self.spans) >= spans)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            self.resources.append(attributes(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)


def attributes(encoded: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes by name."""
    pairs = [(one.key, getattr(one.value, one.value.WhichOneof("value") or "string_value")) for one in encoded]
    values = dict(pairs)
    assert len(values) == len(pairs)
    return values


@contextmanager
def collecting(protocol: str, *, refuses: bool = False) -> Iterator[Collector]:
    """Listens on a free port of 127.0.0.1 while the context is open."""
    collector = Collector(refuses=refuses)
    with _grpc(collector) if protocol == "grpc" else _http(collector):
        yield collector


@contextmanager
def _grpc(collector: Collector) -> Iterator[None]:
    class Service(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - OTLP's name
            collector.exports += 1
            if collector.refuses:
                context.abort(grpc.StatusCode.UNAVAILABLE, "refused")
            collector.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@contextmanager
def _http(collector: Collector) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.exports += 1
            if not collector.refuses:
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(503 if collector.refuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
