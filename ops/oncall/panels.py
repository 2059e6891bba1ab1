"""What a widget of a dashboard shows at a time: its data, ready to be drawn."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ops.cloudwatch.rows import Metric
from ops.oncall.dashboards import Line, Widget, lines_of, metrics_of
from ops.oncall.expressions import InvalidExpression, Series, evaluate, names_in
from ops.oncall.markdown import to_html
from ops.oncall.metrics import MetricStore

Panel: TypeAlias = dict[str, Any]

_START: Final = re.compile(r"-P(?P<days>\d+)D|-PT(?P<hours>\d+)H")  # as CloudWatch writes a time before now

_POINTS_MOST: Final = 180  # of a line: one for every few pixels
_STEPS_SECONDS: Final = (10, 30, 60, 300, 3600)  # between points; documents come every 10 s
_REMEMBERED_MOST: Final = 200_000  # values, some 30 MB


@dataclass(frozen=True)
class Moment:
    """What is looked at.

    Attributes:
        end: in seconds since 1970.
        seconds: before it.
        settled: up to when no more is expected to be told.
        name: of the deployment, which begins the names of its alarms.
        query: gives the rows of a query: its columns and their values.
    """

    end: float
    seconds: int
    settled: float
    name: str
    query: Callable[[str, float, float], Mapping[str, Any]]


class Values:
    """Values of metrics, of which those that will not change are remembered.

    Args:
        store: where they come from.
    """

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._remembered: dict[tuple[Metric, int, float], float | None] = {}

    def at(self, metric: Metric, period: int, ends: Iterable[float], settled: float) -> list[float | None]:
        """A metric's values over the periods with these ends; those up to `settled` will not change."""
        if len(self._remembered) > _REMEMBERED_MOST:
            self._remembered.clear()
        return [self._at(metric, period, end, settled) for end in ends]

    def _at(self, metric: Metric, period: int, end: float, settled: float) -> float | None:
        key = metric, period, end
        if key in self._remembered:
            return self._remembered[key]
        (value,) = self._store.series(metric, period, end, 1)
        if end <= settled:
            self._remembered[key] = value
        return value


def draw(widget: Widget, values: Values, moment: Moment) -> Panel:
    """A widget's data, or a sentence that says why there is none.

    Returns:
        Its kind (chart, numbers, gauge, table, alarms, text or unknown), title, place in a grid of 24 columns, and what
        is particular to its kind.
    """
    properties = widget["properties"]
    head = {
        "title": properties.get("title", ""),
        "place": {side: widget.get(side, 0) for side in ("x", "y", "width", "height")},
    }
    match widget["type"]:
        case "metric":
            return {**head, **_metrics(widget, values, moment)}
        case "log":
            return {**head, "kind": "table", "query": properties["query"], **_rows(properties["query"], moment)}
        case "alarm":
            return {**head, "kind": "alarms", "alarms": [_short(arn, moment.name) for arn in properties["alarms"]]}
        case "text":
            return {**head, "kind": "text", "html": to_html(properties["markdown"])}
    return {**head, "kind": "unknown", "problem": f"This page cannot draw a widget of type {widget['type']}."}


def has_data(panel: Panel) -> bool:
    """Whether a widget has anything to show."""
    match panel["kind"]:
        case "chart" | "numbers" | "gauge":
            return any(value is not None for line in panel["lines"] for value in line["values"])
        case "table":
            return bool(panel["rows"])
    return panel["kind"] in {"alarms", "text"}


def _short(arn: str, name: str) -> str:
    return arn.rpartition("alarm:")[2].removeprefix(f"{name}-")


def _rows(query: str, moment: Moment) -> Panel:
    try:
        return dict(moment.query(query, moment.end - moment.seconds, moment.end))
    except ValueError as error:
        return {"columns": [], "rows": [], "problem": str(error)}


def _metrics(widget: Widget, values: Values, moment: Moment) -> Panel:
    properties = widget["properties"]
    kind = {"singleValue": "numbers", "gauge": "gauge"}.get(properties.get("view", ""), "chart")
    ends = _ends(moment) if kind == "chart" else [moment.end]
    lines = {line.id or str(number): line for number, line in enumerate(lines_of(widget))}
    try:
        period = _seconds(properties.get("start"), moment) if properties.get("setPeriodToTimeRange") else None
        drawn = [
            _drawn(line, _Lines(lines, values, ends, moment.settled, period).of(name))
            for name, line in lines.items()
            if line.is_visible
        ]
    except ValueError as error:
        return {"kind": "unknown", "problem": str(error)}
    return {
        "kind": kind,
        "times": [round(end * 1000) for end in ends],
        "lines": drawn,
        "stacked": properties.get("stacked", False),
        "axes": properties.get("yAxis", {}),
        "limits": properties.get("annotations", {}).get("horizontal", []),
        "reads": sorted({f"{metric.namespace} {metric.name}" for metric in metrics_of(widget)}),
    }


def _seconds(start: str | None, moment: Moment) -> int:
    """The time that a widget is about: its own, such as -P30D or -PT3H, or else the page's."""
    if start is None:
        return moment.seconds
    found = _START.fullmatch(start)
    if found is None:
        raise InvalidExpression(f"{start} is no time before now, such as -PT3H")
    return 86400 * int(found["days"] or 0) + 3600 * int(found["hours"] or 0)


def _drawn(line: Line, values: Series) -> Panel:
    metric = None if isinstance(line.of, str) else f"{line.of.namespace} {line.of.name}"
    return {"label": line.label, "axis": line.axis, "color": line.color, "metric": metric, "values": list(values)}


def _ends(moment: Moment) -> list[float]:
    """The ends of periods: now, and before it at times that stay, so that a point does not change as time goes on."""
    step = next(step for step in _STEPS_SECONDS if moment.seconds / step <= _POINTS_MOST)
    last = math.ceil(moment.end / step) * step
    return [float(last - back * step) for back in range(moment.seconds // step - 1, 0, -1)] + [moment.end]


class _Lines:
    """The lines of a widget, of which expressions take others.

    Periods are longer than the time between two points: each point is of a period of its own that overlaps the next.
    Metric math as far as it is known here goes point by point.
    """

    def __init__(
        self, lines: Mapping[str, Line], values: Values, ends: Sequence[float], settled: float, period: int | None
    ) -> None:
        self._lines = lines
        self._values = values
        self._ends = ends
        self._settled = settled
        self._period = period

    def of(self, name: str) -> Series:
        """A line's values, one for each end.

        Raises:
            InvalidExpression: it is one that is not understood, or takes a line that is not there.
            ValueError: its statistic is none.
        """
        line = self._lines.get(name)
        if line is None:
            raise InvalidExpression(f"There is no {name} for an expression to take")
        period = self._period or line.period_seconds
        if isinstance(line.of, Metric):
            return self._values.at(line.of, period, self._ends, self._settled)
        nothing: Series = [None] * len(self._ends)
        taken = {other: self.of(other) for other in names_in(line.of)} or {"": nothing}  # a constant takes none
        return evaluate(line.of, taken, period)
