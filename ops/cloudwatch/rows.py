"""The rows of alarms.yaml as typed objects. A missing or an unknown field is an error."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    "GreaterThanThreshold": ("limit", operator.gt),
    "GreaterThanOrEqualToThreshold": ("fires from", operator.ge),
    "LessThanThreshold": ("minimum", operator.lt),
    "LessThanOrEqualToThreshold": ("fires up to", operator.le),
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
        over: a dimension: the statistic is that of all its values together, which CloudWatch computes by a query of
            Metrics Insights. It has to be Sum or Maximum then.
    """

    namespace: str
    name: str
    dimensions: Dimensions
    statistic: str
    over: str = ""

    @property
    def key(self) -> MetricKey:
        """Identifies the metric, whatever the statistic."""
        return self.namespace, self.name, self.dimensions

    @property
    def query(self) -> str:
        """The query of Metrics Insights for a metric with `over`."""
        function = {"Sum": "SUM", "Maximum": "MAX"}[self.statistic]
        return f'SELECT {function}({self.name}) FROM SCHEMA("{self.namespace}", {self.over})'  # noqa: S608 # nosec B608


@dataclass(frozen=True, kw_only=True)
class MetricAlarm:
    """A row of `alarms`.

    Attributes:
        name: a short name, which is also the name of the runbook.
        severity: page, ticket, or part of a composite alarm.
        means: what is wrong when the alarm fires.
        measures: what the value is, in words for display.
        reason: why the threshold has this value.
        metrics: the metrics that the alarm evaluates, by their IDs in `expression`.
        expression: metric math; empty if the alarm has a single metric.
        unit: the unit of the threshold, for display: %, share (1 is 100 %), bytes, ms, s, or none for a number.
        comparison: CloudWatch's comparison operator.
        threshold: the limit, in `unit`.
        period_seconds: the length of the period that one data point covers.
        periods: the number of data points to evaluate.
        periods_to_alarm: how many of these have to breach the threshold.
        missing: how a missing data point is treated.
        band: the width, in standard deviations, of the band of usual values that CloudWatch learns; the value is then
            the distance to the band's lower limit. 0 without a band.
        region: of the alarm, if it is not that of the deployment.
        after: the alarm that has to fire, or have fired, before this one can.
        suppressor: the alarm that keeps this one silent.
    """

    name: str
    severity: Severity
    means: str
    measures: str
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
    band: float = 0
    region: str = ""
    after: str = ""
    suppressor: str = ""

    def is_breached_by(self, value: float) -> bool:
        """Whether a value breaches the threshold."""
        return _COMPARISONS[self.comparison][1](value, self.threshold)

    def excess(self, value: float | None) -> float:
        """How far a value is beyond the threshold; negative within it, and minus infinity without a value."""
        if value is None:
            return -math.inf
        return value - self.threshold if "Greater" in self.comparison else self.threshold - value

    def describe(self, value: float | None) -> str:
        """Describes a value and the condition of the alarm for display: what is measured, its unit, and the limit."""
        shown = "no data" if value is None else quantity(value, self.unit)
        limit = f"{_COMPARISONS[self.comparison][0]} {quantity(self.threshold, self.unit)}"
        length = duration(self.period_seconds)
        points = f"in {self.periods_to_alarm} of {self.periods} periods of {length}"
        return f"{self.measures}: {shown}, {limit}, {points if self.periods > 1 else f'over {length}'}"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A row of `objectives`.

    Attributes:
        name: availability or latency.
        percent: the percentage of good requests to reach over 30 days.
        means: what a good request is.
        measures: what a bad request is.
        metrics: the metrics in the expressions, by their IDs.
        share: metric math that gives the percentage of bad requests.
        requests: metric math that gives the number of bad requests.
        floor: the number of bad requests up to which they count as none.
    """

    name: str
    percent: float
    means: str
    measures: str
    metrics: Mapping[str, Metric]
    share: str
    requests: str
    floor: float

    @property
    def budget(self) -> float:
        """The error budget: the percentage of requests that may be bad."""
        return round(100 - self.percent, 9)

    @property
    def bad(self) -> str:
        """Metric math that gives the percentage of bad requests, and 0 up to the floor."""
        return f"IF({self.requests} > {self.floor:g}, {self.share}, 0)"


@dataclass(frozen=True)
class Rate:
    """A burn rate, and the windows over which it is measured.

    Attributes:
        burn: 1 consumes the budget in exactly 30 days.
        long: window in seconds.
        short: window in seconds.
    """

    burn: float
    long: int
    short: int


@dataclass(frozen=True, kw_only=True)
class BurnRate:
    """A row of `burn_rates`: it fires while both windows of any of its rates burn.

    Attributes:
        name: a short name, which is also the name of the runbook.
        severity: page or ticket.
        objective: the objective whose error budget is consumed.
        rates: by name.
        means: what is wrong when the alarm fires.
        reason: why these rates and windows.
        suppressor: the alarm that keeps this one silent.
    """

    name: str
    severity: Severity
    objective: Objective
    rates: Mapping[str, Rate]
    means: str
    reason: str
    suppressor: str = ""

    @property
    def parts(self) -> list[tuple[MetricAlarm, MetricAlarm]]:
        """The alarms on the long and the short window of each rate. Only the long window has the floor."""
        return [
            (
                self._part(f"{name}-long", rate.burn, rate.long, self.objective.bad),
                self._part(f"{name}-short", rate.burn, rate.short, self.objective.share),
            )
            for name, rate in self.rates.items()
        ]

    def _part(self, name: str, burn: float, seconds: int, expression: str) -> MetricAlarm:
        return MetricAlarm(
            name=f"{self.objective.name}-{name}",
            severity="part",
            means=self.means,
            measures=self.objective.measures,
            reason=self.reason,
            metrics=self.objective.metrics,
            expression=expression,
            unit="%",
            comparison="GreaterThanThreshold",
            threshold=round(burn * self.objective.budget, 9),
            period_seconds=seconds,
            periods=1,
            periods_to_alarm=1,
            missing="notBreaching",
        )


@dataclass(frozen=True, kw_only=True)
class Composite:
    """An alarm on other alarms.

    Attributes:
        name: a short name, which is also the name of the runbook.
        severity: page, ticket, or part of others.
        means: what is wrong when the alarm fires.
        reason: why this rule.
        rule: groups of metric alarms: it fires while all alarms of any group fire.
        suppressor: the alarm that keeps this one silent; empty without one.
        region: of the alarm, if it is not that of the deployment.
    """

    name: str
    severity: Severity
    means: str
    reason: str
    rule: tuple[tuple[str, ...], ...]
    suppressor: str = ""
    region: str = ""


@dataclass(frozen=True)
class Suppression:
    """How long a composite alarm is silent around the time in which its suppressor fires.

    Attributes:
        wait_seconds: that it waits for the suppressor before it notifies.
        extension_seconds: that it stays silent after the suppressor.
    """

    wait_seconds: float
    extension_seconds: float


@dataclass(frozen=True)
class Alarms:
    """All rows, by name.

    Attributes:
        objectives: the service level objectives.
        burn_rates: the alarms on them, which are among the composite ones too.
        suppression: for all composite alarms with a suppressor.
        metric: the alarms on metrics.
        composite: the alarms on other alarms.
    """

    objectives: Mapping[str, Objective]
    burn_rates: Mapping[str, BurnRate]
    suppression: Suppression
    metric: Mapping[str, MetricAlarm]
    composite: Mapping[str, Composite]

    @property
    def notifying(self) -> list[MetricAlarm | Composite]:
        """The alarms that notify someone; each has a runbook."""
        rows: list[MetricAlarm | Composite] = [*self.composite.values(), *self.metric.values()]
        return [row for row in rows if row.severity != "part"]


def load(name: str, path: Path = PATH) -> Alarms:
    """Loads the rows for the deployment with this name.

    Raises:
        TypeError: a row lacks a field, or has an unknown one.
    """
    rows = yaml.safe_load(Template(path.read_text()).substitute(name=name))
    objectives = {
        row["name"]: Objective(**{**row, "metrics": _metrics(row["metrics"]), "floor": rows["floor"]})
        for row in rows["objectives"]
    }
    burn_rates = [_burn_rate(row, objectives) for row in rows["burn_rates"]]
    alarms = [MetricAlarm(**{**row, "metrics": _metrics(row["metrics"])}) for row in rows["alarms"]]
    windows = [part for row in burn_rates for parts in row.parts for part in parts]
    composites = [Composite(**{**row, "rule": tuple(map(tuple, row["rule"]))}) for row in rows.get("composites", [])]
    composites += [_guarded(row) for row in alarms if row.after or row.suppressor]
    composites += [_burning(row) for row in burn_rates]
    return Alarms(
        objectives,
        {row.name: row for row in burn_rates},
        Suppression(**rows["suppression"]),
        {row.name: row for row in [*windows, *map(_measured, alarms)]},
        {row.name: row for row in composites},
    )


def _burn_rate(row: dict[str, Any], objectives: Mapping[str, Objective]) -> BurnRate:
    rates = {name: Rate(**rate) for name, rate in row["rates"].items()}
    return BurnRate(**{**row, "objective": objectives[row["objective"]], "rates": rates})


def _measured(row: MetricAlarm) -> MetricAlarm:
    """The metric alarm of a row: a part, if a composite alarm notifies in its place."""
    return replace(row, name=f"{row.name}-measured", severity="part") if row.after or row.suppressor else row


def _guarded(row: MetricAlarm) -> Composite:
    group = (_measured(row).name, *([row.after] if row.after else []))
    return _composite(row, (group,), region=row.region)


def _burning(row: BurnRate) -> Composite:
    return _composite(row, tuple((long.name, short.name) for long, short in row.parts))


def _composite(row: MetricAlarm | BurnRate, rule: tuple[tuple[str, ...], ...], region: str = "") -> Composite:
    return Composite(
        name=row.name,
        severity=row.severity,
        means=row.means,
        reason=row.reason,
        rule=rule,
        suppressor=row.suppressor,
        region=region,
    )


def _metrics(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    return {
        name: Metric(
            row["namespace"],
            row["name"],
            tuple(sorted(row.get("dimensions", {}).items())),
            row["statistic"],
            row.get("over", ""),
        )
        for name, row in rows.items()
    }


def quantity(value: float, unit: str) -> str:
    """A value with its unit, for display; a share is a percentage."""
    match unit:
        case "share":
            return f"{100 * value:.3g} %"
        case "bytes":
            exponent = max(0, min(3, int(math.log(max(abs(value), 1), 1024))))
            return f"{value / 1024**exponent:.3g} {('B', 'KiB', 'MiB', 'GiB')[exponent]}"
        case "":
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:.3g} {unit}"


def duration(seconds: int) -> str:
    """A length of time in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
