"""One caller sends as much as it can, beside many who do not."""

import asyncio
from statistics import median
from typing import Final

from ops.bench import wrk
from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import SEEDED, Harness

_CONNECTIONS: Final = 2000
_OTHERS: Final = [f"127.0.1.{number}" for number in range(1, 21)]  # their addresses
_PAUSE_SECONDS: Final = 0.018  # and a response in 2 ms: each sends 50 requests a second
_MIN_USUAL_SECONDS: Final = 0.01  # below it, times are noise of the machine; it is a tenth of the objective
# The greedy caller runs on another machine, so it only gets the CPU that others leave.
_NICE: Final = ("nice", "-n", "19")
_CONNECT_SECONDS: Final = 1  # its connections all open at once; what counts is how it is afterwards
_UNLIMITED: Final = "1000000"


@drill("greedy-caller", f"one caller keeps {_CONNECTIONS:,} connections busy beside {len(_OTHERS)} others", wrk.missing)
async def greed(harness: Harness) -> None:
    """The others hardly notice. In the control, which handles all requests as they arrive, they wait behind it."""
    seconds = _CONNECT_SECONDS + int(harness.pick(10, 3))
    alone, in_turn, as_they_arrive = list[float](), list[float](), list[float]()
    async with (
        harness.instance(WORKERS="1") as service,
        harness.instance(WORKERS="1", MAX_CONCURRENT=_UNLIMITED) as control,
    ):
        # The three take turns, so that other work of the machine affects all of them.
        for _ in range(int(harness.pick(5, 1))):
            alone.append(await _p99(harness, service, "alone", seconds, is_greedy=False))
            in_turn.append(await _p99(harness, service, "beside the greedy one, in turn", seconds))
            as_they_arrive.append(await _p99(harness, control, "beside it, as requests arrive", seconds))
    ratio = median(in_turn) / max(median(alone), _MIN_USUAL_SECONDS)
    harness.claim("others' p99 beside the greedy caller, relative to without it", ratio, at_most=harness.pick(6, 20))
    relative = median(as_they_arrive) / median(in_turn)
    harness.claim("the control's, relative to that", relative, at_least=harness.pick(1.5, 1.2))
    harness.claim("others' requests refused or failed", harness.timeline.not_served(), at_most=0)


async def _p99(harness: Harness, service: Service, what: str, seconds: int, *, is_greedy: bool = True) -> float:
    """The 99th percentile of the others' latency, in seconds."""
    async with harness.callers(len(_OTHERS), _PAUSE_SECONDS, port=service.port, sources=_OTHERS):
        await asyncio.sleep(0.5)
        connected = harness.timeline.mark(f"{len(_OTHERS)} callers {what}") + _CONNECT_SECONDS
        if is_greedy:
            url = f"http://127.0.0.1:{service.port}"
            await asyncio.to_thread(wrk.run, url, "get", SEEDED, _CONNECTIONS, seconds, before=_NICE)
        else:
            await asyncio.sleep(seconds)
        return harness.timeline.percentile(99, connected, harness.timeline.now())
