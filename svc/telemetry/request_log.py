"""Records requests that have ended: counts all of them in the metrics, and writes lines and spans of some."""

import asyncio
import time
from http import HTTPStatus
from typing import Any, Final

import structlog

from svc.errors import DatabaseBusy, ServiceBusy
from svc.logs import names
from svc.logs import setup as logs
from svc.telemetry.metrics import Metrics, milliseconds
from svc.telemetry.record import METHODS, PROBES, SLOW_SECONDS, RequestRecord
from svc.telemetry.sampling import LATE_SECONDS, UPDATE_SECONDS, Kind, Sampler, TraceSampler
from svc.telemetry.traces import Traces

_COLLECT_SECONDS: Final = 0.02
_MAX_LINES: Final = 64  # to write them together costs less than one by one, and what they refer to is freed soon
_NOTABLE_FACTOR: Final = 10  # failed and slow requests have ten times the budget of the others

_Line = tuple[RequestRecord, int]  # a request, and how many requests its line stands for


class _Kind:
    """The requests of a route, a method and a status that were slow, or those that were not.

    Attributes:
        name: the route, the method and the status.
        is_probe: whether they are successful probes, which are only counted.
        is_failure: whether they failed.
        is_notable: whether they failed or were slow.
        seconds: how long those took that are not in the metrics yet.
        skippable: how many may be skipped without asking the samplers.
        until: until when, by time.perf_counter().
        skipped: how many were.
        newest: one of the newest of these.
    """

    __slots__ = ("is_failure", "is_notable", "is_probe", "name", "newest", "seconds", "skippable", "skipped", "until")

    def __init__(self, name: Kind, *, is_slow: bool) -> None:
        route, _, status = self.name = name
        self.is_probe = route in PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR
        # A key or a client that does not exist is no failure: anyone can ask for one.
        self.is_failure = status >= HTTPStatus.BAD_REQUEST and status not in (401, 404)
        self.is_notable = self.is_failure or is_slow
        self.seconds: list[float] = []
        self.skippable = self.skipped = 0
        self.until = 0.0
        self.newest: RequestRecord | None = None


class RequestLog:
    """Records requests that have ended: counts them every 20 ms, and writes the lines and the spans of some.

    Most requests at high traffic get neither. Such a request costs little more than a count: the samplers say in
    advance how many of its kind they will skip, and it is freed at once, so that its memory is reused from the CPU
    cache.

    Args:
        lines_per_second: the lines to write of requests that neither failed nor were slow; 0 is without a limit.
        metrics: count requests.
        trace_sampler: decides which requests get a span.
        traces: take the spans; None if nothing is traced.
    """

    def __init__(
        self, lines_per_second: float, metrics: Metrics, trace_sampler: TraceSampler, traces: Traces | None
    ) -> None:
        self._notable = Sampler[RequestRecord](_NOTABLE_FACTOR * lines_per_second)
        self._others = Sampler[RequestRecord](lines_per_second)
        self._metrics = metrics
        self._trace_sampler = trace_sampler
        self._traces = traces
        self._kinds: dict[tuple[Kind, bool], _Kind] = {}
        self._slot_seconds: list[float] = []  # the waits for slots that are not in the metrics yet
        self._counted: list[_Kind] = []  # those with requests that are not in the metrics yet
        self._lines: list[_Line] = []
        self._late_lines: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._logger = structlog.get_logger().bind()

    def add(self, request: RequestRecord) -> None:
        """Adds a request that has ended."""
        seconds = request.seconds
        key = (request.route, request.method, request.status), seconds > SLOW_SECONDS
        kind = self._kinds.get(key) or self._kind(request)
        if not kind.seconds:
            self._expect_flush(kind)
        kind.seconds.append(seconds)
        if request.slot_seconds:
            self._slot_seconds.append(request.slot_seconds)
        if request.caller:
            self._metrics.callers[request.caller] += 1
        if kind.skipped < kind.skippable and request.ended < kind.until and request.remote_parent is None:
            kind.skipped += 1
            if kind.newest is None:  # the others are freed at once
                kind.newest = request
        elif not kind.is_probe:
            self._choose(kind, request)

    def close(self) -> None:
        """Records all requests that were added."""
        self._flush()
        self._add_late_lines(0)
        self._write_lines()

    def _kind(self, request: RequestRecord) -> _Kind:
        """The kind of a request; all methods that nobody knows are one kind."""
        name = request.route, request.method if request.method in METHODS else "OTHER", request.status
        is_slow = request.seconds > SLOW_SECONDS
        return self._kinds.setdefault((name, is_slow), _Kind(name, is_slow=is_slow))

    def _sampler(self, kind: _Kind) -> Sampler[RequestRecord]:
        return self._notable if kind.is_notable else self._others

    def _expect_flush(self, kind: _Kind) -> None:
        if not self._counted:
            self._loop.call_later(_COLLECT_SECONDS, self._flush)
        self._counted.append(kind)

    def _choose(self, kind: _Kind, request: RequestRecord) -> None:
        """Writes the request's spans and its line, if it is chosen for them."""
        now = request.ended
        self._count_skipped(kind, now)
        if request.error is not None and isinstance(request.error, DatabaseBusy | ServiceBusy):
            self._metrics.shed += 1
        sampler = self._notable if kind.is_notable or request.is_sampled else self._others
        if self._traces and self._trace_sampler.should_record(request, kind.name, now, is_notable=kind.is_notable):
            request.is_sampled = True
            self._traces.add_request(request)
        weight = sampler.choose(kind.name, now, request)
        if weight:
            self._lines.append((request, weight))
            if len(self._lines) == _MAX_LINES:
                self._write_lines()
        if not kind.is_failure:
            kind.skippable = self._sampler(kind).skippable(kind.name)
            if self._traces:
                traces = self._trace_sampler.skippable(kind.name, is_notable=kind.is_notable)
                kind.skippable = min(kind.skippable, traces)
            kind.until = now + UPDATE_SECONDS

    def _count_skipped(self, kind: _Kind, now: float) -> None:
        if kind.newest is not None:
            self._sampler(kind).skip(kind.name, now, kind.skipped, kind.newest)
            if self._traces:
                self._trace_sampler.skip(kind.name, now, kind.skipped, is_notable=kind.is_notable)
            kind.skippable -= kind.skipped
            kind.skipped = 0
            kind.newest = None

    def _flush(self) -> None:
        """Counts the requests in the metrics, and writes the lines."""
        now = time.perf_counter()
        counted, self._counted = self._counted, []
        if self._slot_seconds:
            self._metrics.slot_waits_ms.extend([milliseconds(seconds) for seconds in self._slot_seconds])
            self._slot_seconds.clear()
        for kind in counted:
            # As milliseconds(), without the cost of a call.
            latencies_ms = [int(seconds * 1e6) / 1e3 for seconds in kind.seconds]
            self._metrics.latencies_ms[kind.name].extend(latencies_ms)
            kind.seconds.clear()
            self._count_skipped(kind, now)
        self._write_lines()
        self._expect_late()

    def _expect_late(self) -> None:
        if self._late_lines is None and (self._notable.is_waiting or self._others.is_waiting):
            self._late_lines = self._loop.call_later(LATE_SECONDS, self._write_late, LATE_SECONDS)

    def _write_late(self, seconds: float) -> None:
        self._late_lines = None
        self._add_late_lines(seconds)
        self._write_lines()
        self._expect_late()

    def _add_late_lines(self, seconds: float) -> None:
        """Adds lines that stand for requests skipped so long ago."""
        now = time.perf_counter()
        self._lines += [*self._notable.late(now, seconds), *self._others.late(now, seconds)]

    def _write_lines(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._logger.write_all(map(_record, lines))


def _record(line: _Line) -> dict[str, Any]:
    """The record of a request's line."""
    request, weight = line
    # For speed, these are literals and not the catalogue's constants; a test compares the two.
    record: dict[str, Any] = {
        "timestamp": logs.timestamp(int(request.ended_at * 1000)),
        "level": "info",
        "event": "request",
        "pod": logs.pod(),
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
