"""The network to the database is slow, cuts answers short, and ends connections half-way."""

import asyncio
from collections.abc import Callable
from typing import Final

from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED

_LATENCY_SECONDS: Final = 0.3  # each way: twice around the earth
_WARM_UP_SECONDS: Final = 2.0  # a connection and its first statement take three of those ways and back
_DRIP_BYTES_PER_SECOND: Final = 100  # a batch's answer takes longer than a statement may
_CUT_BYTES_PER_SECOND: Final = 4000  # some 0.1 s for an answer, in whose middle a cut falls then


@drill("database-slow", "the database's network is slow: it takes long, or little passes")
async def slow_network(stage: Stage) -> None:
    """What is late is still answered; what is too late is refused in time."""
    async with stage.served(), stage.calling():
        await asyncio.sleep(1)
        late = stage.timeline.mark("0.3 s each way")
        stage.to_database.latency_seconds = _LATENCY_SECONDS
        await asyncio.sleep(stage.pick(20, 4))
        turned_away = stage.timeline.count(REFUSED, late + _WARM_UP_SECONDS)
        stage.claim("turned away for latency, once all connections were made", turned_away, most=0)
        await _heal(stage, "after latency")

        stage.timeline.mark("slow drip")
        stage.to_database.bytes_per_second = _DRIP_BYTES_PER_SECOND
        await asyncio.sleep(stage.pick(20, 4))
        await _heal(stage, "after a drip")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


@drill("database-cuts", "connections to the database are reset in mid-answer, and closed half-way, again and again")
async def cut_connections(stage: Stage) -> None:
    """Whether an add that was cut off is stored is unknown, and asked anew with the same key: it is stored once."""
    async with stage.served(), stage.calling():
        for words, cut in (("reset", stage.to_database.reset), ("half closed", stage.to_database.half_close)):
            await asyncio.sleep(1)
            stage.timeline.mark(f"connections are {words}")
            stage.to_database.bytes_per_second = _CUT_BYTES_PER_SECOND
            await _cut(cut, int(stage.pick(100, 10)))
            await _heal(stage, f"after they were {words}")
    stage.claim_least("turned away by a cut", stage.timeline.count(REFUSED), least=1)
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


async def _cut(cut: Callable[[], None], times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0.2)
        cut()


async def _heal(stage: Stage, words: str) -> None:
    stage.to_database.heal()
    back = stage.timeline.mark("healed")
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    stage.claim_recovery(words, back, most=RECOVERY_SECONDS)
