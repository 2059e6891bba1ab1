"""The data of a dashboard's widgets, ready to be drawn."""

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

_START: Final = re.compile(r"-P(?P<days>\d+)D|-PT(?P<hours>\d+)H")  # CloudWatch's format of a time before now

_MAX_POINTS: Final = 180  # of a line: one for every few pixels
_STEPS_SECONDS: Final = (10, 30, 60, 300, 3600)  # between points; a document is written every 10 s
_MAX_CACHED: Final = 200_000  # values, some 30 MB


@dataclass(frozen=True)
class TimeRange:
    """What a page shows.

    Attributes:
        start: in seconds since 1970.
        end: in seconds since 1970.
        settled: no data is expected from before this time any more.
        name: of the deployment, the prefix of its alarms' names.
        query: runs a query between two times and gives its columns and rows.
    """

    start: float
    end: float
    settled: float
    name: str
    query: Callable[[str, float, float], Mapping[str, Any]]

    @property
    def seconds(self) -> int:
        """Its length."""
        return round(self.end - self.start)


class Values:
    """Values of metrics; caches those that cannot change any more.

    Args:
        store: the metrics.
    """

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._cached: dict[tuple[Metric, int, float], float | None] = {}

    def shortest_period(self, start: float) -> int:
        """The length of the shortest period from a time on whose values are known, in seconds."""
        return self._store.shortest_period(start)

    def at(self, metric: Metric, period: int, ends: Iterable[float], settled: float) -> list[float | None]:
        """A metric's values for the periods with these ends. Those up to `settled` cannot change any more."""
        if len(self._cached) > _MAX_CACHED:
            self._cached.clear()
        return [self._at(metric, period, end, settled) for end in ends]

    def _at(self, metric: Metric, period: int, end: float, settled: float) -> float | None:
        key = metric, period, end
        if key in self._cached:
            return self._cached[key]
        (value,) = self._store.series(metric, period, end, 1)
        if end <= settled:
            self._cached[key] = value
        return value


def draw(widget: Widget, values: Values, shown: TimeRange) -> Panel:
    """The data of a widget, or the reason why it has none.

    Returns:
        Its kind (chart, numbers, gauge, table, alarms, text or unknown), title, place in a grid of 24 columns, and the
        fields of its kind.
    """
    properties = widget["properties"]
    head = {
        "title": properties.get("title", ""),
        "place": {side: widget.get(side, 0) for side in ("x", "y", "width", "height")},
    }
    match widget["type"]:
        case "metric":
            return {**head, **_metrics(widget, values, shown)}
        case "log":
            return {**head, "kind": "table", "query": properties["query"], **_rows(properties["query"], shown)}
        case "alarm":
            return {**head, "kind": "alarms", "alarms": [_short(arn, shown.name) for arn in properties["alarms"]]}
        case "text":
            return {**head, "kind": "text", "html": to_html(properties["markdown"])}
    return {**head, "kind": "unknown", "problem": f"This page cannot draw a widget of type {widget['type']}."}


def has_data(panel: Panel) -> bool:
    """Whether a panel has data."""
    match panel["kind"]:
        case "chart" | "numbers" | "gauge":
            return any(value is not None for line in panel["lines"] for value in line["values"])
        case "table":
            return bool(panel["rows"])
    return panel["kind"] in {"alarms", "text"}


def _short(arn: str, name: str) -> str:
    return arn.rpartition("alarm:")[2].removeprefix(f"{name}-")


def _rows(query: str, shown: TimeRange) -> Panel:
    try:
        return dict(shown.query(query, shown.start, shown.end))
    except ValueError as error:
        return {"columns": [], "rows": [], "problem": str(error)}


def _metrics(widget: Widget, values: Values, shown: TimeRange) -> Panel:
    properties = widget["properties"]
    kind = {"singleValue": "numbers", "gauge": "gauge"}.get(properties.get("view", ""), "chart")
    ends = _ends(shown) if kind == "chart" else [shown.end]
    lines = {line.id or str(number): line for number, line in enumerate(lines_of(widget))}
    try:
        period = _seconds(properties.get("start"), shown) if properties.get("setPeriodToTimeRange") else None
        drawn = [
            _drawn(line, _Lines(lines, values, ends, shown.settled, period).of(name))
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


def _seconds(start: str | None, shown: TimeRange) -> int:
    """The length of a widget's time range: its own, such as -P30D or -PT3H, or the page's."""
    if start is None:
        return shown.seconds
    found = _START.fullmatch(start)
    if found is None:
        raise InvalidExpression(f"{start} is not a time before now, such as -PT3H")
    return 86400 * int(found["days"] or 0) + 3600 * int(found["hours"] or 0)


def _drawn(line: Line, values: Series) -> Panel:
    metric = None if isinstance(line.of, str) else f"{line.of.namespace} {line.of.name}"
    return {"label": line.label, "axis": line.axis, "color": line.color, "metric": metric, "values": list(values)}


def _ends(shown: TimeRange) -> list[float]:
    """The ends of the periods: now, and fixed times before it, so that a point keeps its value as time passes."""
    step = next(step for step in _STEPS_SECONDS if shown.seconds / step <= _MAX_POINTS)
    last = math.ceil(shown.end / step) * step
    return [float(last - back * step) for back in range(shown.seconds // step - 1, 0, -1)] + [shown.end]


class _Lines:
    """Computes the lines of a widget, including those that expressions use.

    Periods are longer than the time between two points, so the periods of neighbouring points overlap. The supported
    metric math works point by point.
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
            InvalidExpression: an expression is not valid, or uses a line that does not exist.
            ValueError: the statistic does not exist.
        """
        line = self._lines.get(name)
        if line is None:
            raise InvalidExpression(f"an expression uses {name}, which does not exist")
        shortest = self._values.shortest_period(self._ends[0] - line.period_seconds)
        period = self._period or max(line.period_seconds, shortest)
        if isinstance(line.of, Metric):
            return self._values.at(line.of, period, self._ends, self._settled)
        empty: Series = [None] * len(self._ends)
        used = {other: self.of(other) for other in names_in(line.of)} or {"": empty}  # for the length of a constant
        return evaluate(line.of, used, period)
