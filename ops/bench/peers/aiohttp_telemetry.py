"""The textbook aiohttp with off-the-shelf telemetry: OpenTelemetry's instrumentations, access log, EMF per request.

Spans are created and batched. Without a collector in OTEL_EXPORTER_OTLP_ENDPOINT, as in the comparison, they are
dropped instead of exported.
"""

import logging
import os
from collections.abc import Sequence

import uvloop
from aws_embedded_metrics import metric_scope  # type: ignore[attr-defined]
from aws_embedded_metrics.logger.metrics_logger import MetricsLogger
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

# The instrumentation replaces web.Application, so it has to run before web.Application is imported.
AioHttpServerInstrumentor().instrument()
AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]

from aiohttp import web  # noqa: E402
from aiohttp.typedefs import Handler  # noqa: E402

from ops.bench.peers import aiohttp_app  # noqa: E402


class DroppingExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    @metric_scope
    async def counted(metrics: MetricsLogger) -> web.StreamResponse:
        metrics.set_namespace("clients")
        metrics.put_dimensions({"Route": request.path.split("/")[1]})
        response = await handler(request)
        metrics.put_metric("Requests", 1, "Count")
        return response

    return await counted()  # type: ignore[call-arg]  # the decorator passes `metrics`


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    provider = TracerProvider()
    has_collector = "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter() if has_collector else DroppingExporter()))
    trace.set_tracer_provider(provider)
    app = aiohttp_app.make_app()
    app.middlewares.append(count)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), loop=uvloop.new_event_loop())
