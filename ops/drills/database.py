"""The database is killed, crashes, is stopped and started again, and its host is replaced."""

import asyncio
import contextlib
from typing import Final

import psutil

from ops.drills.drill import drill
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings

RECOVERY_SECONDS: Final = 1.0
_SHORT_HOLE_SECONDS: Final = 1.0  # less than a statement may take: when it ends, the service has given up on nothing


@drill("database-killed", "PostgreSQL is killed, crashes or is stopped, again and again")
async def kill_database(stage: Stage) -> None:
    """The three take turns; every other time it is started again at once."""
    ways = (("killed", _kill), ("made to crash", EmbeddedPostgres.kill), ("stopped", EmbeddedPostgres.stop))
    first: list[float] = []
    last: list[float] = []
    async with stage.served(), stage.calling():
        for number in range(int(stage.pick(20, 3))):
            await asyncio.sleep(0.5)
            words, end = ways[number % len(ways)]
            stage.timeline.mark(f"PostgreSQL is {words}")
            await asyncio.to_thread(end, stage.postgres)
            await asyncio.sleep(number % 2)
            back = await stage.start_postgres()
            await asyncio.sleep(1.5 * RECOVERY_SECONDS)
            first.append(stage.timeline.served_again_after(back))
            last.append(stage.timeline.last_turned_away_after(back))
    stage.claim("first served again after its return, at worst", max(first), most=RECOVERY_SECONDS, unit="s")
    stage.claim("last turned away after its return, at worst", max(last), most=RECOVERY_SECONDS, unit="s")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


def _kill(postgres: EmbeddedPostgres) -> None:
    """SIGKILL for all of its processes, which nobody stops in order then."""
    process, postgres.process = postgres.process, None
    assert process is not None
    backends = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for backend in backends:
        with contextlib.suppress(psutil.NoSuchProcess):  # it saw that its parent is gone
            backend.kill()
    process.wait()
    psutil.wait_procs(backends)


@drill("database-black-hole", "the database's network swallows everything, and its host is replaced meanwhile")
async def black_hole(stage: Stage) -> None:
    """No packet comes back, and no reset either, until the same host is there again, or another one.

    The other host knows no connection of before. It resets those that are used; or their packets get lost on the way,
    and who waits for an answer waits in vain: as long as a statement's answer is waited for, and no longer.
    """
    async with stage.served(), stage.calling():
        await _swallow(stage, stage.pick(30, 4))
        back = await _heal(stage, "the same host is back")
        stage.claim_recovery("the same host", back, most=RECOVERY_SECONDS)

        await _swallow(stage, _SHORT_HOLE_SECONDS)
        stage.to_database.forget(resets=True)
        back = await _heal(stage, "another host is there, and resets old connections")
        stage.claim_recovery("another host", back, most=RECOVERY_SECONDS)

        await _swallow(stage, _SHORT_HOLE_SECONDS)
        stage.to_database.forget(resets=False)
        back = await _heal(stage, "another host is there, and never hears of old connections")
        await asyncio.sleep(DatabaseSettings().command_seconds)
        most = DatabaseSettings().command_seconds - _SHORT_HOLE_SECONDS + RECOVERY_SECONDS
        stage.claim_recovery("old connections lead nowhere", back, most=most)
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


async def _swallow(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(1)
    stage.timeline.mark("black hole")
    stage.to_database.black_hole()
    await asyncio.sleep(seconds)


async def _heal(stage: Stage, words: str) -> float:
    stage.to_database.heal()
    back = stage.timeline.mark(words)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    return back
