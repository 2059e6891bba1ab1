"""Two instances behind a balancer: restarted in turn, or with a worker that is killed."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills.balancer import Balancer, balancing, lacks
from ops.drills.drill import drill
from ops.drills.processes import kill, until_all_listen
from ops.drills.stage import WORKERS, Stage
from ops.drills.timeline import SERVED

# In production: k8s/base/deployment.yaml's readiness probe, and settings.env's DRAIN_SECONDS.
_INTERVAL_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 15.0
_KEPT_PERCENT: Final = 80.0
# What a balancer makes of a lost connection: that, or where it was kept, it ends its caller's as well, as HTTP wants.
_LOST: Final = ("502", "ServerDisconnectedError")


class _Instances:
    """Instances of the service on ports that they keep.

    Args:
        stage: where they run.
        speed: how much faster than in production they drain, and are looked at.
    """

    def __init__(self, stage: Stage, speed: float) -> None:
        self.by_port: dict[int, Service] = {}
        self.speed = speed
        self._stage = stage
        self._stack = AsyncExitStack()

    @contextlib.asynccontextmanager
    async def balanced(self) -> AsyncIterator[Balancer]:
        """Two of them, behind a balancer."""
        async with self._stack:
            for port in (free_port(), free_port()):
                await self.start(port)
            ports = list(self.by_port)
            async with balancing(self._stage.folder, ports, _INTERVAL_SECONDS / self.speed) as balancer:
                yield balancer

    async def start(self, port: int) -> None:
        """Starts one on this port."""
        instance = self._stage.instance(PORT=str(port), DRAIN_SECONDS=str(_DRAIN_SECONDS / self.speed))
        self.by_port[port] = await self._stack.enter_async_context(instance)


@drill("rolling-restart", "two instances behind a balancer are restarted in turn", lacks)
async def restart(stage: Stage) -> None:
    """SIGTERM, the drain, the end, a new start, and the next. Nobody may notice."""
    instances = _Instances(stage, speed=stage.pick(5, 10))
    rounds = int(stage.pick(5, 1))
    statuses: list[int] = []
    async with instances.balanced() as balancer, stage.calling(count=32, pause_seconds=0.01, port=balancer.port):
        for _ in range(rounds):
            for port, service in list(instances.by_port.items()):
                await asyncio.sleep(1)
                stage.timeline.mark("SIGTERM")
                statuses.append(await asyncio.to_thread(service.stop))
                stage.timeline.mark("it has ended")
                await instances.start(port)
                await balancer.until_up(port)
                stage.timeline.mark("a new one gets requests")
        await asyncio.sleep(1)
        downs = await balancer.downs()
        kept = await balancer.kept_percent()
    # The newest has few or none: it is given new connections only, and since it started nobody has ended and left some.
    logs = [stage.folder / f"service-{number}.log" for number in range(1 + 2 * rounds)]
    served = [log.read_text().count('"event":"request"') for log in logs]
    stage.claim("requests not served", sum(seen.kind != SERVED for seen in stage.timeline.seen), most=0)
    stage.claim("instances that did not end with status 0", sum(map(bool, statuses)), most=0)
    stage.claim_least("restarts that the balancer saw, of each instance", min(downs.values()), least=rounds)
    stage.claim_least("requests that each instance but the newest served", min(served), least=100)
    stage.claim_least("requests by a connection that was kept", kept, least=_KEPT_PERCENT, unit="%")


@drill("worker-killed-behind-balancer", "a worker of an instance behind a balancer is killed, again and again", lacks)
async def kill_worker(stage: Stage) -> None:
    """Only what the worker had in its hands may fail, and the instance stays in."""
    instances = _Instances(stage, speed=10)
    connections = 0
    async with instances.balanced() as balancer, stage.calling(count=32, pause_seconds=0.01, port=balancer.port):
        for _ in range(int(stage.pick(4, 1))):
            for service, number in itertools.product(instances.by_port.values(), range(WORKERS)):
                await asyncio.sleep(0.5)
                stage.timeline.mark("a worker is killed")
                connections += len(kill(service, service.workers()[number]))
                await until_all_listen(service)
        await asyncio.sleep(0.5)
        downs = await balancer.downs()
    failed = sum(seen.kind != SERVED for seen in stage.timeline.seen)
    lost = sum(map(stage.timeline.counts().get, _LOST, (0, 0)))
    stage.claim("requests not served, of the connections lost", failed, most=connections)
    stage.claim("requests that failed in another way than lost connections do", failed - lost, most=0)
    stage.claim_least("requests not served", failed, least=1)
    stage.claim("times that the balancer took an instance out", sum(downs.values()), most=0)
