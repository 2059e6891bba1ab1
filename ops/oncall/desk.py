"""The desk of whoever is on call: what was told so far, and how it looks now."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ops.cloudwatch import rows
from ops.oncall import dashboards
from ops.oncall.alarms import Board, State
from ops.oncall.expressions import evaluate
from ops.oncall.lines import Told
from ops.oncall.logs import LogStore
from ops.oncall.machine import NAME
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import Moment, Values, draw
from ops.oncall.queries import Answer, Library
from ops.oncall.sources import Source
from ops.oncall.traces import TraceStore

CLOUDWATCH: Final = Path(__file__).resolve().parents[1] / "cloudwatch"

_EVALUATE_SECONDS: Final = 5.0  # between two looks at the alarms; CloudWatch's own looks are a minute apart
_GATHERED_SECONDS: Final = 65.0  # what is told of a time may come as late: METRICS_INTERVAL is 60 at most
_ASK_SECONDS: Final = 20.0  # between two looks for a widget of the log
# What the label of an axis says of its unit, where no document does: in CloudWatch's words.
_UNITS: Final = {"ms": "Milliseconds", "s": "Seconds", "%": "Percent", "bytes": "Bytes"}
_OBJECTIVE_SECONDS: Final = 30 * 86400  # what is promised is promised over a month
_BURN_SECONDS: Final = 3600  # as long as the faster alarms look back


class Desk:
    """Takes what a source tells, and answers for the page.

    Args:
        source: of the lines.
        name: of the deployment.
        folder: with alarms, dashboards, queries and runbooks.
    """

    def __init__(self, source: Source, name: str = NAME, folder: Path = CLOUDWATCH) -> None:
        self.traces = TraceStore()
        self.logs = LogStore()
        self.library = Library(self.logs, folder / "queries")
        self._source = source
        self._name = name
        self._metrics = MetricStore()
        self._values = Values(self._metrics)
        self._alarms = rows.load(name, folder / "alarms.yaml")
        self._board = Board(self._alarms, self._metrics)
        self._states: list[State] = []
        self._budgets: list[dict[str, Any]] = []
        self._evaluated = self._told = 0.0
        self._units: dict[str, str] = {}
        self._asked: dict[tuple[str, float, bool], tuple[float, Answer]] = {}
        self._lines = self._refused = 0
        self._last_wall: float | None = None
        variables = {"name": name, "region": "local", "account": "000000000000"}
        self._dashboards = dashboards.load(variables, folder / "dashboards")

    def step(self, wall: float) -> bool:
        """Takes what there is by now, a little at a time; whether there is more."""
        read = self._source.read(wall)
        for told in read:
            self._told = max(self._told, told.at)
            self._evaluate(told.at)
            self._take(told)
        if read:
            self._lines += len(read)
            self._last_wall = wall
        state = self._source.status().state
        if state == "ended" and self._evaluated < self._told:
            self._look(self._source.now(wall))
        elif state != "reading":
            self._evaluate(self._source.now(wall))
        return bool(read) or state == "reading"  # a long line comes in pieces

    def _take(self, told: Told) -> None:
        try:
            self._taker(told)(told.document)
            self.logs.add(told.document, told.line)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._refused += 1

    def _taker(self, told: Told) -> Callable[[Any], None]:
        if "_aws" in told.document:
            return self._measure
        return self.traces.add if "resourceSpans" in told.document else _nothing

    def _measure(self, document: Any) -> None:
        self._metrics.add(document)
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for metric in directive["Metrics"]:
                self._units[f"{directive['Namespace']} {metric['Name']}"] = metric.get("Unit", "")

    def _evaluate(self, now: float) -> None:
        if now - self._evaluated >= _EVALUATE_SECONDS:
            self._look(now - now % _EVALUATE_SECONDS)

    def _look(self, now: float) -> None:
        self._evaluated = now
        self._states = self._board.evaluate(now)
        self._budgets = [self._budget(objective) for objective in self._alarms.objectives.values()]

    def _budget(self, objective: rows.Objective) -> dict[str, Any]:
        """What is left of an objective's budget, in per cent, and how many times as fast as allowed it is spent."""
        spent, burn = (self._bad(objective, seconds) for seconds in (_OBJECTIVE_SECONDS, _BURN_SECONDS))
        return {
            "name": objective.name,
            "percent": objective.percent,
            "means": objective.means,
            "left": None if spent is None else 100 - 100 * spent / objective.budget,
            "burn": None if burn is None else burn / objective.budget,
        }

    def _bad(self, objective: rows.Objective, seconds: int) -> float | None:
        series = {
            name: self._metrics.series(metric, seconds, self._evaluated, 1)
            for name, metric in objective.metrics.items()
        }
        (bad,) = evaluate(objective.bad, series, seconds)
        return bad

    def head(self, wall: float) -> dict[str, Any]:
        """What is on top of every page: the time, how the source is doing, the alarms."""
        status = self._source.status()
        refused = status.refused + self._refused
        silent = None if self._last_wall is None else max(0.0, wall - self._last_wall)
        return {
            "name": self._name,
            "time": self._source.now(wall),
            "source": {**asdict(status), "lines": self._lines, "refused": refused, "silent_seconds": silent},
            "alarms": self._states,
            "budgets": self._budgets,
            "dashboards": list(self._dashboards),
        }

    def view(self, dashboard: str, minutes: int, wall: float) -> dict[str, Any]:
        """A dashboard, with its head.

        Raises:
            KeyError: there is none of this name.
        """
        now = self._source.now(wall)
        settled = min(now, self._told) - _GATHERED_SECONDS
        moment = Moment(now, minutes * 60, settled, self._name, self._ask)
        panels = [draw(widget, self._values, moment) for widget in self._dashboards[dashboard]]
        for panel in panels:
            for line in panel.get("lines", ()):
                said = panel["axes"].get(line["axis"], {}).get("label", "")
                line["unit"] = self._units.get(line.pop("metric")) or _UNITS.get(said, "")
        span = {"start": now - moment.seconds, "end": now}
        return {"head": self.head(wall), "dashboard": dashboard, **span, "panels": panels}

    def _ask(self, text: str, start: float, end: float) -> Answer:
        """As the library does, but not each time: a widget's query goes through all lines."""
        key = text, end - start, self._source.status().state == "reading"
        asked, answer = self._asked.get(key, (0.0, {}))
        if not 0 <= end - asked < _ASK_SECONDS:
            answer = self.library.ask(text, start, end)
            self._asked[key] = end, answer
        return answer

    def now(self, wall: float) -> float:
        """The time on the page."""
        return self._source.now(wall)

    def close(self) -> None:
        """Closes what it reads from."""
        self._source.close()


def _nothing(_: Any) -> None:
    """Lines of the log are the log's business alone."""
