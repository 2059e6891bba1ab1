"""Records requests that have ended: a log line, a count in the metrics and, if sampled, a span for each."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog

from svc.errors import DatabaseBusy, ServiceBusy
from svc.logs import names
from svc.logs import setup as logs
from svc.telemetry.metrics import Metrics, milliseconds
from svc.telemetry.record import METHODS, PROBES, RequestRecord
from svc.telemetry.traces import Traces

# To record many requests at once costs half as much as one by one: code and data stay in the CPU caches.
_MAX_COLLECTED: Final = 64
_COLLECT_SECONDS: Final = 0.02


class RequestLog:
    """Collects requests that have ended, for up to 20 ms, and records them together.

    Args:
        metrics: count requests.
        traces: take the spans of sampled requests; None if nothing is traced.

    Attributes:
        in_flight: the number of requests that have not ended.
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
        """Adds a request that has ended."""
        self._requests.append(request)
        if len(self._requests) >= _MAX_COLLECTED:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_later(_COLLECT_SECONDS, self._flush_late)

    def _flush_late(self) -> None:
        self._is_due = False
        self.flush()

    def flush(self) -> None:
        """Records all requests that were added."""
        requests, self._requests = self._requests, []
        self._logger.write_all(self._lines(requests))
        self._metrics.flush_full()

    def _lines(self, requests: Sequence[RequestRecord]) -> Iterator[dict[str, Any]]:
        """Yields the lines' records one at a time: each one's memory is freed at once and reused from the CPU cache."""
        latencies_ms = self._metrics.latencies_ms
        for request in requests:
            method, route, status, trace_id = request.method, request.route, request.status, request.trace_id
            if method not in METHODS:
                method = "OTHER"
            duration_ms = int(request.seconds * 1e6) / 1e3
            latencies_ms[route, method, status].append(duration_ms)
            if request.is_sampled and self._traces is not None:
                self._traces.add_request(request)
            # A successful probe gets no line.
            if route in PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue
            # For speed, these are literals and not the catalogue's constants; a test compares the two.
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
            if request.slot_seconds:
                record[names.SLOT_MS] = milliseconds(request.slot_seconds)
                self._metrics.slot_waits_ms.append(record[names.SLOT_MS])
            if request.caller:
                record[names.CALLER] = request.caller
                self._metrics.callers[request.caller] += 1
            if request.error is not None:
                record[names.ERROR] = type(request.error).__name__
                if isinstance(request.error, DatabaseBusy | ServiceBusy):
                    self._metrics.shed += 1
            yield record
