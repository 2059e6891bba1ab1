"""Records requests that have ended: counts all of them in the metrics, and writes lines and spans of some."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog

from svc.errors import DatabaseBusy, ServiceBusy
from svc.logs import names
from svc.logs import setup as logs
from svc.telemetry.metrics import Metrics, milliseconds
from svc.telemetry.record import METHODS, PROBES, SLOW_SECONDS, RequestRecord
from svc.telemetry.sampling import LATE_SECONDS, Sampler, TraceSampler
from svc.telemetry.traces import Traces

# To record many requests at once costs less than one by one: code and data stay in the CPU caches.
_MAX_COLLECTED: Final = 64
_COLLECT_SECONDS: Final = 0.02
_NOTABLE_FACTOR: Final = 10  # failed and slow requests have ten times the budget of the others

_Line = tuple[RequestRecord, int]  # a request, and how many requests its line stands for


class RequestLog:
    """Collects requests that have ended, for up to 20 ms, and records them together.

    Args:
        lines_per_second: the lines to write of requests that neither failed nor were slow; 0 is without a limit.
        metrics: count requests.
        trace_sampler: decides which requests get a span.
        traces: take the spans; None if nothing is traced.

    Attributes:
        in_flight: the number of requests that have not ended.
    """

    def __init__(
        self, lines_per_second: float, metrics: Metrics, trace_sampler: TraceSampler, traces: Traces | None
    ) -> None:
        self.in_flight = 0
        self._notable = Sampler[RequestRecord](_NOTABLE_FACTOR * lines_per_second)
        self._others = Sampler[RequestRecord](lines_per_second)
        self._metrics = metrics
        self._trace_sampler = trace_sampler
        self._traces = traces
        self._requests: list[RequestRecord] = []
        self._is_due = False
        self._late_lines: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._logger = structlog.get_logger().bind()

    def add(self, request: RequestRecord) -> None:
        """Adds a request that has ended."""
        self._requests.append(request)
        if len(self._requests) >= _MAX_COLLECTED:
            self._flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_later(_COLLECT_SECONDS, self._flush_when_due)

    def close(self) -> None:
        """Records all requests that were added."""
        self._flush()
        self._write_late(0)

    def _flush_when_due(self) -> None:
        self._is_due = False
        self._flush()

    def _flush(self) -> None:
        requests, self._requests = self._requests, []
        self._write(self._chosen(requests, time.monotonic()))
        self._expect_late()

    def _expect_late(self) -> None:
        if self._late_lines is None and (self._notable.is_waiting or self._others.is_waiting):
            self._late_lines = self._loop.call_later(LATE_SECONDS, self._write_late, LATE_SECONDS)

    def _write_late(self, seconds: float) -> None:
        """Writes lines that stand for requests skipped so long ago."""
        self._late_lines = None
        now = time.monotonic()
        self._write([*self._notable.late(now, seconds), *self._others.late(now, seconds)])
        self._expect_late()

    def _write(self, lines: Iterable[_Line]) -> None:
        self._logger.write_all(map(_record, lines))

    def _chosen(self, requests: Sequence[RequestRecord], now: float) -> Iterator[_Line]:
        """Counts the requests, writes spans, and yields those that get a line.

        One at a time: each one's memory is freed at once and reused from the CPU cache.
        """
        metrics = self._metrics
        for request in requests:
            status, seconds = request.status, request.seconds
            kind = request.route, request.method if request.method in METHODS else "OTHER", status
            metrics.latencies_ms[kind].add(int(seconds * 1e6) / 1e3)  # as milliseconds(), without the cost of a call
            if request.slot_seconds:
                metrics.slot_waits_ms.add(milliseconds(request.slot_seconds))
            if request.caller:
                metrics.callers[request.caller] += 1
            if request.error is not None and isinstance(request.error, DatabaseBusy | ServiceBusy):
                metrics.shed += 1
            if request.route in PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                continue  # a successful probe is only counted
            # A key or a client that does not exist is no failure: anyone can ask for one.
            is_notable = (status >= 400 and status not in (401, 404)) or seconds > SLOW_SECONDS
            sampler = self._notable if is_notable or request.is_sampled else self._others
            if self._traces and self._trace_sampler.should_record(request, kind, now, is_notable=is_notable):
                request.is_sampled = True
                self._traces.add_request(request)
            weight = sampler.choose(kind, now, request)
            if weight:
                yield request, weight


def _record(line: _Line) -> dict[str, Any]:
    """The record of a request's line."""
    request, weight = line
    # For speed, these are literals and not the catalogue's constants; a test compares the two.
    record: dict[str, Any] = {
        "timestamp": logs.timestamp(int(request.ended_at * 1000)),
        "level": "info",
        "event": "request",
        "pod": logs.POD,
        "method": request.method if request.method in METHODS else "OTHER",
        "route": request.route,
        "status": request.status,
        "duration_ms": milliseconds(request.seconds),
        "database_ms": milliseconds(request.database_seconds),
        "queue_ms": milliseconds(request.queue_seconds),
        "batch_size": request.batch_size,
        "bytes": request.body_bytes,
        "sample_weight": weight,
        "trace_id": request.trace_id,
        "sampled": request.is_sampled,
        "client": request.client,
    }
    if request.id != request.trace_id:
        record[names.REQUEST_ID] = request.id
    if request.remote_parent is not None:
        record[names.SPAN_ID] = request.span_id
    if request.slot_seconds:
        record[names.SLOT_MS] = milliseconds(request.slot_seconds)
    if request.stream_seconds:
        record[names.STREAM_MS] = milliseconds(request.stream_seconds)
    if request.caller:
        record[names.CALLER] = request.caller
    if request.error is not None:
        record[names.ERROR] = type(request.error).__name__
    return record
