"""The network to the database is slow, resets connections during responses, and half closes them."""

import asyncio
from collections.abc import Callable
from typing import Final

from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.timeline import FAILED, REFUSED

_LATENCY_SECONDS: Final = 0.3  # in each direction: twice around the earth
_WARM_UP_SECONDS: Final = 2.0  # a new connection and its first statement take three round trips
_DRIP_BYTES_PER_SECOND: Final = 100  # the response to a batch takes longer than the statement time-out
_CUT_BYTES_PER_SECOND: Final = 4000  # a response takes about 0.1 s, so that a reset falls into it


@drill("database-slow", "the database's network is slow: high latency, then low throughput")
async def slow_network(harness: Harness) -> None:
    """Late requests are still served. Requests that would be too late are refused in time."""
    async with harness.service(), harness.callers():
        await asyncio.sleep(1)
        slow = harness.timeline.mark("latency of 0.3 s in each direction")
        harness.database_proxy.latency_seconds = _LATENCY_SECONDS
        await asyncio.sleep(harness.pick(20, 4))
        refused = harness.timeline.count(REFUSED, slow + _WARM_UP_SECONDS)
        harness.claim("refused because of latency, once all connections are open", refused, at_most=0)
        await _heal(harness, "after high latency")

        harness.timeline.mark(f"{_DRIP_BYTES_PER_SECOND} bytes per second")
        harness.database_proxy.bytes_per_second = _DRIP_BYTES_PER_SECOND
        await asyncio.sleep(harness.pick(20, 4))
        await _heal(harness, "after low throughput")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


@drill("database-cuts", "connections to the database are reset during responses and half closed, again and again")
async def cut_connections(harness: Harness) -> None:
    """An interrupted add may be stored or not. Callers repeat it with the same key, and it is stored once."""
    proxy = harness.database_proxy
    async with harness.service(), harness.callers():
        for text, cut in (("reset", proxy.reset), ("half closed", proxy.half_close)):
            await asyncio.sleep(1)
            harness.timeline.mark(f"connections are {text}")
            proxy.bytes_per_second = _CUT_BYTES_PER_SECOND
            await _cut(cut, int(harness.pick(100, 10)))
            await _heal(harness, f"after connections were {text}")
    harness.claim("requests refused", harness.timeline.count(REFUSED), at_least=1)
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


async def _cut(cut: Callable[[], None], times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0.2)
        cut()


async def _heal(harness: Harness, cause: str) -> None:
    harness.database_proxy.heal()
    recovered_at = harness.timeline.mark("network recovered")
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    harness.claim_recovery(cause, recovered_at, at_most=RECOVERY_SECONDS)
