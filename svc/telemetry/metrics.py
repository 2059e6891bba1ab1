"""Metrics for CloudWatch: collected here, and written to the log as documents in the Embedded Metric Format (EMF).

The format and its limits:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
import psutil
from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer

from svc.logs import names
from svc.logs.writer import LineWriter
from svc.postgres.batching import OnRoundTrip, RoundTrip
from svc.telemetry.record import PROBES

MAX_SAMPLES: Final = 100  # values in an array

_OUTCOMES: Final = {4: names.ERRORS, 5: names.FAULTS}  # metrics that count a request, by its status's first digit
_NO_OUTCOMES: Final = dict.fromkeys(_OUTCOMES.values(), 0)
_METHODS: Final = {"GET": "GET", "HEAD": "GET", "POST": "POST"}

Values: TypeAlias = dict[str, list[float]]
_Dimensions: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]  # sets of names with values
_Kind: TypeAlias = tuple[str, str, int]  # a kind of requests: route, method and status


class Metrics:
    """Counts and samples. They are written once per interval, and earlier if an array of samples is full.

    If the reader of the log has stalled, counts add up until they can be written; samples are discarded.

    Args:
        output: takes the documents; None if they are not written.
        properties: further fields of each document, for searches in the log.

    Attributes:
        latencies_ms: the latencies of requests that ended and are not yet written, by route, method and status.
        shed: the number of requests refused because too many were waiting, not yet written.
        callers: the number of requests by the name of the caller's key, not yet written.
        slot_waits_ms: how long requests waited for a slot, of those that did, not yet written.
    """

    def __init__(self, output: LineWriter | None, properties: Mapping[str, str]) -> None:
        self.latencies_ms: defaultdict[_Kind, list[float]] = defaultdict(list)
        self.shed = 0
        self.callers: Counter[str] = Counter()
        self.slot_waits_ms: list[float] = []
        self._output = output
        self._properties = properties
        self._unflushed: Counter[_Kind] = Counter()  # requests that could not be written
        self._outcomes: Counter[str] = Counter(_NO_OUTCOMES)
        self._operations: dict[str, Values] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._samples: Values = {}
        self._counters: dict[str, Callable[[], int]] = {}
        self._flushed_counts: Counter[str] = Counter()  # of the counters, at the last flush
        self.counter(names.LOG_LINES_DROPPED, lambda: output.dropped if output else 0)
        self._process = _Process()

    def on_round_trip(self, operation: str) -> OnRoundTrip:
        """The hook for the round trips of a database operation."""
        values = self._operations[operation] = _empty(names.BATCH_SIZE_METRIC, names.QUEUE_WAIT, names.ROUND_TRIP)

        def on_round_trip(round_trip: RoundTrip) -> None:
            values[names.BATCH_SIZE_METRIC].append(round_trip.items)
            values[names.QUEUE_WAIT].append(milliseconds(round_trip.queue_seconds))
            values[names.ROUND_TRIP].append(milliseconds(round_trip.seconds))
            if len(values[names.BATCH_SIZE_METRIC]) >= MAX_SAMPLES:
                self._flush_operation(operation, values)

        return on_round_trip

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Samples a number 100 times per interval."""
        self._gauges[name] = read

    def counter(self, name: str, read: Callable[[], int]) -> None:
        """Writes, once per interval, by how much a number has grown."""
        self._counters[name] = read

    @asynccontextmanager
    async def running(self, interval_seconds: float) -> AsyncIterator[None]:
        """Writes the metrics once per interval while the context is open, and the rest at its end."""
        sampling = asyncio.create_task(self._sample_and_flush(interval_seconds))
        try:
            yield
        finally:
            sampling.cancel()
            self.flush()

    async def _sample_and_flush(self, interval_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        pause = interval_seconds / MAX_SAMPLES
        due = loop.time()
        while True:
            for _ in range(MAX_SAMPLES):
                due = max(due + pause, loop.time())  # after a long stall, missed samples are not made up for
                await asyncio.sleep(due - loop.time())
                self._sample(max(0.0, loop.time() - due))
            self.flush()

    def _sample(self, lag_seconds: float) -> None:
        self._samples.setdefault(names.EVENT_LOOP_LAG, []).append(milliseconds(lag_seconds))
        for name, read in self._gauges.items():
            self._samples.setdefault(name, []).append(read())

    def flush_full(self) -> None:
        """Writes the latencies and the waits that fill an array."""
        for kind, latencies_ms in self.latencies_ms.items():
            if len(latencies_ms) >= MAX_SAMPLES:
                self._flush_requests(kind)
        if len(self.slot_waits_ms) >= MAX_SAMPLES:
            self._flush_slot_waits()

    def flush(self) -> None:
        """Writes everything that is not yet written."""
        for kind, latencies_ms in self.latencies_ms.items():
            while latencies_ms or self._unflushed[kind]:
                if not self._flush_requests(kind):
                    break
        while self.slot_waits_ms:
            self._flush_slot_waits()
        for operation, values in self._operations.items():
            if values[names.BATCH_SIZE_METRIC]:
                self._flush_operation(operation, values)
        for caller, requests in list(self.callers.items()):
            if self._write((((names.CALLER_DIMENSION, caller),),), {names.REQUESTS: [requests]}):
                del self.callers[caller]
        self._flush_process()

    def _flush_requests(self, kind: _Kind) -> bool:
        latencies_ms = self.latencies_ms[kind][:MAX_SAMPLES]
        del self.latencies_ms[kind][:MAX_SAMPLES]
        dimensions, outcome = _dimensions(kind)
        if outcome:
            self._outcomes[outcome] += len(latencies_ms)
        requests = self._unflushed[kind] + len(latencies_ms)
        is_written = self._write(dimensions, {names.REQUESTS: [requests], names.LATENCY: latencies_ms})
        self._unflushed[kind] = 0 if is_written else requests
        return is_written

    def _flush_slot_waits(self) -> None:
        self._write(((),), {names.SLOT_WAIT: self.slot_waits_ms[:MAX_SAMPLES]})
        del self.slot_waits_ms[:MAX_SAMPLES]

    def _flush_operation(self, operation: str, values: Values) -> None:
        self._write((((names.OPERATION_DIMENSION, operation),),), values)
        values.update(_empty(*values))

    def _flush_process(self) -> None:
        counters = {name: read() for name, read in self._counters.items()}
        counts: dict[str, int] = {
            **self._outcomes,
            names.SHED: self.shed,
            **{name: count - self._flushed_counts[name] for name, count in counters.items()},
        }
        values: Values = {name: [count] for name, count in counts.items()}
        if self._write(((),), {**values, **self._samples, **self._process.read()}):
            self._outcomes = Counter(_NO_OUTCOMES)
            self.shed = 0
            self._flushed_counts = Counter(counters)
        self._samples = {}

    def _write(self, dimensions: _Dimensions, values: Values) -> bool:
        return self._output is None or self._output.offer(document(dimensions, values, self._properties))


def document(dimensions: _Dimensions, values: Values, properties: Mapping[str, str]) -> bytes:
    """A line in the Embedded Metric Format.

    Args:
        dimensions: sets of dimensions, with their values.
        values: up to 100 values of each metric; a metric without values is left out.
        properties: further fields.
    """
    metrics = {name: numbers for name, numbers in values.items() if numbers}
    template = _template(dimensions, tuple(metrics))
    head = {**template["_aws"], "Timestamp": time.time_ns() // 1_000_000}
    return orjson.dumps({**template, "_aws": head, **properties, **metrics}, option=orjson.OPT_APPEND_NEWLINE)


@lru_cache(maxsize=1024)
def _template(dimensions: _Dimensions, metrics: Sequence[str]) -> dict[str, Any]:
    """A document without values, made by AWS's library, which would take 90 µs for a full document."""
    context = MetricsContext(names.NAMESPACE)
    context.set_dimensions([dict(values) for values in dimensions])
    for name in metrics:
        context.put_metric(name, 0, names.METRICS[name].unit)
    (line,) = LogSerializer.serialize(context)
    template: dict[str, Any] = orjson.loads(line)
    return template


def milliseconds(seconds: float) -> float:
    """Converts seconds to milliseconds, with microsecond precision."""
    return int(seconds * 1e6) / 1e3


@lru_cache(maxsize=1024)
def _dimensions(kind: _Kind) -> tuple[_Dimensions, str]:
    """The dimensions of these requests, and the name of a further metric that counts them; empty if there is none."""
    route, method, status = kind
    values = (
        (names.ROUTE_DIMENSION, route),
        (names.METHOD_DIMENSION, _METHODS.get(method, "OTHER")),
        (names.STATUS_DIMENSION, f"{status // 100}xx"),
    )
    # Probes are not part of the metrics over all requests.
    return ((values,), "") if route in PROBES else (((), values), _OUTCOMES.get(status // 100, ""))


def _empty(*metrics: str) -> Values:
    return {name: [] for name in metrics}


class _Process:
    """Samples the resources that this process uses."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._sampled_at = time.monotonic()
        self._cpu_seconds = self._cpu()

    def read(self) -> Values:
        """CPU use since the last call, memory and open files."""
        now, cpu_seconds = time.monotonic(), self._cpu()
        share = (cpu_seconds - self._cpu_seconds) / max(now - self._sampled_at, 1e-3)
        self._sampled_at, self._cpu_seconds = now, cpu_seconds
        return {
            names.PROCESS_CPU: [round(100 * share, 1)],
            names.PROCESS_MEMORY: [self._process.memory_info().rss],
            names.OPEN_FILES: [self._process.num_fds()],
        }

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
