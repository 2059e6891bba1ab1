"""Sends requests when they are due, whatever becomes of those before them; for Locust's processes only."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.pool import Group

from ops.load.arrivals import due_times
from ops.load.client import TIMEOUT_SECONDS, Api, Failed
from ops.load.measured import Recorder
from ops.load.scenarios import Scenario

_TELL_SECONDS: Final = 1.0
_BEHIND_SECONDS: Final = 1.0  # what is still to be sent so long after the end of the run is not sent at all

Report = Callable[[dict[str, Any]], None]
Told = Callable[[str, float, Failed | None], None]


class Source:
    """A process's share of the load.

    Args:
        api: whom to ask.
        clients: ids to ask for.
        report: takes what was seen, once in a second and at the end.
        told: takes each request as it ends: the endpoint, milliseconds from when it was due, and why it failed.
    """

    def __init__(self, api: Api, clients: list[int], report: Report, told: Told) -> None:
        self._clients = clients
        self._report = report
        self._told = told
        self._asks = {"get": api.get, "add": api.add, "getall": api.getall}
        self._recorder = Recorder()
        self._start = time.perf_counter()

    def run(self, scenario: Scenario, rate: float, seconds: int, draw: random.Random) -> None:
        """Sends all of it, and waits until the last request has ended."""
        self._start = time.perf_counter()
        telling = gevent.spawn(self._tell, seconds)
        under_way = Group()
        endpoints, shares = list(scenario.parts), list(scenario.parts.values())
        for due in due_times(rate, seconds, scenario.shape, draw):
            # Also where nothing is to be waited for: answers have to be read.
            gevent.sleep(max(due - self._elapsed(), 0))
            if self._elapsed() > seconds + _BEHIND_SECONDS:
                break
            (endpoint,) = draw.choices(endpoints, shares)
            under_way.spawn(self._send, endpoint, draw.choice(self._clients), due)
        under_way.join()
        telling.kill()
        self._report(self._recorder.take())

    def _send(self, endpoint: str, client: int, due: float) -> None:
        late = self._elapsed() - due
        self._recorder.sent(due, late)
        failed = None
        try:
            self._asks[endpoint](client, TIMEOUT_SECONDS - late)
        except Failed as error:
            failed = error
        took = self._elapsed() - due
        self._recorder.ended(due, endpoint, str(failed or ""), took)
        self._told(endpoint, took * 1000, failed)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _tell(self, seconds: int) -> None:
        used, at = time.process_time(), self._elapsed()
        while True:
            gevent.sleep(_TELL_SECONDS)
            used_now, now = time.process_time(), self._elapsed()
            if at < seconds:
                self._recorder.used(int(at), (used_now - used) / (now - at))
            used, at = used_now, now
            self._report(self._recorder.take())
