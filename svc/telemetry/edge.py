"""The one place that times requests, writes their lines, counts them, and names their spans."""

import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from opentelemetry.trace import SpanContext

from svc import batching
from svc.batching import Trip
from svc.errors import DatabaseBusy
from svc.messages import Request, Response
from svc.proxies import Proxies
from svc.routes import Handler
from svc.telemetry import logs, names, traces
from svc.telemetry.metrics import Metrics, milliseconds
from svc.telemetry.traces import Origin, Sampler, Traces

CALLER_GONE: Final = 499  # as nginx and many dashboards call it

# Asked every few seconds by machines: only what goes wrong with them is worth a line.
_PROBES: Final = frozenset(("/healthz", "/readyz"))
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
_COUNTED_METHODS: Final = frozenset(("GET", "HEAD", "POST"))


class _Account:
    """What one request spent on the database, and where its trace is."""

    __slots__ = ("batch_size", "context", "database_seconds", "origin", "queue_seconds", "span_id")

    def __init__(self, span_id: str) -> None:
        self.span_id = span_id
        self.database_seconds = 0.0
        self.queue_seconds = 0.0
        self.batch_size = 0
        self.origin: Origin | None = None
        self.context: SpanContext | None = None  # only where it is recorded

    def charge(self, trip: Trip, queue_seconds: float) -> None:
        self.database_seconds += trip.seconds
        self.queue_seconds += queue_seconds
        self.batch_size = max(self.batch_size, trip.questions)
        if self.context is not None:
            trip.riders.append(self.context)


class Edge:
    """Passes each request to the service's own edge, and tells of it.

    Args:
        inner: answers.
        proxies: know whose word is taken.
        metrics: count.
        sampler: decides which requests are recorded.
        traces: takes the spans of those; None where none is.
    """

    def __init__(
        self, inner: Handler, proxies: Proxies, metrics: Metrics, sampler: Sampler, traces: Traces | None
    ) -> None:
        self._inner = inner
        self._proxies = proxies
        self._metrics = metrics
        self._sampler = sampler
        self._traces = traces
        self._write_line: Callable[[dict[str, Any]], None] = structlog.get_logger().bind().complete

    async def __call__(self, request: Request) -> Response:
        """The inner edge's answer."""
        started = time.perf_counter()
        client = self._proxies.client(request)
        account = _Account(request.trace_id[:16])
        if self._proxies.trusts(client):
            _join(request, account)
        if self._traces is not None and self._sampler.wants(request.trace_id, account.origin):
            account.context = traces.begin(request.trace_id, account.span_id, account.origin)
        if account.origin is not None or account.context is not None:
            request.traceresponse = f"00-{request.trace_id}-{account.span_id}-{account.context is not None:02d}"
        batching.account.set(account)
        self._metrics.in_flight += 1
        try:
            response = await self._inner(request)
        except BaseException as error:
            status = CALLER_GONE
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                status = HTTPStatus.INTERNAL_SERVER_ERROR
                request.error = error
            self._tell(request, status, 0, time.perf_counter() - started, account, client)
            raise
        finally:
            self._metrics.in_flight -= 1
        self._tell(request, response.status, response.body_length, time.perf_counter() - started, account, client)
        return response

    def _tell(  # noqa: PLR0917 - as many as a line has
        self, request: Request, status: int, size: int, seconds: float, account: _Account, client: str
    ) -> None:
        route, method = request.route, request.method if request.method in _METHODS else "OTHER"
        is_probe = route in _PROBES
        duration_ms = milliseconds(seconds)
        counted_method = method if method in _COUNTED_METHODS else "OTHER"
        self._metrics.count(route, counted_method, status, duration_ms, is_probe=is_probe)
        if isinstance(request.error, DatabaseBusy):
            self._metrics.count_shed()
        if is_probe and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        trace_id = request.trace_id
        record: dict[str, Any] = {
            names.TIMESTAMP: logs.now(),
            names.LEVEL: "info",
            names.EVENT: names.REQUEST,
            names.METHOD: method,
            names.ROUTE: route,
            names.STATUS: int(status),
            names.DURATION_MS: duration_ms,
            names.DATABASE_MS: milliseconds(account.database_seconds),
            names.QUEUE_MS: milliseconds(account.queue_seconds),
            names.BATCH_SIZE: account.batch_size,
            names.BYTES: size,
            names.REQUEST_ID: request.id,
            names.TRACE_ID: trace_id,
            names.XRAY_TRACE_ID: f"1-{trace_id[:8]}-{trace_id[8:]}",
            names.SPAN_ID: account.span_id,
            names.SAMPLED: account.context is not None,
            names.CLIENT: client,
        }
        if request.error is not None:
            record[names.ERROR] = type(request.error).__name__
        self._write_line(record)
        if account.context is not None:
            self._record(request, method, status, seconds, account, client)

    def _record(  # noqa: PLR0917 - likewise
        self, request: Request, method: str, status: int, seconds: float, account: _Account, client: str
    ) -> None:
        assert self._traces is not None
        assert account.context is not None
        parent = account.origin.parent if account.origin else None
        more: dict[str, str | float] = {
            names.CLIENT_ADDRESS: client,
            names.QUEUE_SECONDS: account.queue_seconds,
            names.DATABASE_SECONDS: account.database_seconds,
        }
        self._traces.served(request, account.context, parent, method, status, seconds, more)


def _join(request: Request, account: _Account) -> None:
    """Makes the request part of the trace that it says it is."""
    account.origin = traces.origin(request.headers)
    if account.origin is not None:
        request.join(account.origin.trace_id)
        account.span_id = f"{random.getrandbits(64) or 1:016x}"
