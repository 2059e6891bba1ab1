"""The database is killed, stopped, unreachable, read-only, full."""

import asyncio
import contextlib

import psutil

from ops.drills.drill import DEADLINE_SECONDS, drill
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED

_RECOVERY_SECONDS = 1.0


@drill("database-killed", "PostgreSQL is killed, stopped or restarted, again and again")
async def kill_database(stage: Stage) -> None:
    """SIGKILL of all its processes, a crash and a proper stop take turns."""
    first: list[float] = []
    last: list[float] = []
    async with stage.served(), stage.calling():
        for number in range(int(stage.pick(20, 4))):
            await asyncio.sleep(1)
            if number % 3 == 0:
                stage.timeline.mark("PostgreSQL killed")
                _kill(stage)
            elif number % 3 == 1:
                stage.timeline.mark("PostgreSQL crashes")
                await asyncio.to_thread(stage.postgres.kill)
            else:
                stage.timeline.mark("PostgreSQL stops")
                await asyncio.to_thread(stage.postgres.stop)
            await asyncio.sleep(1)
            back = await stage.start_postgres()
            await asyncio.sleep(1.5)
            first.append(stage.timeline.served_again_after(back))
            last.append(stage.timeline.last_turned_away_after(back))
    stage.claim("served again after its return, at worst", max(first), most=_RECOVERY_SECONDS, unit="s")
    stage.claim("nobody turned away any more after its return, at worst", max(last), most=_RECOVERY_SECONDS, unit="s")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


def _kill(stage: Stage) -> None:
    process, stage.postgres.process = stage.postgres.process, None
    assert process is not None
    backends = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for backend in backends:
        with contextlib.suppress(psutil.NoSuchProcess):  # it saw that its parent is gone
            backend.kill()
    process.wait()
    psutil.wait_procs(backends)


@drill("database-black-hole", "the database's network swallows everything")
async def black_hole(stage: Stage) -> None:
    """No packet comes back, and no reset either."""
    async with stage.served(), stage.calling():
        await asyncio.sleep(1)
        stage.timeline.mark("black hole")
        stage.to_database.black_hole()
        await asyncio.sleep(stage.pick(30, 8))
        back = stage.timeline.mark("healed")
        stage.to_database.heal()
        await asyncio.sleep(DEADLINE_SECONDS + 1)
        stage.claim("served again", stage.timeline.served_again_after(back), most=DEADLINE_SECONDS, unit="s")
        stage.claim(
            "nobody turned away any more", stage.timeline.last_turned_away_after(back), most=DEADLINE_SECONDS, unit="s"
        )
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)
