"""Traces: a span for each request that is sampled, and for each batch that served one, on their way to a collector.

A request that is not sampled has no span at all. A span is written once it has ended, as the protocol's own message,
straight to the SDK's batch processor: to make it by a tracer, and to have the SDK encode it, costs six times as much,
and nobody adds to ours while they last.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from svc import __version__
from svc.batching import Trip, Watch
from svc.settings import TraceSettings
from svc.telemetry import names
from svc.telemetry.entry import METHODS, Entry

_STOP_SECONDS: Final = 2.0  # for the last spans, whatever the collector does
_TEXT_MOST_CHARACTERS: Final = 256  # of an attribute that a caller wrote

_FLAGS: Final = TraceFlags.SAMPLED | SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_FLAGS_REMOTE: Final = _FLAGS | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK  # where the parent is another's

_Encode = Callable[[Sequence["_Ended"]], ExportTraceServiceRequest]


class _Ended:
    """A span as the SDK's batch processor queues it: all that it looks at is whether the span is sampled."""

    __slots__ = ("message",)

    context: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, message: Span) -> None:
        self.message = message


class Traces:
    """Writes spans.

    Args:
        processor: takes them.
        database: attributes of all spans of the database.
    """

    def __init__(self, processor: BatchSpanProcessor, database: Mapping[str, str]) -> None:
        self._processor = processor
        self._database = database

    def served(self, entry: Entry) -> None:
        """Writes the span of a request that has ended."""
        request, origin = entry.request, entry.origin
        is_known = request.method in METHODS
        name = request.method if is_known else "HTTP"
        attributes = [
            _attribute(names.HTTP_METHOD, request.method if is_known else "_OTHER"),
            _attribute(names.HTTP_STATUS, entry.status),
            _attribute(names.URL_SCHEME, "http"),
            _attribute(names.CLIENT_ADDRESS, entry.client),
        ]
        if (agent := request.headers.get("User-Agent")) is not None:
            attributes.append(_attribute(names.USER_AGENT, _text(agent)))
        if request.has_route:
            name = f"{name} {request.route}"
            attributes.append(_attribute(names.HTTP_ROUTE, request.route))
        span = _span(
            name,
            Span.SPAN_KIND_SERVER,
            request.trace_id,
            entry.span_id,
            origin.parent_id if origin else "",
            entry.ended_at,
            entry.seconds,
            attributes,
        )
        if request.has_route:
            span.attributes.add(key=names.URL_PATH).value.string_value = _text(request.rel_url.raw_path)
        span.attributes.add(key=names.QUEUE_SECONDS).value.double_value = entry.queue_seconds
        span.attributes.add(key=names.DATABASE_SECONDS).value.double_value = entry.database_seconds
        span.flags = _FLAGS_REMOTE if origin else _FLAGS
        if origin is not None:
            span.trace_state = origin.state
        if entry.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _mark(span, type(request.error).__name__ if request.error else str(entry.status))
        self._processor.on_end(_Ended(span))  # type: ignore[arg-type]  # see _Ended

    def watch(self, summary: str, sql: str) -> Watch:
        """Who is to be told of trips with this statement.

        Args:
            summary: its operation and its table.
            sql: its text.
        """
        operation, table = summary.split()
        known = {
            **self._database,
            names.DB_OPERATION: operation,
            names.DB_COLLECTION: table,
            names.DB_SUMMARY: summary,
            names.DB_QUERY: sql,
            names.OLD_DB_STATEMENT: sql,
        }
        attributes = b"".join(_attribute(name, value) for name, value in known.items())

        def watch(trip: Trip) -> None:
            if trip.riders:
                self._rode(trip, summary, attributes)

        return watch

    def _rode(self, trip: Trip, summary: str, attributes: bytes) -> None:
        """Writes the span of a batch: a child of the first request that is sampled, and linked to all that are."""
        riders: Sequence[Entry] = trip.riders
        first = riders[0]
        ended_at = time.time() - (time.monotonic() - trip.sent - trip.seconds)
        span = _span(
            summary,
            Span.SPAN_KIND_CLIENT,
            first.request.trace_id,
            f"{random.getrandbits(64) or 1:016x}",
            first.span_id,
            ended_at,
            trip.seconds,
            [attributes],
        )
        span.flags = _FLAGS
        for rider in riders:
            span.links.add(
                trace_id=bytes.fromhex(rider.request.trace_id), span_id=bytes.fromhex(rider.span_id), flags=_FLAGS
            )
        if trip.questions > 1:
            span.attributes.add(key=names.DB_BATCH_SIZE).value.int_value = trip.questions
        if trip.error is not None:
            _mark(span, type(trip.error).__name__)
            sqlstate = getattr(trip.error.__cause__ or trip.error, "sqlstate", None)
            if sqlstate is not None:
                span.attributes.add(key=names.DB_STATUS).value.string_value = sqlstate
        self._processor.on_end(_Ended(span))  # type: ignore[arg-type]  # see _Ended


def _span(  # noqa: PLR0917 - as many as a span has
    name: str,
    kind: Span.SpanKind.ValueType,
    trace_id: str,
    span_id: str,
    parent_id: str,
    ended_at: float,
    seconds: float,
    attributes: Sequence[bytes],
) -> Span:
    ended_ns = int(ended_at * 1e9)
    span = Span(
        name=name,
        kind=kind,
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes.fromhex(parent_id),
        start_time_unix_nano=ended_ns - int(seconds * 1e9),
        end_time_unix_nano=ended_ns,
    )
    span.MergeFromString(b"".join(attributes))
    return span


@lru_cache(maxsize=1024)  # most spans say what others said
def _attribute(name: str, value: str | int) -> bytes:
    """A span that has this attribute and nothing else, to be merged into others."""
    span = Span()
    found = span.attributes.add(key=name).value
    if isinstance(value, str):
        found.string_value = value
    else:
        found.int_value = value
    attribute: bytes = span.SerializeToString()
    return attribute


def _mark(span: Span, error: str) -> None:
    span.status.code = Status.STATUS_CODE_ERROR
    span.attributes.add(key=names.ERROR_TYPE).value.string_value = error


def _text(said: str) -> str:
    return said[:_TEXT_MOST_CHARACTERS].encode(errors="backslashreplace").decode()


@asynccontextmanager
async def running(settings: TraceSettings, resource: Resource, database: Mapping[str, str]) -> AsyncIterator[Traces]:
    """Sends spans to the collector meanwhile; at the end, within a bound, those that are left."""
    processor = BatchSpanProcessor(_exporter(settings.protocol, _encoder(resource)))
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

    def encode(spans: Sequence[_Ended]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.CopyFrom(envelope)
        request.resource_spans[0].scope_spans[0].spans.extend([span.message for span in spans])
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
