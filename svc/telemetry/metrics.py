"""CloudWatch's metrics in its Embedded Metric Format: gathered here, and written as lines among the log's.

The format and its limits:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import psutil
from aws_embedded_metrics.logger.metric import Metric
from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer

from svc.batching import Trip, Watch
from svc.telemetry import names
from svc.telemetry.entry import PROBES
from svc.telemetry.writer import LineWriter

SAMPLES_MOST: Final = 100  # values in an array

_OUTCOMES_OF_CLASSES: Final = {4: names.ERRORS, 5: names.FAULTS}
_OUTCOMES: Final = tuple(_OUTCOMES_OF_CLASSES.values())

Values: TypeAlias = dict[str, list[float]]
_Dimensions: TypeAlias = Sequence[dict[str, str]]


class _Route:
    """Requests of one route, method and status class.

    Attributes:
        dimensions: of their metrics.
        outcome: the metric that counts them too; empty for none.
        untold: how many of them could not be told of.
        latencies_ms: of the others, since they were last told of.
    """

    __slots__ = ("dimensions", "latencies_ms", "outcome", "untold")

    def __init__(self, dimensions: _Dimensions, outcome: str) -> None:
        self.dimensions = dimensions
        self.outcome = outcome
        self.untold = 0
        self.latencies_ms: list[float] = []


class Metrics:
    """Counts and samples, told of each interval, and a full array of samples at once.

    What could not be told, since the log's reader has stalled, is told later: counts add up, samples are given up.

    Args:
        output: takes the lines.
        properties: what each document says besides, for those who search the log.

    Attributes:
        shed: requests that were refused since too many wait, not yet told of.
    """

    def __init__(self, output: LineWriter, properties: Mapping[str, str]) -> None:
        self.shed = 0
        self._output = output
        self._properties = properties
        self._classes: dict[tuple[str, str, int], _Route] = {}
        self._routes: dict[tuple[str, str, int], _Route] = {}  # the same, by status
        self._operations: dict[str, Values] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._gauged: Values = {}
        self._outcomes = Counter(dict.fromkeys(_OUTCOMES, 0))
        self._dropped_told = 0
        self._process = _Process()

    def count(self, route: str, method: str, status: int, latency_ms: float) -> None:
        """Counts a request that has ended.

        Args:
            route: its template.
            method: GET, HEAD, POST or OTHER.
            status: of its answer.
            latency_ms: milliseconds.
        """
        ended = self._routes.get((route, method, status))
        if ended is None:
            ended = self._routes[route, method, status] = self._of_class(route, method, status // 100)
        ended.latencies_ms.append(latency_ms)
        if len(ended.latencies_ms) >= SAMPLES_MOST:
            self._tell_route(ended)

    def _of_class(self, route: str, method: str, status_class: int) -> _Route:
        key = route, method, status_class
        if key not in self._classes:
            values = {
                names.ROUTE_DIMENSION: route,
                names.METHOD_DIMENSION: method,
                names.STATUS_DIMENSION: f"{status_class}xx",
            }
            # Probes are no part of what is true of all requests.
            is_probe = route in PROBES
            outcome = "" if is_probe else _OUTCOMES_OF_CLASSES.get(status_class, "")
            self._classes[key] = _Route([values] if is_probe else [{}, values], outcome)
        return self._classes[key]

    def watch(self, operation: str) -> Watch:
        """Who is to be told of this operation's trips to the database."""
        values = self._operations[operation] = _no_values(names.BATCH_SIZES, names.QUEUE_WAIT, names.ROUND_TRIP)

        def watch(trip: Trip) -> None:
            values[names.BATCH_SIZES].append(trip.questions)
            values[names.QUEUE_WAIT].append(milliseconds(trip.queue_seconds))
            values[names.ROUND_TRIP].append(milliseconds(trip.seconds))
            if len(values[names.BATCH_SIZES]) >= SAMPLES_MOST:
                self._tell_operation(operation, values)

        return watch

    def gauge(self, name: str, look: Callable[[], float]) -> None:
        """Looks at a number again and again."""
        self._gauges[name] = look

    @asynccontextmanager
    async def running(self, interval_seconds: float) -> AsyncIterator[None]:
        """Tells each interval, and at the end of what is left."""
        looking = asyncio.create_task(self._look_and_tell(interval_seconds))
        try:
            yield
        finally:
            looking.cancel()
            self.tell()

    async def _look_and_tell(self, interval_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        pause = interval_seconds / SAMPLES_MOST
        due = loop.time()
        while True:
            for _ in range(SAMPLES_MOST):
                due = max(due + pause, loop.time())  # after a long stop there is nothing to catch up on
                await asyncio.sleep(due - loop.time())
                self._look(max(0.0, loop.time() - due))
            self.tell()

    def _look(self, lag_seconds: float) -> None:
        self._gauged.setdefault(names.EVENT_LOOP_LAG, []).append(milliseconds(lag_seconds))
        for name, look in self._gauges.items():
            self._gauged.setdefault(name, []).append(look())

    def tell(self) -> None:
        """Writes all that is not yet told."""
        for route in self._classes.values():
            if route.latencies_ms or route.untold:
                self._tell_route(route)
        for operation, values in self._operations.items():
            if values[names.BATCH_SIZES]:
                self._tell_operation(operation, values)
        self._tell_process()

    def _tell_route(self, route: _Route) -> None:
        latencies_ms, route.latencies_ms = route.latencies_ms, []
        if route.outcome:
            self._outcomes[route.outcome] += len(latencies_ms)
        requests = route.untold + len(latencies_ms)
        is_told = self._write(route.dimensions, {names.REQUESTS: [requests], names.LATENCY: latencies_ms})
        route.untold = 0 if is_told else requests

    def _tell_operation(self, operation: str, values: Values) -> None:
        self._write([{names.OPERATION_DIMENSION: operation}], values)
        values.update(_no_values(*values))

    def _tell_process(self) -> None:
        dropped = self._output.dropped
        counts = {**self._outcomes, names.SHED: self.shed, names.LOG_LINES_DROPPED: dropped - self._dropped_told}
        values: Values = {name: [count] for name, count in counts.items()}
        if self._write([{}], {**values, **self._gauged, **self._process.look()}):
            self._outcomes = Counter(dict.fromkeys(_OUTCOMES, 0))
            self.shed = 0
            self._dropped_told = dropped
        self._gauged = {}

    def _write(self, dimensions: _Dimensions, values: Values) -> bool:
        return self._output.offer(document(dimensions, values, self._properties))


def document(dimensions: _Dimensions, values: Mapping[str, list[float]], properties: Mapping[str, str]) -> bytes:
    """A line in the Embedded Metric Format.

    Args:
        dimensions: sets of them, each with its values.
        values: up to 100 of each metric; one that has none is left out.
        properties: other members.
    """
    context = MetricsContext(names.NAMESPACE, dict(properties))
    context.set_dimensions(list(dimensions))
    for name, numbers in values.items():
        if numbers:
            # Not put_metric(), which checks each value anew and takes them one at a time.
            metric = context.metrics[name] = Metric(numbers[0], names.METRICS[name].unit)
            metric.values = numbers
    (line,) = LogSerializer.serialize(context)
    return line.encode() + b"\n"


def milliseconds(seconds: float) -> float:
    """Seconds in milliseconds, to the microsecond."""
    return int(seconds * 1e6) / 1e3


def _no_values(*metrics: str) -> Values:
    return {name: [] for name in metrics}


class _Process:
    """What this process takes of the machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._looked = time.monotonic()
        self._cpu_seconds = self._cpu()

    def look(self) -> Values:
        """Its share of a core since the last look, its memory and its files."""
        now, cpu_seconds = time.monotonic(), self._cpu()
        share = (cpu_seconds - self._cpu_seconds) / max(now - self._looked, 1e-3)
        self._looked, self._cpu_seconds = now, cpu_seconds
        return {
            names.PROCESS_CPU: [round(100 * share, 1)],
            names.PROCESS_MEMORY: [self._process.memory_info().rss],
            names.OPEN_FILES: [self._process.num_fds()],
        }

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
