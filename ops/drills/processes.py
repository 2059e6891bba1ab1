"""Worker processes are killed: one of two, or all at once."""

import asyncio
import contextlib

import psutil

from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import WORKERS, Harness
from ops.drills.timeline import FAILED, REFUSED

_POLL_SECONDS = 0.01
_START_SECONDS = 1.5  # a worker starts in 0.2 s, much slower on a busy machine
_DELAY_SECONDS = 1.0  # the replacement of a short-lived worker waits for so long first


@drill("worker-killed", "one worker of two is killed, again and again")
async def kill_worker(harness: Harness) -> None:
    """SIGKILL under load. Callers connect without a proxy, so that each connection belongs to a known worker."""
    connections = 0
    elsewhere = 0
    gaps: list[float] = []
    async with harness.service() as service, harness.callers(count=32, pause_seconds=0.01, port=service.port):
        await asyncio.sleep(1)
        for number in range(int(harness.pick(10, 3))):
            at = harness.timeline.mark("a worker is killed")
            lost = kill(service, service.workers()[number % WORKERS])
            await wait_until_all_listen(service)
            gaps.append(harness.timeline.mark("its replacement listens") - at)
            await asyncio.sleep(0.5)
            connections += len(lost)
            failed = [each for each in harness.timeline.requests if each.kind == FAILED and each.ended_at > at]
            elsewhere += sum(each.connection not in lost for each in failed)
    total = harness.timeline.count(FAILED)
    harness.claim("requests that failed on connections of the other worker", elsewhere, at_most=0)
    harness.claim("requests that failed, at most one per lost connection", total, at_most=connections)
    harness.claim("requests that failed", total, at_least=len(gaps))
    harness.claim("requests refused", harness.timeline.count(REFUSED), at_most=0)
    limit = _DELAY_SECONDS + harness.on_any_machine(_START_SECONDS)
    harness.claim("until all workers listen again, at worst", max(gaps), at_most=limit, unit="s")


@drill("all-workers-killed", "all workers are killed at once")
async def kill_all(harness: Harness) -> None:
    """Only the parent is left. The full form also kills long-lived workers, whose replacement does not wait."""
    first: list[float] = []
    gaps: list[float] = []
    async with harness.service() as service, harness.callers(port=service.port):
        for life in (1, 1, 1, 11) if not harness.is_quick else (1, 1):
            await asyncio.sleep(life)
            at = harness.timeline.mark(f"all workers are killed, after {life} s")
            for worker in service.workers():
                worker.kill()
            await wait_until_all_listen(service)
            gaps.append(harness.timeline.now() - at)
            await asyncio.sleep(0.5)
            first.append(harness.timeline.first_served_after(at))
    if not harness.is_quick:
        harness.claim("first served after a long life", first[-1], at_most=_START_SECONDS, unit="s")
    limit = _DELAY_SECONDS + harness.on_any_machine(_START_SECONDS)
    harness.claim("first served, at worst", max(first), at_most=limit, unit="s")
    harness.claim("until all workers listen again, at worst", max(gaps), at_most=limit, unit="s")
    harness.claim("requests refused", harness.timeline.count(REFUSED), at_most=0)


def kill(service: Service, worker: psutil.Process) -> set[int]:
    """Kills the worker. Returns the callers' ports of its connections, including those that it had yet to accept."""
    worker.suspend()  # so that the connections counted are those lost
    at_port = [found for found in psutil.net_connections("tcp4") if found.laddr and found.laddr.port == service.port]
    worker.kill()
    return {
        found.raddr.port
        for found in at_port
        if found.raddr and found.status == psutil.CONN_ESTABLISHED and found.pid in {worker.pid, None}
    }


async def wait_until_all_listen(service: Service) -> None:
    """Waits until the full number of workers listens."""
    while sum(map(_listens, service.workers())) < WORKERS:  # noqa: ASYNC110 - no event reports it
        await asyncio.sleep(_POLL_SECONDS)


def _listens(worker: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just exited
        return any(connection.status == psutil.CONN_LISTEN for connection in worker.net_connections("tcp4"))
    return False
