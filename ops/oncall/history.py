"""What happened: which alarms fired and cleared, and which builds were deployed."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ops.oncall.alarms import AlarmState
from ops.oncall.suppression import ALARM

_MAX_KEPT: Final = 1000


@dataclass(kw_only=True)
class Firing:
    """A time in which an alarm fired.

    Attributes:
        name: of the alarm.
        severity: page or ticket.
        means: what was wrong.
        since: start of the period whose data made it fire, in seconds since 1970.
        start: when it fired.
        end: when it cleared; None while it fires.
        reason: the values when they were the farthest beyond the threshold.
        excess: how far that was.
    """

    name: str
    severity: str
    means: str
    since: float
    start: float
    end: float | None = None
    reason: str
    excess: float


@dataclass(frozen=True)
class Deployment:
    """The first start of a process with another build than the one before.

    Attributes:
        at: in seconds since 1970.
        build: its name, such as a commit.
    """

    at: float
    build: str


class History:
    """The last firings and deployments."""

    def __init__(self) -> None:
        self._firings: deque[Firing] = deque(maxlen=_MAX_KEPT)
        self._current: dict[str, Firing] = {}
        self._deployments: deque[Deployment] = deque(maxlen=_MAX_KEPT)
        self._build = ""

    def update(self, states: Iterable[AlarmState], now: float) -> None:
        """Takes the states of all alarms at a time, not before that of the last call."""
        for state in states:
            firing = self._current.get(state.name)
            if state.state == ALARM and state.severity != "part":
                if firing is None:
                    self._begin(state)
                elif state.excess > firing.excess:
                    firing.reason, firing.excess = state.reason, state.excess
            elif firing is not None:
                self._current.pop(state.name).end = now

    def _begin(self, state: AlarmState) -> None:
        firing = Firing(
            name=state.name,
            severity=state.severity,
            means=state.means,
            since=state.since - state.window_seconds,
            start=state.since,
            reason=state.reason,
            excess=state.excess,
        )
        self._firings.append(firing)
        self._current[state.name] = firing

    def start(self, build: str, at: float) -> None:
        """Takes the start of a process with a build. The first one is no deployment: what ran before is not known."""
        if self._build not in {"", build}:
            self._deployments.append(Deployment(at, build))
        self._build = build

    def firings(self, start: float, end: float) -> list[Firing]:
        """Those between two times, the newest first; of those that began together, the pages."""
        found = [one for one in self._firings if one.start <= end and (one.end is None or one.end >= start)]
        return sorted(found, key=lambda one: (-one.start, one.severity))

    def deployments(self, start: float, end: float) -> list[Deployment]:
        """Those between two times, the newest first."""
        return [one for one in reversed(self._deployments) if start <= one.at <= end]
