"""More is asked of the service than it, or its database, can do."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ops.bench import wrk
from ops.drills import flood
from ops.drills.drill import drill
from ops.drills.memory import watching
from ops.drills.stage import SEEDED, Stage
from ops.drills.timeline import REFUSED
from svc.http.problems import RETRY_AFTER_SECONDS

_TIMES: Final = 10
_CONNECTIONS: Final = 2000
_ADD_CONNECTIONS: Final = 4  # to the database: two workers, two each
_MEMORY_MB: Final = 64  # that a worker may take for it


def _slow(seconds: float) -> str:
    """Makes each add keep its connection to the database busy for so long, as a troubled disk or a small machine would.

    What the service carries is then the database's doing, and far less than what it can turn away.
    """
    return f"""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION wait();
    """


@drill("overload", "ten times the adds that the database can carry are asked for")
async def overload(stage: Stage) -> None:
    """The excess is turned away at once, and as many are served as without it."""
    add_seconds = 0.03
    carries = _ADD_CONNECTIONS / add_seconds
    seconds = stage.pick(60, 6)
    async with stage.owning() as owner, stage.served() as service, stage.calling(4):
        await owner.execute(_slow(add_seconds))
        await asyncio.sleep(1)
        usual = stage.timeline.percentile(50, 0, stage.timeline.now())
        await flood.adds(service.port, 2, 2 * carries, _CONNECTIONS)  # its batches find their size
        stage.timeline.mark("twice as much as the database carries")
        carried = await flood.adds(service.port, seconds / 2, 2 * carries, _CONNECTIONS)
        stage.timeline.mark(f"{_TIMES} times as much")
        async with watching(service) as memory:
            flooded = await flood.adds(service.port, seconds, _TIMES * carries, _CONNECTIONS)
        over = stage.timeline.mark("no more of it")
        await asyncio.sleep(4)
    stage.claim_least("asked, of what is carried", flooded.sent / seconds / carried.rate("201"), least=0.9 * _TIMES)
    stage.claim_least("served, of what is carried", flooded.rate("201") / carried.rate("201"), least=0.9)
    stage.claim("time to turn one away, median", flooded.percentile(50, "503"), most=10, unit="ms")
    stage.claim("time to serve one, 99 %", flooded.percentile(99, "201"), most=3000, unit="ms")
    stage.claim("answers that are neither", flooded.rate() - flooded.rate("201", "503"), most=0, unit="/s")
    stage.claim("memory that it took, of the larger worker", max(memory) - memory[0], most=_MEMORY_MB, unit="MB")
    stage.claim("the last is turned away afterwards", stage.timeline.last_turned_away_after(over), most=2, unit="s")
    again = stage.timeline.percentile(50, over + 2, over + 4)
    stage.claim("time to serve one 2 s afterwards, median, of before", again / usual, most=2)


@drill("crowd", "ten times as many callers come as keep the service busy", wrk.lacks)
async def crowd(stage: Stage) -> None:
    """Each has one request under way, and waits its turn: none is turned away while turns come soon."""
    busy, seconds, rounds = 64, int(stage.pick(10, 2)), 3  # in turns, so that the machine's other work strikes both
    peak, crowded = list[wrk.Load](), list[wrk.Load]()
    async with stage.served() as service, stage.calling(4):
        url = f"http://127.0.0.1:{service.port}"
        async with watching(service) as memory:
            for _ in range(rounds):
                stage.timeline.mark(f"{busy} callers, each as fast as it is answered")
                peak.append(await asyncio.to_thread(wrk.run, url, "get", SEEDED, busy, seconds))
                stage.timeline.mark(f"{_TIMES * busy} callers")
                crowded.append(await asyncio.to_thread(wrk.run, url, "get", SEEDED, _TIMES * busy, seconds))
        over = stage.timeline.mark("no more of them")
        await asyncio.sleep(2)
    stage.claim_least("served, of what is at its busiest", _rate(crowded) / _rate(peak), least=0.9)
    stage.claim("requests that failed", sum(each.errors for each in crowded), most=0)
    stage.claim("time to serve one, 99 %", max(each.p99_ms for each in crowded), most=1000, unit="ms")
    stage.claim("memory that it took, of the larger worker", max(memory) - memory[0], most=_MEMORY_MB, unit="MB")
    stage.claim("the last is turned away afterwards", stage.timeline.last_turned_away_after(over), most=2, unit="s")


def _rate(loads: Sequence[wrk.Load]) -> float:
    return sum(each.requests for each in loads) / sum(each.seconds for each in loads)


@drill("retry-storm", "after an outage, all callers come back at the same moments")
async def retry_storm(stage: Stage) -> None:
    """They obey Retry-After to the letter, and so keep step; they ask for three quarters of what is carried."""
    add_seconds = 0.01
    pause_seconds = 0.4  # after each answer, of an add and two look-ups
    callers = int(0.75 * _ADD_CONNECTIONS / add_seconds * 3 * pause_seconds)
    async with stage.owning() as owner, stage.served():
        await owner.execute(_slow(add_seconds))
        async with stage.calling(callers, pause_seconds, retry_seconds=RETRY_AFTER_SECONDS):
            await asyncio.sleep(2)
            await asyncio.to_thread(stage.postgres.stop)
            stage.timeline.mark("PostgreSQL stops")
            await asyncio.sleep(stage.pick(20, 3))
            back = await stage.start_postgres()
            await asyncio.sleep(stage.pick(15, 5))
    stage.claim("served again after its return", stage.timeline.served_again_after(back), most=1.2, unit="s")
    stage.claim(
        "the last is turned away after its return", stage.timeline.last_turned_away_after(back), most=5, unit="s"
    )
    stage.claim_least("callers turned away meanwhile", stage.timeline.count(REFUSED), least=callers)
