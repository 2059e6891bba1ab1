"""The rows of alarms.yaml as typed objects. A missing or an unknown field is an error."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final, Literal, TypeAlias

import yaml

PATH: Final = Path(__file__).resolve().parent / "alarms.yaml"

# A page wakes someone, a ticket waits for working hours, a part notifies no one: its composite alarm does.
Severity: TypeAlias = Literal["page", "ticket", "part"]
Missing: TypeAlias = Literal["breaching", "notBreaching", "missing", "ignore"]
Dimensions: TypeAlias = tuple[tuple[str, str], ...]
MetricKey: TypeAlias = tuple[str, str, Dimensions]  # namespace, name and sorted dimensions

_COMPARISONS: Final[dict[str, tuple[str, Callable[[float, float], bool]]]] = {
    "GreaterThanThreshold": (">", operator.gt),
    "GreaterThanOrEqualToThreshold": ("≥", operator.ge),
    "LessThanThreshold": ("<", operator.lt),
    "LessThanOrEqualToThreshold": ("≤", operator.le),
}


@dataclass(frozen=True)
class Metric:
    """One statistic of a metric.

    Attributes:
        namespace: such as ClientsApi.
        name: such as Latency.
        dimensions: pairs of name and value, sorted.
        statistic: Sum, Average, Minimum, Maximum, SampleCount, a percentile such as p99.9, or a percentile rank such
            as PR(:100): the percentage of samples above the lower bound, if there is one, and up to the upper bound.
    """

    namespace: str
    name: str
    dimensions: Dimensions
    statistic: str

    @property
    def key(self) -> MetricKey:
        """Identifies the metric, whatever the statistic."""
        return self.namespace, self.name, self.dimensions


@dataclass(frozen=True, kw_only=True)
class MetricAlarm:
    """A row of `alarms`.

    Attributes:
        name: a short name, which is also the name of the runbook.
        severity: page, ticket, or part of a composite alarm.
        means: what is wrong when the alarm fires.
        reason: why the threshold has this value.
        metrics: the metrics that the alarm evaluates, by their IDs in `expression`.
        expression: metric math; empty if the alarm has a single metric.
        unit: the unit of the threshold, for display.
        comparison: CloudWatch's comparison operator.
        threshold: the limit, in `unit`.
        period_seconds: the length of the period that one data point covers.
        periods: the number of data points to evaluate.
        periods_to_alarm: how many of these have to breach the threshold.
        missing: how a missing data point is treated.
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

    def is_breached_by(self, value: float) -> bool:
        """Whether a value breaches the threshold."""
        return _COMPARISONS[self.comparison][1](value, self.threshold)

    def describe(self, value: float | None) -> str:
        """Describes a value and the condition of the alarm in a sentence for display."""
        sign = _COMPARISONS[self.comparison][0]
        unit = f" {self.unit}" if self.unit else ""
        shown = "no data" if value is None else f"{value:.4g}{unit}"
        limit, points = f"{sign} {self.threshold:g}{unit}", f"{self.periods_to_alarm} of {self.periods} points"
        return f"{shown}; it fires at {limit} in {points} of {_duration(self.period_seconds)}"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A row of `objectives`.

    Attributes:
        name: availability or latency.
        percent: the percentage of good requests to reach over 30 days.
        means: what a good request is.
        metrics: the metrics in the expression `bad`, by their IDs.
        bad: metric math that gives the percentage of bad requests.
    """

    name: str
    percent: float
    means: str
    metrics: Mapping[str, Metric]
    bad: str

    @property
    def budget(self) -> float:
        """The error budget: the percentage of requests that may be bad."""
        return round(100 - self.percent, 9)


@dataclass(frozen=True, kw_only=True)
class BurnRate:
    """A row of `burn_rates`: a composite alarm that fires while all of its parts fire.

    Attributes:
        name: a short name, which is also the name of the runbook.
        severity: page or ticket.
        objective: the objective whose error budget is consumed.
        burn: the burn rate at which the alarm fires: 1 consumes the budget in exactly 30 days.
        windows: lengths in seconds, by the suffixes of the parts' names.
        means: what is wrong when the alarm fires.
        reason: why this rate and these windows.
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
        """One alarm per window."""
        return [self._part(window, seconds) for window, seconds in self.windows.items()]

    def _part(self, window: str, seconds: int) -> MetricAlarm:
        return MetricAlarm(
            name=f"{self.name}-{window}",
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
        objectives: the service level objectives.
        metric: the alarms on metrics.
        composite: the alarms on other alarms.
    """

    objectives: Mapping[str, Objective]
    metric: Mapping[str, MetricAlarm]
    composite: Mapping[str, BurnRate]


def load(name: str, path: Path = PATH) -> Alarms:
    """Loads the rows for the deployment with this name.

    Raises:
        TypeError: a row lacks a field, or has an unknown one.
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


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
