"""Requests that have ended: each gets a line in the log, a count in the metrics and, where it is sampled, a span."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog

from svc.errors import DatabaseBusy
from svc.logs import names
from svc.logs import setup as logs
from svc.telemetry.metrics import Metrics
from svc.telemetry.record import METHODS, PROBES, RequestRecord
from svc.telemetry.traces import Traces

# What is told of many requests in one go costs half of what it costs amid each: its code and data stay in the caches.
_MAX_GATHERED: Final = 64
_GATHER_SECONDS: Final = 0.02


class RequestLog:
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
        self._requests: list[RequestRecord] = []
        self._is_due = False
        self._loop = asyncio.get_running_loop()
        self._logger = structlog.get_logger().bind()

    def add(self, request: RequestRecord) -> None:
        """Takes a request that has ended."""
        self._requests.append(request)
        if len(self._requests) >= _MAX_GATHERED:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_later(_GATHER_SECONDS, self._flush_late)

    def _flush_late(self) -> None:
        self._is_due = False
        self.flush()

    def flush(self) -> None:
        """Tells of all that were taken."""
        requests, self._requests = self._requests, []
        self._logger.complete(self._lines(requests))
        self._metrics.flush_full()

    def _lines(self, requests: Sequence[RequestRecord]) -> Iterator[dict[str, Any]]:
        """The lines' records, one at a time: their memory is free at once, and the next finds it in the cache."""
        latencies_ms = self._metrics.latencies_ms
        for request in requests:
            method, route, status, trace_id = request.method, request.route, request.status, request.trace_id
            if method not in METHODS:
                method = "OTHER"
            duration_ms = int(request.seconds * 1e6) / 1e3
            latencies_ms[route, method, status].append(duration_ms)
            if request.is_sampled and self._traces is not None:
                self._traces.add_request(request)
            # Of probes only what goes wrong is worth a line.
            if route in PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue
            # Written out, not by the catalogue's constants, for speed; a test compares the two.
            record: dict[str, Any] = {
                "timestamp": logs.timestamp(int(request.ended_at * 1000)),
                "level": "info",
                "event": "request",
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": duration_ms,
                "database_ms": int(request.database_seconds * 1e6) / 1e3,
                "queue_ms": int(request.queue_seconds * 1e6) / 1e3,
                "batch_size": request.batch_size,
                "bytes": request.body_bytes,
                "request_id": request.id,
                "trace_id": trace_id,
                "xray_trace_id": f"1-{trace_id[:8]}-{trace_id[8:]}",
                "span_id": request.span_id,
                "sampled": request.is_sampled,
                "client": request.client,
            }
            if request.error is not None:
                record[names.ERROR] = type(request.error).__name__
                if isinstance(request.error, DatabaseBusy):
                    self._metrics.shed += 1
            yield record
