"""When composite alarms notify: as CloudWatch does, with suppressors.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create_Composite_Alarm_Suppression.html
"""

from collections.abc import Mapping
from typing import Final

from ops.cloudwatch.rows import Alarms

OK: Final = "OK"
ALARM: Final = "ALARM"
INSUFFICIENT_DATA: Final = "INSUFFICIENT_DATA"


class Notifications:
    """Keeps the state of which each alarm has last notified someone.

    An alarm whose suppressor fires is silent; so it is for a while after the suppressor, and while it waits for it.
    What it would have said meanwhile is said at the end, if it is still true.

    Args:
        alarms: their definitions.
    """

    def __init__(self, alarms: Alarms) -> None:
        self._suppressors = {row.name: row.suppressor for row in alarms.composite.values() if row.suppressor}
        self._times = alarms.suppression
        self._notified: dict[str, str] = {}
        self._fired: dict[str, float] = {}  # when each suppressor fired last, in seconds since 1970

    def update(self, states: Mapping[str, tuple[str, float]], now: float) -> dict[str, tuple[str, str]]:
        """Takes the current states, and gives for each alarm the state that it notified of last, and why it is silent.

        Args:
            states: of all alarms, with the start of each in seconds since 1970.
            now: in seconds since 1970, not before that of the last call.

        Returns:
            By the name of the alarm: OK, ALARM, or INSUFFICIENT_DATA before its first notification; a reason, or "".
        """
        for suppressor in self._suppressors.values():
            if states[suppressor][0] == ALARM:
                self._fired[suppressor] = now
        held = {name: self._held(name, state, now - since, now) for name, (state, since) in states.items()}
        for name, (state, _) in states.items():
            if not held[name] and state != INSUFFICIENT_DATA:
                self._notified[name] = state
        return {name: (self._notified.get(name, INSUFFICIENT_DATA), held[name]) for name in states}

    def _held(self, name: str, state: str, lasts: float, now: float) -> str:
        suppressor = self._suppressors.get(name, "")
        if not suppressor:
            return ""
        fired = self._fired.get(suppressor)
        if fired is not None and now - fired < self._times.extension_seconds:
            return f"silent, since {suppressor} fires" if fired == now else f"silent for a while after {suppressor}"
        is_new = state == ALARM and self._notified.get(name) != ALARM
        return f"waits for {suppressor}" if is_new and lasts < self._times.wait_seconds else ""
