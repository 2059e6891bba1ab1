"""Alarms as CloudWatch evaluates them: the rows of ops/cloudwatch/alarms.yaml against metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ops.cloudwatch.rows import Alarms, BurnRate, MetricAlarm, Severity
from ops.oncall.expressions import Series, evaluate
from ops.oncall.metrics import MetricStore

OK: Final = "OK"
ALARM: Final = "ALARM"
INSUFFICIENT_DATA: Final = "INSUFFICIENT_DATA"

# CloudWatch looks a little further back than it has to, in case a point is missing: with 3 periods, at 5 points.
_MORE_POINTS: Final = 2


@dataclass(frozen=True, kw_only=True)
class State:
    """How an alarm stands.

    Attributes:
        name: of the alarm.
        severity: page, ticket or part.
        state: OK, ALARM or INSUFFICIENT_DATA.
        since: when it came to be so, in seconds since 1970.
        means: what is the matter when it fires.
        reason: why it stands so: the value beside the threshold.
        parts: of a composite, the alarms that decide.
    """

    name: str
    severity: Severity
    state: str
    since: float
    means: str
    reason: str
    parts: Sequence[str] = ()


class Board:
    """The states of all alarms, which some of them keep while data is missing.

    Args:
        alarms: the rows.
        store: what they look at.
    """

    def __init__(self, alarms: Alarms, store: MetricStore) -> None:
        self._alarms = alarms
        self._store = store
        self._states: dict[str, State] = {}

    def evaluate(self, now: float) -> list[State]:
        """The states at a time, in seconds since 1970; times have to come in order."""
        for row in self._alarms.metric.values():
            points = points_of(row, self._store, now)
            known = next((value for value in reversed(points) if value is not None), None)
            self._note(row, state_of(row, points, self._state(row.name)), row.said(known), now)
        for composite in self._alarms.composite.values():
            names = [part.name for part in composite.parts]
            parts = [self._states[name] for name in names]
            state = ALARM if all(part.state == ALARM for part in parts) else OK
            self._note(composite, state, "; ".join(f"{part.name}: {part.reason}" for part in parts), now, names)
        return list(self._states.values())

    def _state(self, name: str) -> str:
        return self._states[name].state if name in self._states else INSUFFICIENT_DATA

    def _note(
        self, row: MetricAlarm | BurnRate, state: str, reason: str, now: float, parts: Sequence[str] = ()
    ) -> None:
        known = self._states.get(row.name)
        since = known.since if known and known.state == state else now
        self._states[row.name] = State(
            name=row.name, severity=row.severity, state=state, since=since, means=row.means, reason=reason, parts=parts
        )


def state_of(row: MetricAlarm, points: Series, before: str) -> str:
    """The state that points give, as CloudWatch decides with those that are missing.

    Args:
        row: of the alarm.
        points: as many as it looks at and a few before, the oldest first.
        before: the state until now.
    """
    present = [row.is_beyond(value) for value in points if value is not None][-row.periods :]
    beyond = sum(present)
    missing = row.periods - len(present)
    if beyond >= row.periods_to_alarm:
        return ALARM
    if not missing or row.missing == "notBreaching":
        return OK
    if row.missing == "breaching":
        return ALARM if beyond + missing >= row.periods_to_alarm else OK
    if not present:
        return INSUFFICIENT_DATA if row.missing == "missing" else before
    if not all(present):
        return OK
    # All that is known is beyond the threshold, and it is not enough: it is if it lasts.
    age = next(age for age, value in enumerate(points) if value is not None)
    lasts = len(points) - age >= row.periods_to_alarm
    return ALARM if lasts and row.missing == "missing" else before


def points_of(row: MetricAlarm, store: MetricStore, now: float) -> Series:
    """The points that an alarm looks at, and a few before, the oldest first."""
    count = row.periods + _MORE_POINTS
    series = {name: store.series(metric, row.period_seconds, now, count) for name, metric in row.metrics.items()}
    return evaluate(row.expression or next(iter(series)), series, row.period_seconds)
