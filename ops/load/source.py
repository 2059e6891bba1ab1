"""Sends requests at their scheduled times, whatever happens to earlier ones. Only Locust's processes import this."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.pool import Group

from ops.load.arrivals import scheduled_times
from ops.load.client import Api, RequestFailed
from ops.load.measurements import TIMEOUT_SECONDS, Recorder
from ops.load.scenarios import Scenario

_REPORT_SECONDS: Final = 1.0
_MAX_BEHIND_SECONDS: Final = 1.0  # requests that are still unsent this long after the end of the run are not sent

Report = Callable[[dict[str, Any]], None]
OnRequest = Callable[[str, float, RequestFailed | None], None]


class Source:
    """One process's share of the load.

    Args:
        api: sends the requests.
        clients: ids for get().
        report: receives the new observations, once per second and at the end.
        on_request: is called at the end of each request with the endpoint, the milliseconds since the request's
            scheduled time, and the failure, if any.
    """

    def __init__(self, api: Api, clients: list[int], report: Report, on_request: OnRequest) -> None:
        self._clients = clients
        self._report = report
        self._on_request = on_request
        self._endpoints = {"get": api.get, "add": api.add, "getall": api.getall}
        self._recorder = Recorder()
        self._start = time.perf_counter()

    def run(self, scenario: Scenario, rate: float, seconds: int, rng: random.Random) -> None:
        """Sends all requests, and waits until the last one has ended."""
        self._start = time.perf_counter()
        reporting = gevent.spawn(self._report_regularly, seconds)
        in_progress = Group()
        endpoints, shares = list(scenario.shares), list(scenario.shares.values())
        for scheduled in scheduled_times(rate, seconds, scenario.shape, rng):
            # Sleeps even when late: only then can other greenlets read responses.
            gevent.sleep(max(scheduled - self._elapsed(), 0))
            if self._elapsed() > seconds + _MAX_BEHIND_SECONDS:
                break
            (endpoint,) = rng.choices(endpoints, shares)
            in_progress.spawn(self._send, endpoint, rng.choice(self._clients), scheduled)
        in_progress.join()
        reporting.kill()
        self._report(self._recorder.take())

    def _send(self, endpoint: str, client: int, scheduled: float) -> None:
        late = self._elapsed() - scheduled
        self._recorder.sent(scheduled, late)
        failure = None
        try:
            self._endpoints[endpoint](client, TIMEOUT_SECONDS - late)
        except RequestFailed as error:
            failure = error
        latency = self._elapsed() - scheduled
        self._recorder.ended(scheduled, endpoint, str(failure or ""), latency)
        self._on_request(endpoint, latency * 1000, failure)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _report_regularly(self, seconds: int) -> None:
        used, at = time.process_time(), self._elapsed()
        while True:
            gevent.sleep(_REPORT_SECONDS)
            used_now, now = time.process_time(), self._elapsed()
            if at < seconds:
                self._recorder.used(int(at), (used_now - used) / (now - at))
            used, at = used_now, now
            self._report(self._recorder.take())
