"""Callers request more than the service or its database can handle."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ops.bench import wrk
from ops.drills import flood
from ops.drills.drill import drill
from ops.drills.harness import SEEDED, Harness
from ops.drills.memory import memory_samples
from ops.drills.timeline import REFUSED
from svc.http.problems import RETRY_AFTER_SECONDS
from svc.settings import Settings

_TIMES: Final = 10
_CONNECTIONS: Final = 2000
_ADD_CONNECTIONS: Final = 4  # to the database: two workers, two each
_REFUSED_MS: Final = 1000 * Settings().slot_seconds + 100  # the wait for a slot, on a busy machine
_MEMORY_MB: Final = 64  # that a worker may need for it


def _slow(seconds: float) -> str:
    """Returns SQL that makes each add occupy its database connection for so long, like a slow disk would.

    The database then limits the throughput, far below the rate at which the service can refuse requests.
    """
    return f"""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION wait();
    """


@drill("overload", "callers send ten times the adds that the database can handle")
async def overload(harness: Harness) -> None:
    """The service refuses the excess after a limited wait and serves as many adds as without it."""
    add_seconds = 0.03
    capacity = _ADD_CONNECTIONS / add_seconds
    seconds = harness.pick(60, 6)
    async with harness.owner() as owner, harness.service() as service, harness.callers(4):
        await owner.execute(_slow(add_seconds))
        await asyncio.sleep(1)
        usual = harness.timeline.percentile(50, 0, harness.timeline.now())
        await flood.adds(service.port, 2, 2 * capacity, _CONNECTIONS)  # the batch size adapts
        harness.timeline.mark("twice the database's capacity")
        peak = await flood.adds(service.port, seconds / 2, 2 * capacity, _CONNECTIONS)
        harness.timeline.mark(f"{_TIMES} times the capacity")
        async with memory_samples(service) as memory:
            flooded = await flood.adds(service.port, seconds, _TIMES * capacity, _CONNECTIONS)
        over = harness.timeline.mark("the overload ends")
        await asyncio.sleep(4)
    harness.claim("sent, relative to capacity", flooded.sent / seconds / capacity, at_least=0.9 * _TIMES)
    limit = harness.pick(0.8, 0.7)  # in the short form, to find the best size of batches takes a part of the time
    harness.claim("served at twice the capacity, relative to it", peak.rate("201") / capacity, at_least=limit)
    harness.claim("served, relative to that", flooded.rate("201") / peak.rate("201"), at_least=0.9)
    harness.claim("time to refuse a request, median", flooded.percentile(50, "503"), at_most=_REFUSED_MS, unit="ms")
    harness.claim("time to serve a request, p99", flooded.percentile(99, "201"), at_most=4000, unit="ms")
    harness.claim("responses other than 201 and 503", flooded.rate() - flooded.rate("201", "503"), at_most=0, unit="/s")
    harness.claim("memory growth of the larger worker", max(memory) - memory[0], at_most=_MEMORY_MB, unit="MB")
    harness.claim("last not served after it", harness.timeline.last_not_served_after(over), at_most=2, unit="s")
    afterwards = harness.timeline.percentile(50, over + 2, over + 4)
    harness.claim("median time to serve 2 s after it, relative to before it", afterwards / usual, at_most=2)


@drill("crowd", "ten times as many callers connect as keep the service busy", wrk.missing)
async def crowd(harness: Harness) -> None:
    """Each has one request in progress and waits for its response. None is refused while the queue moves fast."""
    # Busy and crowded take turns, so that other work of the machine affects both.
    busy, seconds, rounds = 64, int(harness.pick(10, 2)), 3
    peak, crowded = list[wrk.Load](), list[wrk.Load]()
    async with harness.service() as service, harness.callers(4):
        url = f"http://127.0.0.1:{service.port}"
        async with memory_samples(service) as memory:
            for _ in range(rounds):
                harness.timeline.mark(f"{busy} callers, each as fast as the responses")
                peak.append(await asyncio.to_thread(wrk.run, url, "get", SEEDED, busy, seconds))
                harness.timeline.mark(f"{_TIMES * busy} callers")
                crowded.append(await asyncio.to_thread(wrk.run, url, "get", SEEDED, _TIMES * busy, seconds))
        over = harness.timeline.mark("the crowd leaves")
        await asyncio.sleep(2)
    # In the short form, to open so many connections takes a large part of the time, and a machine's speed may change
    # from turn to turn.
    limit = harness.pick(0.9, 0.5)
    harness.claim("served, relative to the busy service", _rate(crowded) / _rate(peak), at_least=limit)
    harness.claim("requests that failed", sum(each.errors for each in crowded), at_most=0)
    limit = harness.on_any_machine(1000)
    harness.claim("time to serve a request, p99", max(each.p99_ms for each in crowded), at_most=limit, unit="ms")
    harness.claim("memory growth of the larger worker", max(memory) - memory[0], at_most=_MEMORY_MB, unit="MB")
    harness.claim("last not served after it", harness.timeline.last_not_served_after(over), at_most=2, unit="s")


def _rate(loads: Sequence[wrk.Load]) -> float:
    return sum(each.requests for each in loads) / sum(each.seconds for each in loads)


@drill("retry-storm", "after an outage, all callers retry at the same moments")
async def retry_storm(harness: Harness) -> None:
    """They wait for exactly Retry-After and so stay in step. They send three quarters of the capacity."""
    add_seconds = 0.01
    pause_seconds = 0.4  # after each response, of an add and two gets
    count = int(0.75 * _ADD_CONNECTIONS / add_seconds * 3 * pause_seconds)
    async with harness.owner() as owner, harness.service():
        await owner.execute(_slow(add_seconds))
        async with harness.callers(count, pause_seconds, retry_seconds=RETRY_AFTER_SECONDS):
            await asyncio.sleep(2)
            await asyncio.to_thread(harness.postgres.stop)
            harness.timeline.mark("PostgreSQL stops")
            await asyncio.sleep(harness.pick(20, 3))
            recovered_at = await harness.start_postgres()
            await asyncio.sleep(harness.pick(15, 5))
    first, last = harness.timeline.first_served_after, harness.timeline.last_not_served_after
    harness.claim("first served after recovery", first(recovered_at), at_most=1.2, unit="s")
    harness.claim("last not served after recovery", last(recovered_at), at_most=5, unit="s")
    harness.claim("requests refused during the outage", harness.timeline.count(REFUSED), at_least=count)
