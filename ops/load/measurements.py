"""What a run measured, per second, in a form that can be summed over sources, stored, plotted and evaluated."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

FILE: Final = "results.json"

TIMEOUT_SECONDS: Final = 10.0  # from a request's scheduled time; the service gives up on its database much earlier
TIMED_OUT: Final = f"no response within {TIMEOUT_SECONDS:g} s"  # a failure that a late generator may have caused

_MIN_BEYOND: Final = 5  # samples; with fewer, chance decides where a percentile lies
_STEP: Final = 1.02  # the ratio of neighbouring buckets: a percentile is off by at most 1 %
_MIN_MS: Final = 0.01

Histogram: TypeAlias = Counter[int]
"""Counts of latencies by bucket, see bucket()."""


def bucket(milliseconds: float) -> int:
    """The bucket of this latency: its logarithm to the base 1.02, rounded."""
    return round(math.log(max(milliseconds, _MIN_MS), _STEP))


def percentile(histogram: Mapping[int, int], percent: float) -> float | None:
    """A percentile in milliseconds; None if the histogram is empty."""
    rank = sum(histogram.values()) * percent / 100
    seen = 0
    for place in sorted(histogram):
        seen += histogram[place]
        if seen >= rank:
            return in_ms(place)
    return None


def samples_needed(percent: float) -> int:
    """How many samples a percentile needs, so that at least five of them lie beyond it: 500 for a p99."""
    return round(_MIN_BEYOND * 100 / (100 - percent))


def in_ms(place: int) -> float:
    """A bucket's latency, in milliseconds."""
    return float(_STEP**place)


class Observation(NamedTuple):
    """The end of a request: what the recorder counts by.

    Attributes:
        second: of the run, in which the request was scheduled.
        endpoint: the endpoint's name.
        failure: the reason of the failure; empty for a success.
        place: the bucket of the latency, which is counted from the scheduled time.
    """

    second: int
    endpoint: str
    failure: str
    place: int


@dataclass
class Second:
    """The requests that were scheduled in one second of a run.

    Attributes:
        latency: of the requests that succeeded, by endpoint.
        failures: counts by endpoint, and then by reason.
        late: how long after their scheduled times requests were sent, because the generator was busy.
        cpu: the share of one core that the busiest generating process used in this second.
    """

    latency: dict[str, Histogram] = field(default_factory=dict)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    late: Histogram = field(default_factory=Counter)
    cpu: float = 0.0

    def add(self, observation: Observation, count: int) -> None:
        """Counts requests that ended alike."""
        if observation.failure:
            self.failures.setdefault(observation.endpoint, Counter())[observation.failure] += count
        else:
            self.latency.setdefault(observation.endpoint, Counter())[observation.place] += count

    @property
    def sent(self) -> int:
        """The number of requests that have been sent."""
        return self.late.total()

    @property
    def requests(self) -> int:
        """The number of requests that have succeeded or failed."""
        return self.failed + sum(histogram.total() for histogram in self.latency.values())

    @property
    def failed(self) -> int:
        """The number of requests that have failed."""
        return sum(counter.total() for counter in self.failures.values())


@dataclass
class Measurements:
    """All measurements of a run.

    Attributes:
        run: the parameters by name: scenario, rate, duration, host and so on.
        machine: the machine and the software of the generator.
        seconds: the measurements of each second.
    """

    run: dict[str, Any]
    machine: dict[str, str] = field(default_factory=dict)
    seconds: list[Second] = field(default_factory=list)

    def second(self, number: int) -> Second:
        """One second of the run, counted from 0."""
        while len(self.seconds) <= number:
            self.seconds.append(Second())
        return self.seconds[number]

    def merge(self, report: Mapping[str, Any]) -> None:
        """Adds a source's report, see Recorder.take()."""
        for second, endpoint, failure, place, count in report["seen"]:
            self.second(second).add(Observation(second, endpoint, failure, place), count)
        for second, place, count in report["late"]:
            self.second(second).late[place] += count
        for number, share in report["cpu"]:
            second = self.second(number)
            second.cpu = max(second.cpu, share)

    def save(self, path: Path, **more: Any) -> None:
        """Writes them and `more` as JSON. The file is complete or absent, never partial."""
        new = path.with_suffix(".new")
        kept = {"run": self.run, "machine": self.machine, "seconds": [vars(second) for second in self.seconds]}
        new.write_text(json.dumps({**more, **kept}))
        new.replace(path)


def load(path: Path) -> Measurements:
    """Reads what save() wrote, from the file or from its folder."""
    read = json.loads((path / FILE if path.is_dir() else path).read_text())
    return Measurements(read["run"], read["machine"], [_second(each) for each in read["seconds"]])


def _second(read: Mapping[str, Any]) -> Second:
    latency = {endpoint: _histogram(places) for endpoint, places in read["latency"].items()}
    failures = {endpoint: Counter(reasons) for endpoint, reasons in read["failures"].items()}
    return Second(latency, failures, _histogram(read["late"]), read["cpu"])


def _histogram(places: Mapping[str, int]) -> Histogram:
    return Counter({int(place): count for place, count in places.items()})


def total(seconds: Iterable[Second], endpoint: str) -> Histogram:
    """The latencies of an endpoint over several seconds."""
    return sum((second.latency.get(endpoint, Counter()) for second in seconds), Counter())


class Recorder:
    """Counts the observations of one source between its reports."""

    def __init__(self) -> None:
        self._seen: Counter[Observation] = Counter()
        self._late: Counter[tuple[int, int]] = Counter()
        self._cpu: list[tuple[int, float]] = []

    def sent(self, scheduled: float, late: float) -> None:
        """Records that a request is sent so many seconds after its scheduled time."""
        self._late[int(scheduled), bucket(late * 1000)] += 1

    def ended(self, scheduled: float, endpoint: str, failure: str, seconds: float) -> None:
        """Records that a request succeeded or failed so many seconds after its scheduled time."""
        self._seen[Observation(int(scheduled), endpoint, failure, bucket(seconds * 1000))] += 1

    def used(self, second: int, share: float) -> None:
        """Records the share of a core that the process used in that second."""
        self._cpu.append((second, share))

    def take(self) -> dict[str, Any]:
        """Returns what is new since the last call, ready to be serialized."""
        report = {
            "seen": [[*observation, count] for observation, count in self._seen.items()],
            "late": [[*late, count] for late, count in self._late.items()],
            "cpu": self._cpu,
        }
        self._seen, self._late, self._cpu = Counter(), Counter(), []
        return report
