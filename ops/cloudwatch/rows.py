"""The rows of alarms.yaml, each checked for what it has to have."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final, Literal, TypeAlias

import yaml

PATH: Final = Path(__file__).resolve().parent / "alarms.yaml"

Severity: TypeAlias = Literal["page", "ticket", "part"]  # someone is woken, someone looks, a composite decides
Missing: TypeAlias = Literal["breaching", "notBreaching", "missing", "ignore"]
Dimensions: TypeAlias = tuple[tuple[str, str], ...]
Name: TypeAlias = tuple[str, str, Dimensions]  # of a metric: namespace, name and dimensions, which are sorted

_COMPARISONS: Final[dict[str, tuple[str, Callable[[float, float], bool]]]] = {
    "GreaterThanThreshold": (">", operator.gt),
    "GreaterThanOrEqualToThreshold": ("≥", operator.ge),
    "LessThanThreshold": ("<", operator.lt),
    "LessThanOrEqualToThreshold": ("≤", operator.le),
}


@dataclass(frozen=True)
class Metric:
    """A metric by one of its statistics.

    Attributes:
        namespace: such as ClientsApi.
        name: such as Latency.
        dimensions: names with their values, sorted.
        statistic: Sum, Average, Minimum, Maximum, SampleCount, a percentile such as p99.9, or a rank such as PR(:100),
            the share of samples in per cent that are above the first bound, if any, and at most the second.
    """

    namespace: str
    name: str
    dimensions: Dimensions
    statistic: str

    @property
    def key(self) -> Name:
        """What it is a statistic of."""
        return self.namespace, self.name, self.dimensions


@dataclass(frozen=True, kw_only=True)
class MetricAlarm:
    """A row of `alarms`.

    Attributes:
        name: short, and the name of its runbook.
        severity: page, ticket, or part of a composite, which then decides.
        means: what is the matter when it fires.
        reason: why this threshold.
        metrics: what it looks at, by the names that `expression` has for them.
        expression: of metric math; empty where there is one metric.
        unit: of the threshold, for people.
        comparison: as CloudWatch calls it.
        threshold: in that unit.
        period_seconds: of a point.
        periods: how many points it looks at.
        periods_to_alarm: how many of them have to be beyond the threshold.
        missing: what a point without data counts as.
    """

    name: str
    severity: Severity
    means: str
    reason: str
    metrics: Mapping[str, Metric]
    expression: str = ""
    unit: str = ""
    comparison: str
    threshold: float
    period_seconds: int
    periods: int
    periods_to_alarm: int
    missing: Missing

    @property
    def is_beyond(self) -> Callable[[float], bool]:
        """Whether a value is beyond the threshold."""
        compare = _COMPARISONS[self.comparison][1]
        return lambda value: compare(value, self.threshold)

    def said(self, value: float | None) -> str:
        """A value beside the threshold, for people."""
        sign = _COMPARISONS[self.comparison][0]
        unit = f" {self.unit}" if self.unit else ""
        shown = "no data" if value is None else f"{value:.4g}{unit}"
        limit, points = f"{sign} {self.threshold:g}{unit}", f"{self.periods_to_alarm} of {self.periods} points"
        return f"{shown}; it fires at {limit} in {points} of {_time(self.period_seconds)}"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A row of `objectives`.

    Attributes:
        name: availability or latency.
        percent: of requests that have to be good, over 30 days.
        means: what is good.
        metrics: what `bad` is made of.
        bad: an expression that gives the requests that are not, in per cent.
    """

    name: str
    percent: float
    means: str
    metrics: Mapping[str, Metric]
    bad: str

    @property
    def budget(self) -> float:
        """The requests that may be bad, in per cent."""
        return round(100 - self.percent, 9)


@dataclass(frozen=True, kw_only=True)
class BurnRate:
    """A row of `burn_rates`: an alarm that fires while all of its parts do.

    Attributes:
        name: short, and the name of its runbook.
        severity: page or ticket.
        objective: whose budget is spent.
        burn: how many times as fast as allowed.
        windows: in seconds, by the ends of the parts' names.
        means: what is the matter when it fires.
        reason: why these windows.
    """

    name: str
    severity: Severity
    objective: Objective
    burn: float
    windows: Mapping[str, int]
    means: str
    reason: str

    @property
    def parts(self) -> list[MetricAlarm]:
        """An alarm for each window."""
        return [self._part(which, seconds) for which, seconds in self.windows.items()]

    def _part(self, which: str, seconds: int) -> MetricAlarm:
        return MetricAlarm(
            name=f"{self.name}-{which}",
            severity="part",
            means=self.means,
            reason=self.reason,
            metrics=self.objective.metrics,
            expression=self.objective.bad,
            unit="%",
            comparison="GreaterThanThreshold",
            threshold=round(self.burn * self.objective.budget, 9),
            period_seconds=seconds,
            periods=1,
            periods_to_alarm=1,
            missing="notBreaching",
        )


@dataclass(frozen=True)
class Alarms:
    """All rows, by name.

    Attributes:
        objectives: what callers are promised.
        metric: alarms that look at metrics.
        composite: alarms that look at others.
    """

    objectives: Mapping[str, Objective]
    metric: Mapping[str, MetricAlarm]
    composite: Mapping[str, BurnRate]


def load(name: str, path: Path = PATH) -> Alarms:
    """The rows of the deployment of that name.

    Raises:
        TypeError: a row lacks something, or has something that no row has.
    """
    rows = yaml.safe_load(Template(path.read_text()).substitute(name=name))
    objectives = {row["name"]: Objective(**{**row, "metrics": _metrics(row["metrics"])}) for row in rows["objectives"]}
    burn_rates = [BurnRate(**{**row, "objective": objectives[row["objective"]]}) for row in rows["burn_rates"]]
    alarms = [MetricAlarm(**{**row, "metrics": _metrics(row["metrics"])}) for row in rows["alarms"]]
    parts = [part for burn_rate in burn_rates for part in burn_rate.parts]
    return Alarms(objectives, {row.name: row for row in [*parts, *alarms]}, {row.name: row for row in burn_rates})


def _metrics(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    return {
        name: Metric(row["namespace"], row["name"], tuple(sorted(row.get("dimensions", {}).items())), row["statistic"])
        for name, row in rows.items()
    }


def _time(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
