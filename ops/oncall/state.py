"""The state that the page shows: metrics, alarms, logs and traces, read from a source."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ops.cloudwatch import rows
from ops.oncall import dashboards
from ops.oncall.alarms import AlarmEvaluator, AlarmState
from ops.oncall.documents import Entry
from ops.oncall.expressions import evaluate
from ops.oncall.history import History
from ops.oncall.logs import LogStore
from ops.oncall.machine import MISSING, NAME, NOTE
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import TimeRange, Values, draw
from ops.oncall.queries import QueryLibrary, Result
from ops.oncall.sources import Source
from ops.oncall.traces import TraceStore
from svc.logs import names

CLOUDWATCH: Final = Path(__file__).resolve().parents[1] / "cloudwatch"

EVALUATION_SECONDS: Final = 5.0  # between evaluations of the alarms
_CATCH_UP_SECONDS: Final = 60.0  # the same, while a recording of hours is read; CloudWatch evaluates once a minute, too
_SETTLE_SECONDS: Final = 65.0  # the maximum delay of a metric: METRICS_INTERVAL is at most 60
_MAX_STEPS: Final = 60  # evaluations in a gap in the recording
_FAULTS: Final = rows.Metric(names.NAMESPACE, names.FAULTS, (), "Sum")
_QUERY_SECONDS: Final = 20.0  # between two runs of the query of a widget
# CloudWatch's units by the label of an axis, for lines whose documents have no unit.
_UNITS: Final = {"ms": "Milliseconds", "s": "Seconds", "%": "Percent", "bytes": "Bytes"}
_OBJECTIVE_SECONDS: Final = 30 * 86400  # over which objectives hold


class OnCallState:
    """Reads a source, evaluates the alarms, and computes what the page shows.

    Args:
        source: of the entries.
        name: of the deployment.
        folder: with alarms, dashboards, queries and runbooks.
    """

    def __init__(self, source: Source, name: str = NAME, folder: Path = CLOUDWATCH) -> None:
        self.traces = TraceStore()
        self.logs = LogStore()
        self.library = QueryLibrary(self.logs, folder / "queries")
        self._source = source
        self._name = name
        self._metrics = MetricStore()
        self._values = Values(self._metrics)
        self._alarms = rows.load(name, folder / "alarms.yaml")
        self._evaluator = AlarmEvaluator(self._alarms, self._metrics)
        self._history = History()
        self._states: list[AlarmState] = []
        self._budgets: list[dict[str, Any]] = []
        self._evaluated = self._newest = 0.0
        self._oldest = math.inf
        self._units: dict[str, str] = {}
        self._results: dict[tuple[str, float, bool], tuple[float, Result]] = {}
        self._lines = self._refused = 0
        variables = {"name": name, "region": "local", "account": "000000000000"}
        self._dashboards = dashboards.load(variables, folder / "dashboards")

    def step(self, wall: float) -> bool:
        """Reads the next entries and evaluates the alarms that are due; returns whether there are more entries.

        Args:
            wall: the current time, in seconds since 1970.
        """
        read = self._source.read(wall)
        state = self._source.status().state
        for entry in read:
            self._oldest, self._newest = min(self._oldest, entry.at), max(self._newest, entry.at)
            self._evaluate_if_due(entry.at, _CATCH_UP_SECONDS if state == "reading" else EVALUATION_SECONDS)
            self._add(entry)
        if read:
            self._lines += len(read)
        if state == "ended" and self._evaluated < self._newest:
            self._evaluate(self._source.now(wall))
        elif state != "reading":
            self._evaluate_if_due(self._source.now(wall), EVALUATION_SECONDS)
        return bool(read) or state == "reading"  # a long line takes several reads

    def _add(self, entry: Entry) -> None:
        try:
            if "_aws" in entry.document:
                self._add_metrics(entry.document)
            elif "resourceSpans" in entry.document:
                self.traces.add(entry.document)
            elif entry.document.get("event") == names.STARTED:
                self._history.start(entry.document[names.BUILD], entry.at)
            self.logs.add(entry.document, entry.line)
        except (KeyError, TypeError, ValueError, AttributeError):
            self._refused += 1

    def _add_metrics(self, document: Any) -> None:
        self._metrics.add(document)
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for metric in directive["Metrics"]:
                self._units[f"{directive['Namespace']} {metric['Name']}"] = metric.get("Unit", "")

    def _evaluate_if_due(self, now: float, every: float) -> None:
        """Evaluates the alarms at all times that are due, also in a gap in the recording, but then at fewer times."""
        due = now - now % every
        gap = due - self._evaluated if self._evaluated else 0
        steps = min(int(gap / every), _MAX_STEPS)
        for step in range(1, steps):
            self._evaluate(due - gap * (1 - step / steps))
        if due > self._evaluated:
            self._evaluate(due)

    def _evaluate(self, now: float) -> None:
        self._evaluated = now
        self._states = self._evaluator.evaluate(now)
        self._history.update(self._states, now)
        self._budgets = [self._budget(objective) for objective in self._alarms.objectives.values()]

    def _budget(self, objective: rows.Objective) -> dict[str, Any]:
        """How much of an objective's error budget was spent, in percent, and in how many of its seconds."""
        series = {
            name: self._metrics.series(metric, _OBJECTIVE_SECONDS, self._evaluated, 1)
            for name, metric in objective.metrics.items()
        }
        (bad,) = evaluate(objective.bad, series, _OBJECTIVE_SECONDS)
        return {
            "name": objective.name,
            "percent": objective.percent,
            "means": objective.means,
            "spent": None if bad is None else 100 * bad / objective.budget,
            "seconds": min(self._evaluated - self._oldest, _OBJECTIVE_SECONDS),
        }

    def head(self, wall: float) -> dict[str, Any]:
        """The head of every page: the time, the status of the source, the alarms and the budgets."""
        status = self._source.status()
        refused = status.refused + self._refused
        return {
            "name": self._name,
            "time": self._source.now(wall),
            "source": {**asdict(status), "lines": self._lines, "refused": refused, "newest": self._newest or None},
            "alarms": self._states,
            "budgets": self._budgets,
            "dashboards": list(self._dashboards),
        }

    def view(self, dashboard: str, start: float, end: float, wall: float) -> dict[str, Any]:
        """A dashboard in a time range, with the head of the page.

        Args:
            dashboard: its name.
            start: of the time range, in seconds since 1970.
            end: of the time range.
            wall: the current time.

        Raises:
            KeyError: there is no dashboard with this name.
        """
        now = self._source.now(wall)
        settled = min(now, self._newest) - _SETTLE_SECONDS
        shown = TimeRange(start, end, settled, self._name, self._latest if end == now else self.library.run)
        panels = [draw(widget, self._values, shown) for widget in self._dashboards[dashboard]]
        for panel in panels:
            for line in panel.get("lines", ()):
                label = panel["axes"].get(line["axis"], {}).get("label", "")
                line["unit"] = self._units.get(line.pop("metric")) or _UNITS.get(label, "")
            panel["missing"] = " ".join(sorted({MISSING.get(metric, "") for metric in panel.get("reads", ())}))
        reads = {metric.partition(" ")[0] for panel in panels for metric in panel.get("reads", ())}
        return {
            "head": self.head(wall),
            "dashboard": dashboard,
            "start": start,
            "end": end,
            "note": "" if reads <= {names.NAMESPACE} else NOTE,
            "panels": panels,
            "history": self._happened(start, end, now),
        }

    def _happened(self, start: float, end: float, now: float) -> dict[str, Any]:
        """What happened in a time range; each firing has the number of requests that failed in its time."""
        firings = self._history.firings(start, end)
        return {
            "firings": [{**asdict(one), "failed": self._failed(one.since, one.end or now)} for one in firings],
            "deployments": self._history.deployments(start, end),
        }

    def _failed(self, start: float, end: float) -> float:
        (count,) = self._metrics.series(_FAULTS, math.ceil(end - start), end, 1)
        return count or 0

    def _latest(self, text: str, start: float, end: float) -> Result:
        """Runs the query of a widget up to now, or returns a recent result: a query reads all lines."""
        key = text, end - start, self._source.status().state == "reading"
        at, result = self._results.get(key, (0.0, {}))
        if not 0 <= end - at < _QUERY_SECONDS:
            result = self.library.run(text, start, end)
            self._results[key] = end, result
        return result

    def now(self, wall: float) -> float:
        """The time that the page shows."""
        return self._source.now(wall)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()
