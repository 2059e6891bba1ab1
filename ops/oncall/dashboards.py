"""Parses dashboards in CloudWatch's format, with its shorthand expanded.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ops.cloudwatch.rows import Metric

Widget: TypeAlias = Mapping[str, Any]

FOLDER: Final = Path(__file__).resolve().parents[1] / "cloudwatch" / "dashboards"

_PERIOD_SECONDS: Final = 300  # CloudWatch's default
_STATISTIC: Final = "Average"  # CloudWatch's default
# The statistic of a metric over all values of a dimension: the one kind of query of Metrics Insights that is used here.
_QUERY: Final = re.compile(r'SELECT (SUM|MAX)\((\w+)\) FROM SCHEMA\("([\w/]+)", (\w+)\)')
_STATISTICS: Final = {"SUM": "Sum", "MAX": "Maximum"}
_VARIABLE: Final = re.compile(r"\$?\$\{(\w+)\}")


class InvalidDashboard(ValueError):
    """The dashboard is not in CloudWatch's format."""


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a number.

    Attributes:
        id: its name in expressions; may be empty.
        label: for people.
        of: a metric, or an expression of metric math.
        period_seconds: of a point.
        is_visible: whether it is drawn; expressions can also use lines that are not drawn.
        axis: left or right.
        color: such as #1f77b4; empty for the page's default.
    """

    id: str
    label: str
    of: Metric | str
    period_seconds: int
    is_visible: bool
    axis: str
    color: str


def load(variables: Mapping[str, str], folder: Path = FOLDER) -> dict[str, list[Widget]]:
    """The widgets of each dashboard in a folder, by its name; the dashboard named service is first.

    Args:
        variables: those of Terraform's templatefile: the deployment's name, the region.
        folder: with one JSON file for each dashboard.

    Raises:
        InvalidDashboard: a file is not a dashboard.
    """
    files = sorted(folder.glob("*.json"), key=lambda file: (file.stem != "service", file.stem))
    return {file.stem: _widgets(file, variables) for file in files}


def _widgets(file: Path, variables: Mapping[str, str]) -> list[Widget]:
    try:
        widgets: list[Widget] = json.loads(_substitute(file.read_text(encoding="utf-8"), variables))["widgets"]
        for widget in widgets:
            lines_of(widget)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidDashboard(f"{file.name}: {error!r}") from error
    return sorted(widgets, key=lambda widget: (widget.get("y", 0), widget.get("x", 0)))


def _substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replaces `${name}` as Terraform does, and `$${` by `${`."""
    return _VARIABLE.sub(lambda found: found[0][1:] if found[0][1] == "$" else variables[found[1]], text)


def lines_of(widget: Widget) -> list[Line]:
    """The lines of a widget; empty where it has no metrics."""
    properties = widget["properties"]
    return [_line(row, options, properties) for row, options in _rows(properties.get("metrics", ()))]


def metrics_of(widget: Widget) -> list[Metric]:
    """The metrics of a widget, including those that only its expressions use."""
    return [line.of for line in lines_of(widget) if isinstance(line.of, Metric)]


def _rows(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Expands the shorthand of rows: `.` repeats one part of the row before, `...` all of its parts."""
    before: list[str] = []
    for row in rows:
        options = row[-1] if isinstance(row[-1], Mapping) else {}
        parts = [str(part) for part in row if not isinstance(part, Mapping)]
        if parts and parts[0] == "...":
            parts = before[: len(before) - len(parts) + 1] + parts[1:]
        parts = [before[place] if part == "." else part for place, part in enumerate(parts)]
        before = parts or before
        yield parts, options


def _line(parts: Sequence[str], options: Mapping[str, Any], properties: Mapping[str, Any]) -> Line:
    of = _expression(options["expression"]) if "expression" in options else _metric(parts, options, properties)
    return Line(
        id=options.get("id", ""),
        label=options.get("label") or (of if isinstance(of, str) else _label(of)),
        of=of,
        period_seconds=int(options.get("period") or properties.get("period") or _PERIOD_SECONDS),
        is_visible=options.get("visible", True),
        axis=options.get("yAxis", "left"),
        color=options.get("color", ""),
    )


def _expression(text: str) -> Metric | str:
    found = _QUERY.fullmatch(text)
    if found is None:
        return text
    function, name, namespace, over = found.groups()
    return Metric(namespace, name, (), _STATISTICS[function], over)


def _metric(parts: Sequence[str], options: Mapping[str, Any], properties: Mapping[str, Any]) -> Metric:
    namespace, name, *dimensions = parts
    if len(dimensions) % 2:
        raise InvalidDashboard(f"{parts} has a dimension without a value")
    pairs = tuple(sorted(zip(dimensions[::2], dimensions[1::2], strict=True)))
    return Metric(namespace, name, pairs, options.get("stat") or properties.get("stat") or _STATISTIC)


def _label(metric: Metric) -> str:
    return " ".join([metric.name, *(value for _, value in metric.dimensions)])
