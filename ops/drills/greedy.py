"""One caller sends as much as it can, beside many who do not."""

import asyncio
from dataclasses import dataclass
from statistics import median
from typing import Final

import psutil

from ops.bench import wrk
from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import SEEDED, Harness
from ops.drills.timeline import SERVED

_CONNECTIONS: Final = 2000
_OTHERS: Final = [f"127.0.1.{number}" for number in range(1, 21)]  # their addresses
_PAUSE_SECONDS: Final = 0.018  # and a response in 2 ms: each sends 50 requests a second
_MIN_USUAL_SECONDS: Final = 0.005  # below it, times are noise of the machine
# The greedy caller runs on another machine, so it only gets the CPU that others leave.
_NICE: Final = ("nice", "-n", "19")
_UNLIMITED: Final = "1000000"


@dataclass(frozen=True)
class _Period:
    """What happened in one part of the drill.

    Attributes:
        p99_seconds: the 99th percentile of the other callers' latency.
        per_cpu_second: the requests of all callers that were served, per second of the service's CPU.
    """

    p99_seconds: float
    per_cpu_second: float


@drill("greedy-caller", f"one caller keeps {_CONNECTIONS:,} connections busy beside {len(_OTHERS)} others", wrk.missing)
async def greed(harness: Harness) -> None:
    """The others hardly notice. In the control, which handles all requests as they arrive, they wait behind it."""
    seconds = int(harness.pick(10, 4))
    alone, turns, arrival = list[_Period](), list[_Period](), list[_Period]()
    async with (
        harness.instance(WORKERS="1") as service,
        harness.instance(WORKERS="1", MAX_CONCURRENT=_UNLIMITED) as control,
    ):
        # The three take turns, so that other work of the machine affects all of them.
        for _ in range(int(harness.pick(5, 1))):
            alone.append(await _measure(harness, service, "without the greedy caller", seconds, is_greedy=False))
            turns.append(await _measure(harness, service, "with it", seconds))
            arrival.append(await _measure(harness, control, "with it, in order of arrival", seconds))
    usual = max(median(each.p99_seconds for each in alone), _MIN_USUAL_SECONDS)
    p99, late = (median(each.p99_seconds for each in periods) for periods in (turns, arrival))
    served, possible = (median(each.per_cpu_second for each in periods) for periods in (turns, arrival))
    harness.claim("others' p99 beside the greedy caller, relative to without it", p99 / usual, at_most=3)
    harness.claim("others' p99 in order of arrival, relative to in turn", late / p99, at_least=2)
    harness.claim("served per second of CPU, relative to in order of arrival", served / possible, at_least=0.95)
    harness.claim("others refused or failed", harness.timeline.not_served(), at_most=0)


async def _measure(harness: Harness, service: Service, what: str, seconds: int, *, is_greedy: bool = True) -> _Period:
    async with harness.callers(len(_OTHERS), _PAUSE_SECONDS, port=service.port, sources=_OTHERS):
        await asyncio.sleep(0.5)
        cpu_seconds = _cpu_seconds(service)
        started = harness.timeline.mark(f"{len(_OTHERS)} callers {what}")
        greedy = 0
        if is_greedy:
            url = f"http://127.0.0.1:{service.port}"
            load = await asyncio.to_thread(wrk.run, url, "get", SEEDED, _CONNECTIONS, seconds, before=_NICE)
            greedy = load.requests - load.errors
        else:
            await asyncio.sleep(seconds)
        ended = harness.timeline.now()
        cpu_seconds = _cpu_seconds(service) - cpu_seconds
    others = harness.timeline.count(SERVED, started, ended)
    return _Period(harness.timeline.percentile(99, started, ended), (greedy + others) / cpu_seconds)


def _cpu_seconds(service: Service) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return float(times.user + times.system)
