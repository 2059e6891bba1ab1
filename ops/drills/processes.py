"""Worker processes are killed: one of two, or all at once."""

import asyncio
import contextlib

import psutil

from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.stage import WORKERS, Stage
from ops.drills.timeline import FAILED, REFUSED

_LOOK_SECONDS = 0.01
# A worker takes 0.2 s to start, much longer on a busy machine; one that follows a short life waits for 1 s first.
_START_SECONDS = 1.5
_START_LATER_SECONDS = 1.0 + _START_SECONDS


@drill("worker-killed", "one worker of two is killed, again and again")
async def kill_worker(stage: Stage) -> None:
    """SIGKILL under load. Callers have no proxy between, so that each connection is known to be some worker's."""
    connections = 0
    elsewhere = 0
    gaps: list[float] = []
    async with stage.served() as service, stage.calling(count=32, pause_seconds=0.01, port=service.port):
        await asyncio.sleep(1)
        for number in range(int(stage.pick(10, 3))):
            at = stage.timeline.mark("a worker is killed")
            lost = kill(service, service.workers()[number % WORKERS])
            await until_all_listen(service)
            gaps.append(stage.timeline.mark("it is replaced") - at)
            await asyncio.sleep(0.5)
            connections += len(lost)
            failed = [seen for seen in stage.timeline.between() if seen.kind == FAILED and seen.ended > at]
            elsewhere += sum(seen.connection not in lost for seen in failed)
    stage.claim("requests that failed on another worker's connections", elsewhere, most=0)
    stage.claim("requests that failed, of the connections lost", stage.timeline.count(FAILED), most=connections)
    stage.claim_least("requests that failed", stage.timeline.count(FAILED), least=len(gaps))
    stage.claim("requests refused", stage.timeline.count(REFUSED), most=0)
    stage.claim("until all workers listen again, at worst", max(gaps), most=_START_LATER_SECONDS, unit="s")


@drill("all-workers-killed", "all workers are killed at once")
async def kill_all(stage: Stage) -> None:
    """The parent alone is left. In full also after a long life, that no pause has to follow."""
    again: list[float] = []
    gaps: list[float] = []
    async with stage.served() as service, stage.calling(port=service.port):
        for life in (1, 1, 1, 11) if not stage.is_quick else (1, 1):
            await asyncio.sleep(life)
            at = stage.timeline.mark(f"all workers are killed, after {life} s")
            for worker in service.workers():
                worker.kill()
            await until_all_listen(service)
            gaps.append(stage.timeline.now() - at)
            await asyncio.sleep(0.5)
            again.append(stage.timeline.served_again_after(at))
    if not stage.is_quick:
        stage.claim("served again after a long life", again[-1], most=_START_SECONDS, unit="s")
    stage.claim("served again, at worst", max(again), most=_START_LATER_SECONDS, unit="s")
    stage.claim("until all workers listen again, at worst", max(gaps), most=_START_LATER_SECONDS, unit="s")
    stage.claim("requests refused", stage.timeline.count(REFUSED), most=0)


def kill(service: Service, worker: psutil.Process) -> set[int]:
    """Kills the worker, and tells its connections by their callers' ports, those that it has yet to accept included."""
    worker.suspend()  # so that what is counted is what is lost
    at_port = [found for found in psutil.net_connections("tcp4") if found.laddr and found.laddr.port == service.port]
    worker.kill()
    return {
        found.raddr.port
        for found in at_port
        if found.raddr and found.status == psutil.CONN_ESTABLISHED and found.pid in {worker.pid, None}
    }


async def until_all_listen(service: Service) -> None:
    """Waits until as many workers as there ought to be listen."""
    while sum(map(_listens, service.workers())) < WORKERS:  # noqa: ASYNC110 - no process tells of it
        await asyncio.sleep(_LOOK_SECONDS)


def _listens(worker: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
        return any(connection.status == psutil.CONN_LISTEN for connection in worker.net_connections("tcp4"))
    return False
