"""Requests that have ended, each with a line in the log and a count in the metrics."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import structlog
from opentelemetry.trace import SpanContext

from svc.batching import Trip
from svc.errors import DatabaseBusy
from svc.telemetry import logs, names
from svc.telemetry.metrics import Metrics, milliseconds

# What is told of many requests in one go costs half of what it costs amid each: its code and data stay in the caches.
_GATHER_MOST: Final = 64
_GATHER_SECONDS: Final = 0.02

# Asked every few seconds by machines: only what goes wrong with them is worth a line.
_PROBES: Final = frozenset(("/healthz", "/readyz"))
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
_COUNTED_METHODS: Final = frozenset(("GET", "HEAD", "POST"))


class Entry:
    """One request: what it spent on the database, and, once it has ended, all else that is told of it.

    Attributes:
        context: of its span, where it is recorded.
        seconds: from its head to its answer.
        ended_at: the time of its end.
        body_bytes: of its answer.
    """

    __slots__ = (
        *("method", "route", "status", "error", "body_bytes", "client", "request_id", "trace_id", "span_id", "context"),
        *("seconds", "ended_at", "database_seconds", "queue_seconds", "batch_size"),
    )

    method: str
    route: str
    status: int
    error: Exception | None
    body_bytes: int
    client: str
    request_id: str
    trace_id: str
    span_id: str
    context: SpanContext | None
    seconds: float
    ended_at: float
    database_seconds: float
    queue_seconds: float
    batch_size: int

    def __init__(self) -> None:
        self.context = None
        self.database_seconds = 0.0
        self.queue_seconds = 0.0
        self.batch_size = 0

    def charge(self, trip: Trip, queue_seconds: float) -> None:
        """See batching.Account."""
        self.database_seconds += trip.seconds
        self.queue_seconds += queue_seconds
        self.batch_size = max(self.batch_size, trip.questions)
        if self.context is not None:
            trip.riders.append(self.context)


class Journal:
    """Gathers requests that have ended, a few milliseconds' worth, and tells of them together."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._entries: list[Entry] = []
        self._is_due = False
        self._loop = asyncio.get_running_loop()
        self._logger = structlog.get_logger().bind()

    def add(self, entry: Entry) -> None:
        """Takes a request that has ended."""
        self._entries.append(entry)
        if len(self._entries) >= _GATHER_MOST:
            self.tell()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_later(_GATHER_SECONDS, self._tell_late)

    def _tell_late(self) -> None:
        self._is_due = False
        self.tell()

    def tell(self) -> None:
        """Tells of all that were taken."""
        entries, self._entries = self._entries, []
        records = []
        for entry in entries:
            method = entry.method if entry.method in METHODS else "OTHER"
            duration_ms = milliseconds(entry.seconds)
            is_probe = entry.route in _PROBES
            self._metrics.count(
                entry.route,
                method if method in _COUNTED_METHODS else "OTHER",
                entry.status,
                duration_ms,
                is_probe=is_probe,
                is_shed=isinstance(entry.error, DatabaseBusy),
            )
            if is_probe and entry.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue
            # Written out, not by the catalogue's constants, for speed; a test compares the two.
            record: dict[str, Any] = {
                "timestamp": logs.timestamp(entry.ended_at),
                "level": "info",
                "event": names.REQUEST,
                "method": method,
                "route": entry.route,
                "status": entry.status,
                "duration_ms": duration_ms,
                "database_ms": milliseconds(entry.database_seconds),
                "queue_ms": milliseconds(entry.queue_seconds),
                "batch_size": entry.batch_size,
                "bytes": entry.body_bytes,
                "request_id": entry.request_id,
                "trace_id": entry.trace_id,
                "xray_trace_id": f"1-{entry.trace_id[:8]}-{entry.trace_id[8:]}",
                "span_id": entry.span_id,
                "sampled": entry.context is not None,
                "client": entry.client,
            }
            if entry.error is not None:
                record["error"] = type(entry.error).__name__
            records.append(record)
        self._logger.complete(records)
