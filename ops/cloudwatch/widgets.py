"""Widgets of CloudWatch dashboards, in their JSON form.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ops.cloudwatch.queries import FOLDER, read
from ops.cloudwatch.rows import Alarms, Composite, Metric, MetricAlarm, duration

NAME: Final = "${name}"  # filled in by Terraform, as are ${region} and ${account}
GROUPS: Final = {
    "lines": f"/{NAME}/clients-api/lines",
    "metrics": f"/{NAME}/clients-api/metrics",
}

Widget: TypeAlias = dict[str, Any]
Line: TypeAlias = list[Any]  # a metric or an expression of a chart
Lines: TypeAlias = list[Line]
Limit: TypeAlias = tuple[float, str, str]  # value, label and color of a horizontal line

LIMIT_COLOR: Final = "#888888"

_COLUMNS: Final = 24
_REGION: Final = "${region}"
_ALARM: Final = "arn:aws:cloudwatch:{region}:${{account}}:alarm:${{name}}-{alarm}"


def line(metric: Metric, label: str, *, color: str = "", axis: str = "", **more: Any) -> Line:
    """Returns a line that shows a metric."""
    given = {"label": label, "color": color, "yAxis": axis, **more}
    options = {name: value for name, value in given.items() if value != ""}
    if metric.over:
        return [{"expression": metric.query, **options}]
    dimensions = [part for pair in metric.dimensions for part in pair]
    return [metric.namespace, metric.name, *dimensions, {"stat": metric.statistic, **options}]


def expression(math: str, label: str, *, color: str = "", **more: Any) -> Line:
    """Returns a line that shows metric math over metrics of the same chart."""
    return [{"expression": math, "label": label, **({"color": color} if color else {}), **more}]


def hidden(metrics: Mapping[str, Metric], **more: Any) -> Lines:
    """Returns invisible lines for the metrics that an expression reads by their IDs."""
    return [line(metric, name, id=name, visible=False, **more) for name, metric in metrics.items()]


def rate(metric: Metric, color: str = "") -> Lines:
    """Returns lines that show the sum of a metric per second."""
    return [*hidden({"total": metric}), expression("total / PERIOD(total)", "per second", color=color)]


def burn(alarms: Alarms, objective: str, colors: Sequence[str]) -> Widget:
    """Returns a chart of the burn rates of an objective's error budget, with a line for each rate of its alarms.

    A line is the lower one of the rate's two windows, so it is above its limit exactly while that rate fires. Each
    window is the period of its metrics. A short window without requests burns nothing. Periods on a dashboard of
    CloudWatch begin at whole hours, other than those of its alarms; there a long one lasts until the next.
    """
    rows = [row for row in alarms.burn_rates.values() if row.objective.name == objective]
    lines: Lines = []
    limits = []
    rates = [(row.name, *rate) for row in rows for rate in zip(row.rates.items(), row.parts, strict=True)]
    for (alarm, (name, rate), parts), color in zip(rates, colors, strict=True):
        for window, part in zip(("long", "short"), parts, strict=True):
            lines += _burning(part, f"{name}_{window}", alarms.objectives[objective].budget)
        windows = f"{duration(rate.long)} and {duration(rate.short)}"
        lower = f"MIN([FILL({name}_long, REPEAT), FILL({name}_short, 0)])"
        lines.append(expression(lower, f"lower of {windows}", color=color))
        limits.append((rate.burn, f"alarm {alarm}: {windows}", color))
    return chart(f"{objective.capitalize()} burn rate", lines, limits=limits)


def _burning(part: MetricAlarm, name: str, budget: float) -> Lines:
    """Returns invisible lines for a window of a burn rate; the IDs of its metrics end in its name."""
    renamed = re.compile(rf"\b({'|'.join(part.metrics)})\b").sub(rf"\1_{name}", part.expression)
    metrics = {f"{metric}_{name}": of for metric, of in part.metrics.items()}
    rate = expression(f"({renamed}) / {budget:g}", name, id=name, visible=False)
    return [*hidden(metrics, period=part.period_seconds), rate]


def budget(alarms: Alarms, name: str) -> Widget:
    """Returns a widget with the part of an objective's error budget that was spent, over 30 days."""
    objective = alarms.objectives[name]
    spent = expression(f"100 * ({objective.bad}) / {objective.budget:g}", "% of the error budget spent")
    title = f"{name.capitalize()}: {objective.percent:g} % over 30 days"
    return number(title, [*hidden(objective.metrics), spent], start="-P30D", setPeriodToTimeRange=True)


def limits(alarms: Alarms, name: str) -> list[Limit]:
    """Returns the threshold of an alarm with a label, for a chart."""
    row = alarms.metric.get(name) or alarms.metric[f"{name}-measured"]
    return [(row.threshold, f"alarm {name}", LIMIT_COLOR)]


def text(markdown: str, height: int) -> Widget:
    """Returns a text widget as wide as the dashboard."""
    return {"type": "text", "width": _COLUMNS, "height": height, "properties": {"markdown": markdown}}


def states(title: str, alarms: Sequence[MetricAlarm | Composite], height: int) -> Widget:
    """Returns an alarm status widget as wide as the dashboard."""
    names = [_ALARM.format(region=alarm.region or _REGION, alarm=alarm.name) for alarm in alarms]
    properties = {"title": title, "alarms": names}
    return {"type": "alarm", "width": _COLUMNS, "height": height, "properties": properties}


def number(title: str, lines: Lines, **more: Any) -> Widget:
    """Returns a widget with the latest values as numbers."""
    return {"type": "metric", "height": 4, "properties": {**_metrics(title, lines, 60), "view": "singleValue", **more}}


def chart(
    title: str,
    lines: Lines,
    *,
    unit: str = "",
    limits: Sequence[Limit] = (),
    period: int = 60,
) -> Widget:
    """Returns a time series chart.

    Args:
        title: the title of the chart.
        lines: its lines.
        unit: the label of the left axis.
        limits: horizontal lines.
        period: the period of a data point, in seconds.
    """
    left: dict[str, Any] = {"min": 0, "showUnits": False}
    properties: dict[str, Any] = {"view": "timeSeries", "yAxis": {"left": {**left, "label": unit} if unit else left}}
    if limits:
        drawn = [{"value": value, "label": label, "color": color} for value, label, color in limits]
        properties["annotations"] = {"horizontal": drawn}
    return {"type": "metric", "height": 6, "properties": {**_metrics(title, lines, period), **properties}}


def _metrics(title: str, lines: Lines, period: int) -> dict[str, Any]:
    return {"title": title, "region": _REGION, "period": period, "metrics": lines}


def log(title: str, query: str) -> Widget:
    """Returns a table of the results of a saved query."""
    saved = read(FOLDER / f"{query}.txt")
    properties = {
        "title": title,
        "region": _REGION,
        "view": "table",
        "query": f"SOURCE '{GROUPS[saved.group]}' | {saved.text}",
    }
    return {"type": "log", "width": _COLUMNS, "height": 6, "properties": properties}


def body(rows: Sequence[Sequence[Widget]], start: str = "-PT3H") -> str:
    """Returns the JSON of a dashboard. The widgets of a row share its width equally.

    Args:
        rows: its widgets.
        start: the begin of its time range, unless a reader chooses another: an ISO 8601 duration before now.
    """
    placed, y = [], 0
    for row in rows:
        width = _COLUMNS // len(row)
        for number, widget in enumerate(row):
            placed.append({**widget, "x": number * width, "y": y, "width": width})
        y += max(widget["height"] for widget in row)
    widgets = {"start": start, "periodOverride": "inherit", "widgets": placed}
    return json.dumps(widgets, indent=2, ensure_ascii=False) + "\n"
