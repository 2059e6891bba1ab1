"""Traces: a span for each request that is sampled, and for each batch that served one, on their way to a collector.

A request that is not sampled has no span at all. A span is written once it has ended, straight to the SDK's batch
processor: to make it by a tracer, and to have the SDK encode it, costs 40 µs, ten times as much, and nobody adds to
ours while they last.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from svc import __version__
from svc.batching import Trip, Watch
from svc.settings import InvalidSetting, TraceSettings
from svc.telemetry import names, spans
from svc.telemetry.entry import METHODS, Entry

_STOP_SECONDS: Final = 2.0  # for the last spans, whatever the collector does
_TEXT_MOST_CHARACTERS: Final = 256  # of an attribute that a caller wrote

_Encode = Callable[[Sequence["_Ended"]], ExportTraceServiceRequest]


class _Ended:
    """A span as the SDK's batch processor queues it: all that it looks at is whether the span is sampled."""

    __slots__ = ("encoded",)

    context: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class Traces:
    """Writes spans.

    Args:
        processor: takes them.
        database: attributes of all spans of the database.
    """

    def __init__(self, processor: BatchSpanProcessor, database: Mapping[str, str | int]) -> None:
        self._processor = processor
        self._database = database

    def served(self, entry: Entry) -> None:
        """Writes the span of a request that has ended."""
        origin = entry.origin
        method, name = (entry.method, entry.method) if entry.method in METHODS else ("_OTHER", "HTTP")
        attributes = [
            (names.HTTP_METHOD, method),
            (names.HTTP_STATUS, entry.status),
            (names.URL_SCHEME, "http"),
            (names.CLIENT_ADDRESS, entry.client),
        ]
        if (agent := entry.headers.get("User-Agent")) is not None:
            attributes.append((names.USER_AGENT, _text(agent)))
        pieces = [
            spans.identity(
                entry.trace_id, entry.span_id, origin.parent_id if origin else "", entry.ended_at, entry.seconds
            ),
            spans.duration(names.QUEUE_SECONDS, entry.queue_seconds),
            spans.duration(names.DATABASE_SECONDS, entry.database_seconds),
        ]
        if entry.has_route:
            name = f"{name} {entry.route}"
            attributes.append((names.HTTP_ROUTE, entry.route))
            pieces.append(spans.attribute(names.URL_PATH, _text(entry.rel_url.raw_path)))
        if entry.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            pieces.append(spans.failure(type(entry.error).__name__ if entry.error else str(entry.status)))
        if origin is not None and origin.state:
            pieces.append(spans.state(origin.state))
        pieces.append(spans.common(name, Span.SPAN_KIND_SERVER, tuple(attributes), is_remote=origin is not None))
        self._processor.on_end(_Ended(spans.join(pieces)))  # type: ignore[arg-type]  # see _Ended

    def watch(self, summary: str, sql: str) -> Watch:
        """Who is to be told of trips with this statement.

        Args:
            summary: its operation and its table.
            sql: its text.
        """
        operation, table = summary.split()
        attributes = {
            **self._database,
            names.DB_OPERATION: operation,
            names.DB_COLLECTION: table,
            names.DB_SUMMARY: summary,
            names.DB_QUERY: sql,
            names.OLD_DB_STATEMENT: sql,
        }
        common = spans.common(summary, Span.SPAN_KIND_CLIENT, tuple(attributes.items()))

        def watch(trip: Trip) -> None:
            if trip.riders:
                self._rode(trip, common)

        return watch

    def _rode(self, trip: Trip, common: bytes) -> None:
        """Writes the span of a batch: a child of the first request that is sampled, and linked to all that are."""
        riders: Sequence[Entry] = trip.riders
        first = riders[0]
        span_id = f"{random.getrandbits(64) or 1:016x}"
        ended_at = time.time() - (time.monotonic() - trip.sent - trip.seconds)
        pieces = [common, spans.identity(first.trace_id, span_id, first.span_id, ended_at, trip.seconds)]
        pieces += [spans.link(rider.trace_id, rider.span_id) for rider in riders]
        if trip.questions > 1:
            pieces.append(spans.attribute(names.DB_BATCH_SIZE, trip.questions))
        if trip.error is not None:
            pieces.append(spans.failure(type(trip.error).__name__))
            sqlstate = getattr(trip.error.__cause__ or trip.error, "sqlstate", None)
            if sqlstate is not None:
                pieces.append(spans.attribute(names.DB_STATUS, sqlstate))
        self._processor.on_end(_Ended(spans.join(pieces)))  # type: ignore[arg-type]  # see _Ended


def _text(said: str) -> str:
    return said[:_TEXT_MOST_CHARACTERS].encode(errors="backslashreplace").decode()


@asynccontextmanager
async def running(
    settings: TraceSettings, resource: Resource, database: Mapping[str, str | int]
) -> AsyncIterator[Traces]:
    """Sends spans to the collector meanwhile; at the end, within a bound, those that are left.

    Raises:
        InvalidSetting: a variable that only OpenTelemetry reads is not what it takes.
    """
    try:
        processor = BatchSpanProcessor(_exporter(settings.protocol, _encoder(resource)))
    except ValueError as error:
        raise InvalidSetting(
            "an OTEL_* variable", "wrong", f"what OpenTelemetry takes: {str(error).rstrip('.')}"
        ) from error
    try:
        yield Traces(processor, database)
    finally:
        # Its own shutdown waits as long as the collector lets it.
        stopping = threading.Thread(target=processor.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, _STOP_SECONDS)


def _encoder(resource: Resource) -> _Encode:
    """Puts spans into the envelope that the SDK would put them in."""
    scope = InstrumentationScope("clients-api", __version__)
    envelope = encode_spans([ReadableSpan("", _Ended.context, resource=resource, instrumentation_scope=scope)])
    del envelope.resource_spans[0].scope_spans[0].spans[:]

    def encode(ended: Sequence[_Ended]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.CopyFrom(envelope)
        request.resource_spans[0].scope_spans[0].MergeFromString(b"".join([span.encoded for span in ended]))
        return request

    return encode


def _exporter(protocol: str, encode: _Encode) -> SpanExporter:
    # Only the one that is used is loaded: gRPC's takes 30 MB.
    module: Any
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as module  # noqa: PLC0415
    else:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as module  # noqa: PLC0415
    # Neither exporter has a place for it. This is the name by which both encode, and there are no other spans here.
    module.encode_spans = encode
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter
