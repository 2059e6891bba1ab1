"""Traces: whose trace a request is part of, which are recorded, and their spans' way to a collector.

A span is written when it has ended, as the SDK's ReadableSpan, straight to its batch processor: a tracer's span costs
ten times as much to make, and nobody adds to ours while they last. A request that is not recorded has no span at all.
"""

import asyncio
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from svc import __version__
from svc.batching import Trip, Watch
from svc.messages import Request
from svc.settings import TraceSettings
from svc.telemetry import names
from svc.telemetry.journal import METHODS, Entry

_STOP_SECONDS: Final = 2.0  # for the last spans, whatever the collector does
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("clients-api", __version__)
_ERROR: Final = Status(StatusCode.ERROR)
_FINE: Final = Status(StatusCode.UNSET)

_W3C: Final = TraceContextTextMapPropagator()
# https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
_XRAY_ROOT: Final = re.compile(r"\bRoot=1-([0-9a-f]{8})-([0-9a-f]{24})\b")
_XRAY_PARENT: Final = re.compile(r"\bParent=([0-9a-f]{16})\b")
_XRAY_SAMPLED: Final = re.compile(r"\bSampled=([01])\b")


class Origin:
    """Where a request says that its trace began.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent: the span that asked, where it is known.
        is_sampled: whether that one is recorded, where it says so.
    """

    __slots__ = ("is_sampled", "parent", "trace_id")

    def __init__(self, trace_id: str, parent: SpanContext | None, is_sampled: bool | None) -> None:
        self.trace_id = trace_id
        self.parent = parent
        self.is_sampled = is_sampled


def origin(headers: Mapping[str, str]) -> Origin | None:
    """What the headers say, in W3C's words or X-Ray's; None where they say nothing that can be understood."""
    parent = trace.get_current_span(_W3C.extract(headers)).get_span_context()
    if parent.is_valid:
        return Origin(f"{parent.trace_id:032x}", parent, parent.trace_flags.sampled)
    said = headers.get("X-Amzn-Trace-Id", "")
    root, asked_by, sampled = _XRAY_ROOT.search(said), _XRAY_PARENT.search(said), _XRAY_SAMPLED.search(said)
    if root is None or (trace_id := root[1] + root[2]) == "0" * 32:
        return None
    is_sampled = None if sampled is None else sampled[1] == "1"
    if asked_by is None:
        return Origin(trace_id, None, is_sampled)
    context = SpanContext(int(trace_id, 16), int(asked_by[1], 16), True, TraceFlags(bool(is_sampled)))
    return Origin(trace_id, context, is_sampled)


class Sampler:
    """Decides which traces are recorded, as OTEL_TRACES_SAMPLER says.

    Args:
        ratio: of the traces that begin here.
        is_parent_based: whether those that began elsewhere are recorded just where they were recorded there.
    """

    def __init__(self, ratio: float, *, is_parent_based: bool) -> None:
        # As the SDK's TraceIdRatioBased: the id's last 64 bits are below a share of all. Digits of one length sort as
        # their numbers do, and all of them come before g.
        bound = round(ratio * 2**64)
        self._bound = f"{bound:016x}" if bound < 2**64 else "g"
        self._is_parent_based = is_parent_based

    def wants(self, trace_id: str, origin: Origin | None = None) -> bool:
        """Whether to record this trace, of 32 hexadecimal digits."""
        if origin is not None and self._is_parent_based and origin.is_sampled is not None:
            return origin.is_sampled
        return trace_id[16:] < self._bound


class Traces:
    """Writes spans.

    Args:
        processor: takes them.
        resource: says who they are from.
        database: attributes of all spans of the database.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource, database: Mapping[str, str]) -> None:
        self._processor = processor
        self._resource = resource
        self._database = database

    def served(self, request: Request, entry: Entry, origin: Origin | None) -> None:
        """Writes the span of a request that has just ended."""
        assert entry.context is not None
        is_known = entry.method in METHODS
        attributes: dict[str, Any] = {
            names.HTTP_METHOD: entry.method if is_known else "_OTHER",
            names.HTTP_STATUS: entry.status,
            names.URL_SCHEME: "http",
            names.CLIENT_ADDRESS: entry.client,
            names.QUEUE_SECONDS: entry.queue_seconds,
            names.DATABASE_SECONDS: entry.database_seconds,
        }
        name = entry.method if is_known else "HTTP"
        if request.has_route:
            name = f"{name} {request.route}"
            attributes[names.HTTP_ROUTE] = request.route
            attributes[names.URL_PATH] = request.rel_url.raw_path
        if (agent := request.headers.get("User-Agent")) is not None:
            attributes[names.USER_AGENT] = agent.encode(errors="backslashreplace").decode()
        is_fault = entry.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if is_fault:
            attributes[names.ERROR_TYPE] = type(entry.error).__name__ if entry.error else str(entry.status)
        self._write(
            name,
            SpanKind.SERVER,
            entry.context,
            origin.parent if origin else None,
            entry.seconds,
            attributes,
            _ERROR if is_fault else _FINE,
        )

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

        def watch(trip: Trip) -> None:
            if trip.riders:
                self._rode(trip, summary, known)

        return watch

    def _rode(self, trip: Trip, summary: str, known: Mapping[str, str]) -> None:
        """Writes the span of a batch: a child of the first request that is recorded, and linked to all that are."""
        first: SpanContext = trip.riders[0]
        attributes: dict[str, Any] = dict(known)
        if trip.questions > 1:
            attributes[names.DB_BATCH_SIZE] = trip.questions
        if trip.error is not None:
            attributes[names.ERROR_TYPE] = type(trip.error).__name__
            refusal = getattr(trip.error.__cause__ or trip.error, "sqlstate", None)
            if refusal is not None:
                attributes[names.DB_STATUS] = refusal
        self._write(
            summary,
            SpanKind.CLIENT,
            SpanContext(first.trace_id, random.getrandbits(64) or 1, False, _SAMPLED, first.trace_state),
            first,
            trip.seconds,
            attributes,
            _FINE if trip.error is None else _ERROR,
            [Link(rider) for rider in trip.riders],
        )

    def _write(  # noqa: PLR0917 - as many as a span has
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        seconds: float,
        attributes: Mapping[str, Any],
        status: Status,
        links: Sequence[Link] = (),
    ) -> None:
        ended = time.time_ns()
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                links=links,
                kind=kind,
                status=status,
                start_time=ended - int(seconds * 1e9),
                end_time=ended,
                instrumentation_scope=_SCOPE,
            )
        )


def begin(trace_id: str, span_id: str, origin: Origin | None) -> SpanContext:
    """The context of a span that is recorded."""
    state = origin.parent.trace_state if origin is not None and origin.parent is not None else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), False, _SAMPLED, state)


@asynccontextmanager
async def running(settings: TraceSettings, resource: Resource, database: Mapping[str, str]) -> AsyncIterator[Traces]:
    """Sends spans to the collector meanwhile; at the end, within a bound, those that are left."""
    processor = BatchSpanProcessor(_exporter(settings.protocol))
    try:
        yield Traces(processor, resource, database)
    finally:
        # Its own shutdown waits as long as the collector lets it.
        stopping = threading.Thread(target=processor.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, _STOP_SECONDS)


def _exporter(protocol: str) -> SpanExporter:
    # Only the one that is used is loaded: gRPC's takes 30 MB.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

    return http.OTLPSpanExporter()
