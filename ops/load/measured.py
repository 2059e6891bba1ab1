"""What was seen, second by second, in a form that adds up over sources and can be drawn and judged later."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

FILE: Final = "results.json"

_STEP: Final = 1.02  # from a bucket to the next: no percentile is off by more than 1 %
_LEAST_MS: Final = 0.01

Histogram: TypeAlias = Counter[int]
"""How often each latency was seen, by the logarithm that bucket() makes of it."""


def bucket(milliseconds: float) -> int:
    """Where in a histogram this latency belongs."""
    return round(math.log(max(milliseconds, _LEAST_MS), _STEP))


def percentile(histogram: Mapping[int, int], percent: float) -> float | None:
    """The milliseconds that this many per cent stay under; None where nothing was seen."""
    wanted = sum(histogram.values()) * percent / 100
    seen = 0
    for place in sorted(histogram):
        seen += histogram[place]
        if seen >= wanted:
            return in_ms(place)
    return None


def in_ms(place: int) -> float:
    """A bucket's latency, in milliseconds."""
    return float(_STEP**place)


class Seen(NamedTuple):
    """One kind of observation, to be counted.

    Attributes:
        second: of the run, in which the request was due.
        endpoint: which was asked.
        failure: why it failed; empty where it did not.
        place: the latency's bucket, counted from when the request was due.
    """

    second: int
    endpoint: str
    failure: str
    place: int


@dataclass
class Second:
    """All that was due in one second of a run.

    Attributes:
        latency: of the requests that succeeded, by endpoint.
        failures: by endpoint, and then by what went wrong.
        late: how much later than due requests were sent, since the generator was busy.
        cpu: of the busiest generating process in this second, as a share of one core.
    """

    latency: dict[str, Histogram] = field(default_factory=dict)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    late: Histogram = field(default_factory=Counter)
    cpu: float = 0.0

    def note(self, seen: Seen, count: int) -> None:
        """Adds observations."""
        if seen.failure:
            self.failures.setdefault(seen.endpoint, Counter())[seen.failure] += count
        else:
            self.latency.setdefault(seen.endpoint, Counter())[seen.place] += count

    @property
    def sent(self) -> int:
        """How many were due, and have been sent."""
        return self.late.total()

    @property
    def requests(self) -> int:
        """How many were due, and have been answered or have failed."""
        return self.failed + sum(histogram.total() for histogram in self.latency.values())

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(counter.total() for counter in self.failures.values())


@dataclass
class Measured:
    """A run.

    Attributes:
        run: what was asked for, by name: scenario, rate, seconds, host and so on.
        machine: what the generator ran on and with.
        seconds: what was seen.
    """

    run: dict[str, Any]
    machine: dict[str, str] = field(default_factory=dict)
    seconds: list[Second] = field(default_factory=list)

    def at(self, number: int) -> Second:
        """This second of the run."""
        while len(self.seconds) <= number:
            self.seconds.append(Second())
        return self.seconds[number]

    def merge(self, report: Mapping[str, Any]) -> None:
        """Adds what a source reports; see Recorder.take."""
        for second, endpoint, failure, place, count in report["seen"]:
            self.at(second).note(Seen(second, endpoint, failure, place), count)
        for second, place, count in report["late"]:
            self.at(second).late[place] += count
        for second, share in report["cpu"]:
            self.at(second).cpu = max(self.at(second).cpu, share)

    def save(self, path: Path, **more: Any) -> None:
        """Writes it as JSON, whole or not at all, with what else is worth keeping."""
        new = path.with_suffix(".new")
        kept = {"run": self.run, "machine": self.machine, "seconds": [vars(second) for second in self.seconds]}
        new.write_text(json.dumps({**more, **kept}))
        new.replace(path)


def load(path: Path) -> Measured:
    """Reads what save() wrote, from the file or the folder that it is in."""
    read = json.loads((path / FILE if path.is_dir() else path).read_text())
    return Measured(read["run"], read["machine"], [_second(each) for each in read["seconds"]])


def _second(read: Mapping[str, Any]) -> Second:
    latency = {endpoint: _histogram(places) for endpoint, places in read["latency"].items()}
    failures = {endpoint: Counter(reasons) for endpoint, reasons in read["failures"].items()}
    return Second(latency, failures, _histogram(read["late"]), read["cpu"])


def _histogram(places: Mapping[str, int]) -> Histogram:
    return Counter({int(place): count for place, count in places.items()})


def total(seconds: Iterable[Second], endpoint: str) -> Histogram:
    """An endpoint's latencies over several seconds."""
    return sum((second.latency.get(endpoint, Counter()) for second in seconds), Counter())


class Recorder:
    """Counts what one source sees, until it is reported."""

    def __init__(self) -> None:
        self._seen: Counter[Seen] = Counter()
        self._late: Counter[tuple[int, int]] = Counter()
        self._cpu: list[tuple[int, float]] = []

    def sent(self, due: float, late: float) -> None:
        """A request goes out that was due at this second of the run, so many seconds late."""
        self._late[int(due), bucket(late * 1000)] += 1

    def ended(self, due: float, endpoint: str, failure: str, seconds: float) -> None:
        """It was answered, or failed, so long after it was due."""
        self._seen[Seen(int(due), endpoint, failure, bucket(seconds * 1000))] += 1

    def used(self, second: int, share: float) -> None:
        """The process used this share of a core in that second."""
        self._cpu.append((second, share))

    def take(self) -> dict[str, Any]:
        """What is new since the last time, in a form that goes over a wire."""
        report = {
            "seen": [[*seen, count] for seen, count in self._seen.items()],
            "late": [[*late, count] for late, count in self._late.items()],
            "cpu": self._cpu,
        }
        self._seen, self._late, self._cpu = Counter(), Counter(), []
        return report
