"""Evaluates a run against objectives.yaml. Does not blame the service for what a late generator may have caused."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from ops.load.measurements import TIMED_OUT, Measurements, percentile, samples_needed, total

OBJECTIVES: Final[Mapping[str, Any]] = yaml.safe_load(Path(__file__).with_name("objectives.yaml").read_text())

ADVICE: Final = "Close other programs, lower --rate, share the load with --processes, or run it on another machine."

_LATE: Final = "the load generator could not keep up"


class Result(StrEnum):
    """The result of an objective, and of a run."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "no verdict"


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
        shortage: why the measurements do not suffice for a verdict; empty if they do.
        excuse: why a figure beyond the bound would not be the service's fault; empty if it would be.
    """

    what: str
    unit: str
    found: float | None
    wanted: float
    at_least: bool
    reason: str
    shortage: str = ""
    excuse: str = ""

    @property
    def result(self) -> Result:
        """Whether the figure is within the bound."""
        if self.found is None or self.shortage:
            return Result.UNKNOWN
        if self.found >= self.wanted if self.at_least else self.found <= self.wanted:
            return Result.MET
        return Result.UNKNOWN if self.excuse else Result.MISSED

    @property
    def note(self) -> str:
        """Why there is no verdict; empty if there is one."""
        return (self.shortage or self.excuse) if self.result is Result.UNKNOWN else ""


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
    def result(self) -> Result:
        """Missed if any objective is; met if the whole load was sent on time and all objectives with a verdict are."""
        results = {objective.result for objective in self.objectives}
        if Result.MISSED in results:
            return Result.MISSED
        return Result.UNKNOWN if self.obstacle or Result.MET not in results else Result.MET

    @property
    def obstacle(self) -> str:
        """Why the run cannot show that the service meets its objectives; empty if it can."""
        if self.unfinished:
            return "the run was cut short"
        return _LATE if self.limits else ""

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        names = {result: [each.what for each in self.objectives if each.result is result] for result in Result}
        missed, unknown = names[Result.MISSED], len(names[Result.UNKNOWN])
        if missed:
            return f"The service misses {len(missed)} of {len(self.objectives)} objectives: {', '.join(missed)}."
        if self.result is Result.UNKNOWN:
            return f"No verdict on the service: {self.obstacle or 'no request has ended'}."
        if unknown:
            return f"All objectives with enough samples are met; {unknown} of {len(self.objectives)} have too few."
        return "All objectives are met."

    def summary(self) -> dict[str, Any]:
        """The verdict for results.json."""
        objectives = [{**asdict(each), "result": each.result, "note": each.note} for each in self.objectives]
        return {"result": self.result, "words": self.sentence, "limits": self.limits, "objectives": objectives}


def evaluate(measurements: Measurements) -> Verdict:
    """Evaluates a run."""
    failures = Counter[str]()
    for second in measurements.seconds:
        for endpoint, reasons in second.failures.items():
            failures.update({f"{endpoint}: {reason}": count for reason, count in reasons.items()})
    limits = list(_limits(measurements))
    excuse = _LATE if limits else ""
    return Verdict(
        [_availability(measurements, excuse), *_latencies(measurements, excuse)],
        limits,
        measurements.run.get("unfinished", 0),
        dict(sorted(failures.items())),
    )


def _availability(measurements: Measurements, excuse: str) -> Objective:
    """A late generator is an excuse for requests that timed out, but not for those that got a wrong response."""
    requests = sum(second.requests for second in measurements.seconds)
    failed = sum(second.failed for second in measurements.seconds)
    timed_out = sum(reasons[TIMED_OUT] for second in measurements.seconds for reasons in second.failures.values())
    bound = OBJECTIVES["availability"]

    def available(failed: int) -> float | None:
        return 100 * (1 - failed / requests) if requests else None

    is_excused = (available(failed - timed_out) or 0) >= bound["percent"]
    return Objective(
        "availability",
        "%",
        available(failed),
        bound["percent"],
        at_least=True,
        reason=bound["reason"],
        shortage="" if requests else "no request has ended",
        excuse=excuse if is_excused else "",
    )


def _latencies(measurements: Measurements, excuse: str) -> Iterator[Objective]:
    for endpoint, bounds in OBJECTIVES["latency_ms"].items():
        if any(endpoint in second.latency or endpoint in second.failures for second in measurements.seconds):
            histogram = total(measurements.seconds, endpoint)
            for percent in (50, 99):
                name = f"p{percent}"
                yield Objective(
                    f"{endpoint} {name}",
                    "ms",
                    percentile(histogram, percent),
                    bounds[name],
                    at_least=False,
                    reason=bounds["reason"],
                    shortage=shortage(histogram.total(), percent),
                    excuse=excuse,
                )


def shortage(samples: int, percent: float) -> str:
    """Says that a percentile has too few samples for a verdict; empty if it has enough."""
    needed = samples_needed(percent)
    return f"not enough samples ({samples:,} of {needed:,})" if samples < needed else ""


def _limits(measurements: Measurements) -> Iterator[str]:
    bounds = OBJECTIVES["generator"]
    late = percentile(sum((second.late for second in measurements.seconds), Counter()), 99)
    if late is not None and late > bounds["late_p99_ms"]:
        yield f"1 % of the requests were sent {late:,.0f} ms late or later; the limit is {bounds['late_p99_ms']} ms."
    # Without the first second, in which the connections are opened.
    shares = [second.cpu for second in measurements.seconds[1:] if second.cpu]
    if shares and sum(shares) / len(shares) > bounds["cpu_share"]:
        yield f"The generator used {100 * sum(shares) / len(shares):.0f} % of a core; --processes shares the load."
