"""Traces: a span for each recorded request, and for each database batch that served it, exported to a collector.

Whether a request is recorded is decided when it has ended, so that failed and slow ones can be. Then its spans are
encoded, and go directly to the SDK's batch processor. A span from the SDK's tracer and encoder costs 40 µs, ten times
as much, and would only add the ability to change a span while it is open, which this service does not need.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from svc import __version__
from svc.errors import InvalidSetting
from svc.http.proxies import Proxies
from svc.logs import names
from svc.postgres.batching import RoundTrip
from svc.telemetry import spans
from svc.telemetry.record import METHODS, RequestRecord
from svc.telemetry.settings import TraceSettings

_STOP_SECONDS: Final = 2.0  # to export the last spans, even if the collector does not answer
_MAX_TEXT_CHARACTERS: Final = 256  # of an attribute that comes from the caller

_Encode = Callable[[Sequence["_EncodedSpan"]], ExportTraceServiceRequest]


class _EncodedSpan:
    """A span as the SDK's batch processor queues it. The processor reads only whether the span is sampled."""

    __slots__ = ("encoded",)

    context: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class Traces:
    """Writes spans.

    Args:
        processor: exports the spans.
        database: attributes of all database spans.
        proxies: the trusted proxies, which know by which scheme a request came.
    """

    def __init__(self, processor: BatchSpanProcessor, database: Mapping[str, str | int], proxies: Proxies) -> None:
        self._processor = processor
        self._database = database
        self._proxies = proxies
        self._operations: dict[str, bytes] = {}  # the attributes of their spans, encoded

    def add_operation(self, name: str, summary: str, sql: str) -> None:
        """Adds a database operation, whose batches are part of requests.

        Args:
            name: as in RoundTrip.
            summary: its SQL command and table.
            sql: its SQL.
        """
        command, table = summary.split()
        attributes = {
            **self._database,
            names.DB_OPERATION: command,
            names.DB_COLLECTION: table,
            names.DB_SUMMARY: summary,
            names.DB_QUERY: sql,
            names.OLD_DB_STATEMENT: sql,
        }
        self._operations[name] = spans.common(summary, Span.SPAN_KIND_CLIENT, tuple(attributes.items()))

    def add_request(self, request: RequestRecord) -> None:
        """Writes the spans of a request that has ended: its own, and one for each database batch that served it."""
        remote_parent = request.remote_parent
        method, name = (request.method, request.method) if request.method in METHODS else ("_OTHER", "HTTP")
        attributes = [
            (names.HTTP_METHOD, method),
            (names.HTTP_STATUS, request.status),
            (names.URL_SCHEME, "https" if self._proxies.is_https(request) else "http"),
            (names.CLIENT_ADDRESS, request.client),
        ]
        pieces = [
            spans.identity(
                request.trace_id,
                request.span_id,
                remote_parent.parent_id if remote_parent else "",
                request.ended_at,
                request.seconds + request.stream_seconds,
            ),
            spans.duration(names.QUEUE_SECONDS, request.queue_seconds),
            spans.duration(names.DATABASE_SECONDS, request.database_seconds),
        ]
        # The caller chooses what follows, so none of it is encoded once for many spans.
        host, port = _authority(request.headers.get("Host", ""))
        if host:
            pieces.append(spans.attribute(names.SERVER_ADDRESS, host))
        if port:
            pieces.append(spans.attribute(names.SERVER_PORT, port))
        if (agent := request.headers.get("User-Agent")) is not None:
            pieces.append(spans.attribute(names.USER_AGENT, _text(agent)))
        if request.caller:
            attributes.append((names.ENDUSER_ID, request.caller))
        if request.has_route:
            name = f"{name} {request.route}"
            attributes.append((names.HTTP_ROUTE, request.route))
            pieces.append(spans.attribute(names.URL_PATH, _text(request.rel_url.raw_path)))
        if request.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            pieces.append(spans.failure(type(request.error).__name__ if request.error else str(request.status)))
        if remote_parent is not None and remote_parent.state:
            pieces.append(spans.state(remote_parent.state))
        pieces.append(spans.common(name, Span.SPAN_KIND_SERVER, tuple(attributes), is_remote=remote_parent is not None))
        self._end(pieces)
        for round_trip, _ in request.round_trips:
            self._add_round_trip(request, round_trip)

    def _add_round_trip(self, request: RequestRecord, round_trip: RoundTrip) -> None:
        """Writes the span of a batch, as one of this request: each request in it has such a span of its own.

        X-Ray does not show links, so a single span would be missing in all traces but one.
        """
        span_id = f"{random.getrandbits(64) or 1:016x}"
        ended_at = time.time() - (time.monotonic() - round_trip.sent_at - round_trip.seconds)
        pieces = [
            self._operations[round_trip.operation],
            spans.identity(request.trace_id, span_id, request.span_id, ended_at, round_trip.seconds),
        ]
        if round_trip.items > 1:
            pieces.append(spans.attribute(names.DB_BATCH_SIZE, round_trip.items))
        if round_trip.error is not None:
            pieces.append(spans.failure(type(round_trip.error).__name__))
            sqlstate = getattr(round_trip.error.__cause__ or round_trip.error, "sqlstate", None)
            if sqlstate is not None:
                pieces.append(spans.attribute(names.DB_STATUS, sqlstate))
        self._end(pieces)

    def _end(self, pieces: Iterable[bytes]) -> None:
        self._processor.on_end(_EncodedSpan(spans.join(pieces)))  # type: ignore[arg-type]  # see _EncodedSpan


def _authority(header: str) -> tuple[str, int]:
    """The host and the port of a Host header; an empty host where there is none, and 0 without a port."""
    try:
        found = urlsplit(f"//{header}")
        return _text(found.hostname or ""), found.port or 0
    except ValueError:
        return "", 0


def _text(value: str) -> str:
    return value[:_MAX_TEXT_CHARACTERS].encode(errors="backslashreplace").decode()


@asynccontextmanager
async def running(
    settings: TraceSettings, resource: Resource, database: Mapping[str, str | int], proxies: Proxies
) -> AsyncIterator[Traces]:
    """Exports spans to the collector while the context is open; at the end, takes at most 2 s for the last ones.

    Raises:
        InvalidSetting: OpenTelemetry rejects a variable that only it reads.
    """
    try:
        processor = BatchSpanProcessor(_exporter(settings.protocol, _encoder(resource)))
    except ValueError as error:
        raise InvalidSetting(
            "an OTEL_* variable", "wrong", f"what OpenTelemetry takes: {str(error).rstrip('.')}"
        ) from error
    try:
        yield Traces(processor, database, proxies)
    finally:
        # The processor's own shutdown has no time limit: it waits for the collector.
        stopping = threading.Thread(target=processor.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, _STOP_SECONDS)


def _encoder(resource: Resource) -> _Encode:
    """A function that puts spans into the same envelope as the SDK: their resource and their scope."""
    scope = InstrumentationScope("clients-api", __version__)
    envelope = encode_spans([ReadableSpan("", _EncodedSpan.context, resource=resource, instrumentation_scope=scope)])
    del envelope.resource_spans[0].scope_spans[0].spans[:]

    def encode(ended: Sequence[_EncodedSpan]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.CopyFrom(envelope)
        request.resource_spans[0].scope_spans[0].MergeFromString(b"".join([span.encoded for span in ended]))
        return request

    return encode


def _exporter(protocol: str, encode: _Encode) -> SpanExporter:
    # Imports only the exporter that is used: the one for gRPC takes 30 MB of memory.
    module: Any
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as module  # noqa: PLC0415
    else:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as module  # noqa: PLC0415
    # Neither exporter has a setting for its encoder. Both call it by this name, and export no other spans here.
    module.encode_spans = encode
    exporter: SpanExporter = module.OTLPSpanExporter()
    return exporter
