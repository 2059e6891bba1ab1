"""Evaluates a run against objectives.yaml. Gives no verdict on the service where the generator was the limit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ops.load.measurements import Measurements, percentile, total

OBJECTIVES: Final[Mapping[str, Any]] = yaml.safe_load(Path(__file__).with_name("objectives.yaml").read_text())


@dataclass(frozen=True)
class Objective:
    """One objective with its result.

    Attributes:
        what: the figure's name.
        unit: ms, or %.
        found: the measured figure; None if no request was measured.
        wanted: the bound.
        at_least: whether the bound is a minimum.
        reason: for the bound.
    """

    what: str
    unit: str
    found: float | None
    wanted: float
    at_least: bool
    reason: str

    @property
    def met(self) -> bool:
        """Whether the figure is within the bound. An objective without a figure is not met."""
        if self.found is None:
            return False
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        objectives: with their results.
        limits: why the generator was the limit; empty if it was not.
        unfinished: the number of sources that did not send all of their requests.
        failures: the number of failed requests by endpoint and reason.
    """

    objectives: list[Objective]
    limits: list[str]
    unfinished: int
    failures: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether all objectives were met under the whole load."""
        return not self.limits and not self.unfinished and all(objective.met for objective in self.objectives)

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        if self.unfinished:
            return "No verdict on the service: the run was cut short."
        if self.limits:
            return "No verdict on the service: the generator is the limit."
        return "All objectives are met." if self.passed else "The service misses its objectives."

    def summary(self) -> dict[str, Any]:
        """The verdict for results.json."""
        objectives = [{**asdict(objective), "met": objective.met} for objective in self.objectives]
        return {"passed": self.passed, "words": self.sentence, "limits": self.limits, "objectives": objectives}


def evaluate(measurements: Measurements) -> Verdict:
    """Evaluates a run."""
    failures = Counter[str]()
    for second in measurements.seconds:
        for endpoint, reasons in second.failures.items():
            failures.update({f"{endpoint}: {reason}": count for reason, count in reasons.items()})
    return Verdict(
        [_availability(measurements), *_latencies(measurements)],
        list(_limits(measurements)),
        measurements.run.get("unfinished", 0),
        dict(sorted(failures.items())),
    )


def _availability(measurements: Measurements) -> Objective:
    requests = sum(second.requests for second in measurements.seconds)
    failed = sum(second.failed for second in measurements.seconds)
    bound = OBJECTIVES["availability"]
    found = 100 * (1 - failed / requests) if requests else None
    return Objective("availability", "%", found, bound["percent"], at_least=True, reason=bound["reason"])


def _latencies(measurements: Measurements) -> Iterator[Objective]:
    for endpoint, bounds in OBJECTIVES["latency_ms"].items():
        if any(endpoint in second.latency or endpoint in second.failures for second in measurements.seconds):
            histogram = total(measurements.seconds, endpoint)
            for percent in (50, 99):
                found = percentile(histogram, percent)
                name = f"p{percent}"
                yield Objective(
                    f"{endpoint} {name}", "ms", found, bounds[name], at_least=False, reason=bounds["reason"]
                )


def _limits(measurements: Measurements) -> Iterator[str]:
    bounds = OBJECTIVES["generator"]
    late = percentile(sum((second.late for second in measurements.seconds), Counter()), 99)
    if late is not None and late > bounds["late_p99_ms"]:
        yield f"1 % of the requests were sent {late:.0f} ms late or later; the limit is {bounds['late_p99_ms']} ms."
    # Without the first second, in which the connections are opened.
    shares = [second.cpu for second in measurements.seconds[1:] if second.cpu]
    if shares and sum(shares) / len(shares) > bounds["cpu_share"]:
        yield f"The generator used {100 * sum(shares) / len(shares):.0f} % of a core; --processes shares the load."
