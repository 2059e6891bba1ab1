"""Requests that have ended: each gets a line in the log, a count in the metrics and, where it is sampled, a span."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog

from svc.errors import DatabaseBusy
from svc.telemetry import logs, names
from svc.telemetry.entry import METHODS, PROBES, Entry
from svc.telemetry.metrics import Metrics
from svc.telemetry.traces import Traces

# What is told of many requests in one go costs half of what it costs amid each: its code and data stay in the caches.
_GATHER_MOST: Final = 64
_GATHER_SECONDS: Final = 0.02


class Journal:
    """Gathers requests that have ended, a few milliseconds' worth, and tells of them together.

    Args:
        metrics: count them.
        traces: take the spans of those that are sampled; None where there are none.

    Attributes:
        in_flight: requests that have not ended.
    """

    def __init__(self, metrics: Metrics, traces: Traces | None) -> None:
        self.in_flight = 0
        self._metrics = metrics
        self._traces = traces
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
        self._logger.complete(self._records(entries))
        self._metrics.tell_full()

    def _records(self, entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
        """The lines' records, one at a time: their memory is free at once, and the next finds it in the cache."""
        latencies_ms = self._metrics.latencies_ms
        for entry in entries:
            method, route, status, trace_id = entry.method, entry.route, entry.status, entry.trace_id
            if method not in METHODS:
                method = "OTHER"
            duration_ms = int(entry.seconds * 1e6) / 1e3
            latencies_ms[route, method, status].append(duration_ms)
            if entry.is_sampled and self._traces is not None:
                self._traces.served(entry)
            # Of probes only what goes wrong is worth a line.
            if route in PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue
            # Written out, not by the catalogue's constants, for speed; a test compares the two.
            record: dict[str, Any] = {
                "timestamp": logs.timestamp(int(entry.ended_at * 1000)),
                "level": "info",
                "event": "request",
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": duration_ms,
                "database_ms": int(entry.database_seconds * 1e6) / 1e3,
                "queue_ms": int(entry.queue_seconds * 1e6) / 1e3,
                "batch_size": entry.batch_size,
                "bytes": entry.body_bytes,
                "request_id": entry.id,
                "trace_id": trace_id,
                "xray_trace_id": f"1-{trace_id[:8]}-{trace_id[8:]}",
                "span_id": entry.span_id,
                "sampled": entry.is_sampled,
                "client": entry.client,
            }
            if entry.error is not None:
                record[names.ERROR] = type(entry.error).__name__
                if isinstance(entry.error, DatabaseBusy):
                    self._metrics.shed += 1
            yield record
