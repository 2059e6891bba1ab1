"""Metrics for CloudWatch: collected here, and written to the log as documents in the Embedded Metric Format (EMF).

The format and its limits:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
import psutil
from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer

from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres.batching import OnRoundTrip, RoundTrip
from svc.telemetry.distribution import Distribution
from svc.telemetry.record import PROBES
from svc.telemetry.sampling import Kind

_GAUGE_SAMPLES: Final = 100  # per interval
_MAX_FIELDS: Final = 100  # of a document, flattened: Logs Insights reads 200 fields of an event at most
_MAX_VALUES: Final = 36  # of a distribution in a document: with their counts, they leave room for the other fields

_OUTCOMES: Final = {4: names.ERRORS, 5: names.FAULTS}  # metrics that count a request, by its status's first digit
_METHODS: Final = {"GET": "GET", "HEAD": "GET", "POST": "POST"}

Values: TypeAlias = dict[str, float | Distribution]
_Dimensions: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]  # sets of names with values


class Metrics:
    """Counts and distributions, which are written once per interval, in a constant amount of documents.

    If the reader of the log has stalled, they add up until they can be written.

    Args:
        output: takes the documents; None if they are not written.
        properties: further fields of the documents on the process, for searches in the log. The others have the pod.

    Attributes:
        latencies_ms: the latencies of requests that ended and are not yet written, by kind.
        slot_waits_ms: how long requests waited for a slot, of those that did, not yet written.
        shed: the number of requests refused because too many were waiting, not yet written.
        callers: the number of requests by the name of the caller's key, not yet written.
    """

    latencies_ms: defaultdict[Kind, Distribution]
    slot_waits_ms: Distribution
    shed: int
    callers: Counter[str]

    def __init__(self, output: LineWriter | None, properties: Mapping[str, str]) -> None:
        self._output = output
        self._properties = properties
        self._operations: list[str] = []
        self._gauges: dict[str, Callable[[], float]] = {}
        self._counters: dict[str, Callable[[], int]] = {}
        self._written_counts: Counter[str] = Counter()  # of the counters
        self.counter(names.LOG_LINES_DROPPED, lambda: output.dropped if output else 0)
        self._process = _Process()
        self._start_interval()

    def _start_interval(self) -> None:
        self.latencies_ms = defaultdict(Distribution)
        self.slot_waits_ms = Distribution()
        self.shed = 0
        self.callers = Counter()
        self._round_trips = {operation: _of_round_trips() for operation in self._operations}
        self._samples: defaultdict[str, Distribution] = defaultdict(Distribution)

    def on_round_trip(self, operation: str) -> OnRoundTrip:
        """The hook for the round trips of a database operation."""
        self._operations.append(operation)
        self._round_trips[operation] = _of_round_trips()

        def on_round_trip(round_trip: RoundTrip) -> None:
            distributions = self._round_trips[operation]
            distributions[names.BATCH_SIZE_METRIC].add(round_trip.items)
            distributions[names.QUEUE_WAIT].add(round_trip.queue_seconds * 1e3)
            distributions[names.ROUND_TRIP].add(round_trip.seconds * 1e3)

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
        pause = interval_seconds / _GAUGE_SAMPLES
        due = loop.time()
        while True:
            for _ in range(_GAUGE_SAMPLES):
                due = max(due + pause, loop.time())  # after a long stall, missed samples are not made up for
                await asyncio.sleep(due - loop.time())
                self._sample(max(0.0, loop.time() - due))
            self.flush()

    def _sample(self, lag_seconds: float) -> None:
        self._samples[names.EVENT_LOOP_LAG].add(lag_seconds * 1e3)
        for name, read in self._gauges.items():
            self._samples[name].add(read())

    def flush(self) -> None:
        """Writes everything that is not yet written."""
        counts = Counter({name: read() for name, read in self._counters.items()})
        if self._output is None or self._output.offer(b"".join(self._documents(counts))):
            self._written_counts = counts
            self._start_interval()

    def _documents(self, counts: Mapping[str, int]) -> Iterator[bytes]:
        pod = {names.POD: logs.pod()}
        by_dimensions: defaultdict[_Dimensions, Distribution] = defaultdict(Distribution)
        outcomes = Counter(dict.fromkeys(_OUTCOMES.values(), 0))
        for kind, latencies_ms in self.latencies_ms.items():
            dimensions, outcome = _dimensions(kind)
            by_dimensions[dimensions].merge(latencies_ms)
            if outcome:
                outcomes[outcome] += latencies_ms.count
        of_process: Values = {
            **outcomes,
            names.SHED: self.shed,
            **{name: count - self._written_counts[name] for name, count in counts.items()},
            **self._process.read(),
            **self._samples,
            names.SLOT_WAIT: self.slot_waits_ms,
        }
        yield from documents(((),), of_process, self._properties)
        for dimensions, latencies_ms in by_dimensions.items():
            requests: Values = {names.REQUESTS: latencies_ms.count, names.LATENCY: latencies_ms}
            yield from documents(dimensions, requests, pod)
        for operation, distributions in self._round_trips.items():
            yield from documents((((names.OPERATION_DIMENSION, operation),),), {**distributions}, pod)
        for caller, count in self.callers.items():
            yield from documents((((names.CALLER_DIMENSION, caller),),), {names.REQUESTS: count}, pod)


def documents(dimensions: _Dimensions, values: Values, properties: Mapping[str, str]) -> Iterator[bytes]:
    """Lines in the Embedded Metric Format, each with at most 100 fields.

    Args:
        dimensions: sets of dimensions, with their values.
        values: of each metric; an empty distribution is left out.
        properties: further fields.
    """
    named = dict(pair for values in dimensions for pair in values)
    free = room = _MAX_FIELDS - _fields({**_template(dimensions, ()), **named, **properties})
    targets: dict[str, Any] = {}
    for name, target in _targets(values):
        needed = 2 + _fields(target)  # the metric's name and its unit
        if needed > free or name in targets:
            yield _document(dimensions, targets, properties)
            targets, free = {}, room
        targets[name] = target
        free -= needed
    if targets:
        yield _document(dimensions, targets, properties)


def _targets(values: Values) -> Iterator[tuple[str, Any]]:
    """The values as EMF has them: distributions in parts, each as an object."""
    for name, value in values.items():
        if isinstance(value, Distribution):
            for part in value.parts(_MAX_VALUES):
                yield name, part
        else:
            yield name, value


def _fields(value: Any) -> int:
    """The number of fields that Logs Insights makes of a value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 1
    return max(1, sum(map(_fields, value)))


def _document(dimensions: _Dimensions, targets: Mapping[str, Any], properties: Mapping[str, str]) -> bytes:
    template = _template(dimensions, tuple(targets))
    head = {**template["_aws"], "Timestamp": time.time_ns() // 1_000_000}
    # Scalars come before arrays, which may be cut off.
    ordered = dict(sorted(targets.items(), key=lambda named: isinstance(named[1], dict)))
    return orjson.dumps({**template, "_aws": head, **properties, **ordered}, option=orjson.OPT_APPEND_NEWLINE)


@lru_cache(maxsize=1024)
def _template(dimensions: _Dimensions, metrics: Sequence[str]) -> dict[str, Any]:
    """A document without values, made by AWS's library, which has no distributions."""
    context = MetricsContext(names.NAMESPACE)
    context.set_dimensions([dict(values) for values in dimensions])
    for name in metrics:
        context.put_metric(name, 0, names.METRICS[name].unit)
    (line,) = LogSerializer.serialize(context)
    template: dict[str, Any] = orjson.loads(line)
    return {name: value for name, value in template.items() if name not in metrics}


def milliseconds(seconds: float) -> float:
    """Converts seconds to milliseconds, with microsecond precision."""
    return int(seconds * 1e6) / 1e3


@lru_cache(maxsize=1024)
def _dimensions(kind: Kind) -> tuple[_Dimensions, str]:
    """The dimensions of these requests, and the name of a further metric that counts them; empty if there is none."""
    route, method, status = kind
    values = (
        (names.ROUTE_DIMENSION, route),
        (names.METHOD_DIMENSION, _METHODS.get(method, "OTHER")),
        (names.STATUS_DIMENSION, f"{status // 100}xx"),
    )
    # Probes are not part of the metrics over all requests.
    return ((values,), "") if route in PROBES else (((), values), _OUTCOMES.get(status // 100, ""))


def _of_round_trips() -> dict[str, Distribution]:
    return {name: Distribution() for name in (names.BATCH_SIZE_METRIC, names.QUEUE_WAIT, names.ROUND_TRIP)}


class _Process:
    """Samples the resources that this process uses."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._sampled_at = time.monotonic()
        self._cpu_seconds = self._cpu()

    def read(self) -> dict[str, float]:
        """CPU use since the last call, memory and open files."""
        now, cpu_seconds = time.monotonic(), self._cpu()
        share = (cpu_seconds - self._cpu_seconds) / max(now - self._sampled_at, 1e-3)
        self._sampled_at, self._cpu_seconds = now, cpu_seconds
        return {
            names.PROCESS_CPU: round(100 * share, 1),
            names.PROCESS_MEMORY: self._process.memory_info().rss,
            names.OPEN_FILES: self._process.num_fds(),
        }

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
