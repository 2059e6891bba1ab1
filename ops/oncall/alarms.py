"""Alarms as CloudWatch evaluates them: the rows of ops/cloudwatch/alarms.yaml against metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import fmean, pstdev
from typing import Any, Final

from ops.cloudwatch.rows import Alarms, Composite, MetricAlarm, Severity
from ops.oncall.expressions import Series, evaluate
from ops.oncall.metrics import MetricStore
from ops.oncall.suppression import ALARM, INSUFFICIENT_DATA, OK, Notifications

# CloudWatch reads a few more points than an alarm needs, in case some are missing: for 3 periods, 5 points.
_EXTRA_POINTS: Final = 2
# The points before these from which a band is computed here. CloudWatch trains a model on up to two weeks instead.
_BAND_POINTS: Final = 24


@dataclass(frozen=True, kw_only=True)
class AlarmState:
    """The state of an alarm.

    Attributes:
        name: of the alarm.
        severity: page, ticket or part.
        state: OK, ALARM or INSUFFICIENT_DATA.
        since: start of this state, in seconds since 1970.
        means: what is wrong when it fires.
        reason: of the state: what is measured, the value and the threshold.
        absence: why there is no value: nobody reports, no traffic, too little yet; empty where there is one.
        parts: the alarms that decide a composite alarm.
        notified: the state of which it last notified someone; a state that a suppressor hides is not among them.
        excess: how far the value is beyond the threshold; for a composite alarm, that of its first part.
        window_seconds: the length of the shortest period whose data decides.
    """

    name: str
    severity: Severity
    state: str
    since: float
    means: str
    reason: str
    absence: str = ""
    parts: Sequence[str] = ()
    notified: str = INSUFFICIENT_DATA
    excess: float
    window_seconds: float


class AlarmEvaluator:
    """Evaluates all alarms, and keeps their states: some alarms keep theirs while data is missing.

    Args:
        alarms: their definitions.
        store: their metrics.
    """

    def __init__(self, alarms: Alarms, store: MetricStore) -> None:
        self._alarms = alarms
        self._store = store
        self._states: dict[str, AlarmState] = {}
        self._notifications = Notifications(alarms)

    def evaluate(self, now: float) -> list[AlarmState]:
        """The states at a time in seconds since 1970, which must not be before that of the last call."""
        for row in self._alarms.metric.values():
            points = points_of(row, self._store, now)
            latest = next((value for value in reversed(points) if value is not None), None)
            state = state_of(row, points, self._state(row.name))
            absence = self._absence(row, now) if latest is None else ""
            if state == INSUFFICIENT_DATA:
                absence = absence or "too little yet"
            self._set(
                row,
                now,
                state=state,
                reason=f"{row.describe(latest)}{absence and f' ({absence})'}",
                absence=absence,
                excess=row.excess(latest),
                window_seconds=row.period_seconds * row.periods_to_alarm,
            )
        for composite in self._alarms.composite.values():
            self._set_composite(composite, now)
        return list(self._notifying(now))

    def _set_composite(self, row: Composite, now: float) -> None:
        firing = [group for group in row.rule if all(self._state(name) == ALARM for name in group)]
        parts = [self._states[name] for group in row.rule for name in group]
        shown = [self._states[name] for group in firing or row.rule for name in group]
        self._set(
            row,
            now,
            state=ALARM if firing else OK,
            reason="; ".join(part.reason for part in shown),
            parts=[part.name for part in parts],
            excess=parts[0].excess,
            window_seconds=min(part.window_seconds for part in parts),
        )

    def _notifying(self, now: float) -> Iterable[AlarmState]:
        states = {state.name: (state.state, state.since) for state in self._states.values()}
        for name, (notified, silence) in self._notifications.update(states, now).items():
            state = self._states[name]
            reason = f"{silence}; {state.reason}" if silence and state.state == ALARM else state.reason
            yield replace(state, notified=notified, reason=reason)

    def _absence(self, row: MetricAlarm, now: float) -> str:
        """Why an alarm has no value: its reporter is silent, or has nothing to report."""
        namespaces = {metric.namespace for metric in row.metrics.values()}
        newest = max(map(self._store.newest, namespaces))
        if not newest:
            return "nobody reports"
        is_recent = newest >= now - row.period_seconds * row.periods
        return "no traffic" if is_recent else f"nobody reports since {datetime.fromtimestamp(newest, UTC):%H:%M:%S}"

    def _state(self, name: str) -> str:
        return self._states[name].state if name in self._states else INSUFFICIENT_DATA

    def _set(self, row: MetricAlarm | Composite, now: float, *, state: str, **more: Any) -> None:
        before = self._states.get(row.name)
        since = before.since if before and before.state == state else now
        self._states[row.name] = AlarmState(
            name=row.name, severity=row.severity, means=row.means, state=state, since=since, **more
        )


def state_of(row: MetricAlarm, points: Series, before: str) -> str:
    """Evaluates the points of an alarm by CloudWatch's rules for missing data.

    Args:
        row: the definition of the alarm.
        points: those of its periods and a few before them, oldest first.
        before: the state until now.
    """
    present = [row.is_breached_by(value) for value in points if value is not None][-row.periods :]
    breaching = sum(present)
    missing = row.periods - len(present)
    if breaching >= row.periods_to_alarm:
        return ALARM
    if not missing or row.missing == "notBreaching":
        return OK
    if row.missing == "breaching":
        return ALARM if breaching + missing >= row.periods_to_alarm else OK
    if not present:
        return INSUFFICIENT_DATA if row.missing == "missing" else before
    if not all(present):
        return OK
    # All present points breach the threshold, but they are too few. CloudWatch fires if the oldest is old enough.
    age = next(age for age, value in enumerate(points) if value is not None)
    lasts = len(points) - age >= row.periods_to_alarm
    return ALARM if lasts and row.missing == "missing" else before


def points_of(row: MetricAlarm, store: MetricStore, now: float) -> Series:
    """The points of the alarm's periods and a few before them, oldest first."""
    count = row.periods + _EXTRA_POINTS
    points = _values(row, store, now, count + _BAND_POINTS if row.band else count)
    return _above_band(points[-count:], points[:-count], row.band) if row.band else points


def _values(row: MetricAlarm, store: MetricStore, now: float, count: int) -> Series:
    series = {name: store.series(metric, row.period_seconds, now, count) for name, metric in row.metrics.items()}
    return evaluate(row.expression or next(iter(series)), series, row.period_seconds)


def _above_band(points: Series, before: Series, width: float) -> Series:
    """How far points are above the lower limit of the band of usual values; nothing, where too few are known."""
    known = [value for value in before if value is not None]
    if len(known) < _BAND_POINTS / 2:
        return [None] * len(points)
    lower = fmean(known) - width * pstdev(known)
    return [None if value is None else value - lower for value in points]
