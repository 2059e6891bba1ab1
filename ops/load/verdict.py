"""Holds a run against the objectives in objectives.yaml, and says when the generator was the limit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ops.load.measured import Measured, percentile, total

OBJECTIVES: Final[Mapping[str, Any]] = yaml.safe_load(Path(__file__).with_name("objectives.yaml").read_text())


@dataclass(frozen=True)
class Line:
    """One objective, and what came of it.

    Attributes:
        what: the figure's name.
        unit: ms, or %.
        found: the figure; None where nothing was seen that it could be made of.
        wanted: the objective.
        at_least: whether more is better.
        reason: for the objective.
    """

    what: str
    unit: str
    found: float | None
    wanted: float
    at_least: bool
    reason: str

    @property
    def met(self) -> bool:
        """Whether it is. Where nothing was seen, nothing is met."""
        if self.found is None:
            return False
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted


@dataclass(frozen=True)
class Verdict:
    """A run's.

    Attributes:
        lines: for each objective.
        limits: why the generator was the limit; empty where it was not.
        unfinished: how many sources did not send all that they were to send.
        failures: how often requests failed, by endpoint and reason.
    """

    lines: list[Line]
    limits: list[str]
    unfinished: int
    failures: Mapping[str, int]

    @property
    def passed(self) -> bool:
        """Whether all objectives are met, under all of the load that was asked for."""
        return not self.limits and not self.unfinished and all(line.met for line in self.lines)

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        if self.unfinished:
            return "No verdict on the service: the run was cut short."
        if self.limits:
            return "No verdict on the service: the generator is the limit."
        return "All objectives are met." if self.passed else "The service misses its objectives."

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON."""
        lines = [{**asdict(line), "met": line.met} for line in self.lines]
        return {"passed": self.passed, "words": self.words, "limits": self.limits, "objectives": lines}


def judge(measured: Measured) -> Verdict:
    """The verdict on a run."""
    failures = Counter[str]()
    for second in measured.seconds:
        for endpoint, reasons in second.failures.items():
            failures.update({f"{endpoint}: {reason}": count for reason, count in reasons.items()})
    return Verdict(
        [_availability(measured), *_latencies(measured)],
        list(_limits(measured)),
        measured.run.get("unfinished", 0),
        dict(sorted(failures.items())),
    )


def _availability(measured: Measured) -> Line:
    requests = sum(second.requests for second in measured.seconds)
    failed = sum(second.failed for second in measured.seconds)
    wanted = OBJECTIVES["availability"]
    found = 100 * (1 - failed / requests) if requests else None
    return Line("availability", "%", found, wanted["percent"], at_least=True, reason=wanted["reason"])


def _latencies(measured: Measured) -> Iterator[Line]:
    for endpoint, wanted in OBJECTIVES["latency_ms"].items():
        if any(endpoint in second.latency or endpoint in second.failures for second in measured.seconds):
            histogram = total(measured.seconds, endpoint)
            for percent in (50, 99):
                found = percentile(histogram, percent)
                name = f"p{percent}"
                yield Line(f"{endpoint} {name}", "ms", found, wanted[name], at_least=False, reason=wanted["reason"])


def _limits(measured: Measured) -> Iterator[str]:
    most = OBJECTIVES["generator"]
    late = percentile(sum((second.late for second in measured.seconds), Counter()), 99)
    if late is not None and late > most["late_p99_ms"]:
        yield f"1 % of the requests were sent {late:.0f} ms late or later; {most['late_p99_ms']} ms would do."
    # The first second has the connections to make.
    shares = [second.cpu for second in measured.seconds[1:] if second.cpu]
    if shares and sum(shares) / len(shares) > most["cpu_share"]:
        yield f"It used {100 * sum(shares) / len(shares):.0f} % of a core; --processes shares the work."
