"""Widgets of CloudWatch dashboards, in their JSON form.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ops.cloudwatch.queries import FOLDER, read
from ops.cloudwatch.rows import Alarms, Composite, Metric, MetricAlarm

NAME: Final = "${name}"  # filled in by Terraform, as are ${region} and ${account}
GROUPS: Final = {
    "lines": f"/{NAME}/clients-api/lines",
    "metrics": f"/{NAME}/clients-api/metrics",
}

Widget: TypeAlias = dict[str, Any]
Line: TypeAlias = list[Any]  # a metric or an expression of a chart
Lines: TypeAlias = list[Line]

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


def expression(math: str, label: str, color: str = "") -> Line:
    """Returns a line that shows metric math over metrics of the same chart."""
    return [{"expression": math, "label": label, **({"color": color} if color else {})}]


def hidden(metrics: Mapping[str, Metric]) -> Lines:
    """Returns invisible lines for the metrics that an expression reads by their IDs."""
    return [line(metric, name, id=name, visible=False) for name, metric in metrics.items()]


def rate(metric: Metric, color: str = "") -> Lines:
    """Returns lines that show the sum of a metric per second."""
    return [*hidden({"total": metric}), expression("total / PERIOD(total)", "per second", color)]


def burn(alarms: Alarms, name: str, color: str) -> Lines:
    """Returns lines that show the burn rate of an objective's error budget."""
    objective = alarms.objectives[name]
    return [*hidden(objective.metrics), expression(f"({objective.bad}) / {objective.budget:g}", name, color)]


def budget(alarms: Alarms, name: str) -> Widget:
    """Returns a widget with the rest of an objective's error budget over 30 days."""
    objective = alarms.objectives[name]
    left = expression(f"100 - 100 * ({objective.bad}) / {objective.budget:g}", "% of the error budget left")
    title = f"{name.capitalize()}: {objective.percent:g} % over 30 days"
    return number(title, [*hidden(objective.metrics), left], start="-P30D", setPeriodToTimeRange=True)


def limits(alarms: Alarms, name: str) -> list[tuple[float, str]]:
    """Returns the threshold of an alarm with a label, for a chart."""
    row = alarms.metric.get(name) or alarms.metric[f"{name}-measured"]
    return [(row.threshold, f"alarm {name}")]


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
    limits: Sequence[tuple[float, str]] = (),
    period: int = 60,
) -> Widget:
    """Returns a time series chart.

    Args:
        title: the title of the chart.
        lines: its lines.
        unit: the label of the left axis.
        limits: values and labels of horizontal lines.
        period: the period of a data point, in seconds.
    """
    left: dict[str, Any] = {"min": 0, "showUnits": False}
    properties: dict[str, Any] = {"view": "timeSeries", "yAxis": {"left": {**left, "label": unit} if unit else left}}
    if limits:
        drawn = [{"value": value, "label": label, "color": "#888888"} for value, label in limits]
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
