"""Two instances behind a balancer: they are restarted in turn, or lose a worker or their database."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills.balancer import Balancer, balancing, missing
from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.harness import WORKERS, Harness
from ops.drills.processes import kill, wait_until_all_listen
from ops.drills.timeline import FAILED, REFUSED

# In production: the readiness probe of k8s/base/deployment.yaml, and DRAIN_SECONDS of settings.env.
_INTERVAL_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 15.0
_MIN_REUSED_PERCENT: Final = 80.0
# What a caller sees when the balancer loses a connection to an instance: a 502. If that connection was reused, the
# balancer closes the caller's connection instead, as HTTP demands.
_LOST: Final = ("502", "ServerDisconnectedError")


class _Instances:
    """Instances of the service that keep their ports when they restart.

    Args:
        harness: where they run.
        speed: how many times faster than in production they drain and are checked.
        settings: of all of them.
    """

    def __init__(self, harness: Harness, speed: float, **settings: str) -> None:
        self.by_port: dict[int, Service] = {}
        self.speed = speed
        self._harness = harness
        drain_seconds = str(_DRAIN_SECONDS / speed)
        self._settings = {"DRAIN_SECONDS": drain_seconds, "LOG_LINES_PER_SECOND": "0", **settings}
        self._stack = AsyncExitStack()

    @contextlib.asynccontextmanager
    async def balanced(self) -> AsyncIterator[Balancer]:
        """Runs two of them behind a balancer."""
        async with self._stack:
            for port in (free_port(), free_port()):
                await self.start(port)
            ports = list(self.by_port)
            async with balancing(self._harness.folder, ports, _INTERVAL_SECONDS / self.speed) as balancer:
                yield balancer

    async def start(self, port: int) -> None:
        """Starts one on this port."""
        instance = self._harness.instance(stdout=None, PORT=str(port), **self._settings)
        self.by_port[port] = await self._stack.enter_async_context(instance)


@drill("rolling-restart", "two instances behind a balancer are restarted in turn", missing)
async def restart(harness: Harness) -> None:
    """SIGTERM, drain, exit, start, then the next instance. Callers must not notice."""
    instances = _Instances(harness, speed=harness.pick(5, 10))
    rounds = int(harness.pick(5, 1))
    statuses: list[int] = []
    async with instances.balanced() as balancer, harness.callers(count=32, pause_seconds=0.01, port=balancer.port):
        for _ in range(rounds):
            for port, service in list(instances.by_port.items()):
                await asyncio.sleep(1)
                harness.timeline.mark("SIGTERM")
                statuses.append(await asyncio.to_thread(service.stop))
                harness.timeline.mark("the instance has exited")
                await instances.start(port)
                await balancer.wait_until_up(port)
                harness.timeline.mark("its replacement receives requests")
        await asyncio.sleep(1)
        downs = await balancer.times_down()
        reused = await balancer.reused_percent()
    # The newest instance served few requests or none: it only receives new connections, and no instance has exited
    # since it started, so none had to be opened.
    logs = [harness.folder / f"service-{number}.log" for number in range(1 + 2 * rounds)]
    served = [log.read_text().count('"event":"request"') for log in logs]
    harness.claim("requests not served", harness.timeline.not_served(), at_most=0)
    harness.claim("instances that exited with a status other than 0", sum(map(bool, statuses)), at_most=0)
    harness.claim("restarts of each instance that the balancer saw", min(downs.values()), at_least=rounds)
    harness.claim("requests served by each instance except the newest", min(served), at_least=100)
    harness.claim("requests on a reused connection", reused, at_least=_MIN_REUSED_PERCENT, unit="%")


@drill("worker-killed-behind-balancer", "a worker of an instance behind a balancer is killed, again and again", missing)
async def kill_worker(harness: Harness) -> None:
    """Only requests in progress on that worker may fail. The balancer keeps the instance."""
    instances = _Instances(harness, speed=10)
    connections = 0
    async with instances.balanced() as balancer, harness.callers(count=32, pause_seconds=0.01, port=balancer.port):
        for _ in range(int(harness.pick(4, 1))):
            for service, number in itertools.product(instances.by_port.values(), range(WORKERS)):
                await asyncio.sleep(0.5)
                harness.timeline.mark("a worker is killed")
                connections += len(kill(service, service.workers()[number]))
                await wait_until_all_listen(service)
        await asyncio.sleep(0.5)
        downs = await balancer.times_down()
    not_served = harness.timeline.not_served()
    lost = sum(map(harness.timeline.outcomes().get, _LOST, (0, 0)))
    harness.claim("requests not served, at most one per lost connection", not_served, at_most=connections)
    harness.claim("requests that failed for another reason than a lost connection", not_served - lost, at_most=0)
    harness.claim("requests not served", not_served, at_least=1)
    harness.claim("times that the balancer removed an instance", sum(downs.values()), at_most=0)


@drill("database-lost-behind-balancer", "two instances behind a balancer lose their database", missing)
async def lose_database(harness: Harness) -> None:
    """The balancer keeps the instances, which respond in words. When the database has recovered, they serve at once."""
    instances = _Instances(harness, speed=harness.pick(1, 10), WORKERS="1")  # as in production
    checks_seconds = 3 * _INTERVAL_SECONDS / instances.speed  # within it, the balancer would remove an instance
    async with instances.balanced() as balancer, harness.callers(pause_seconds=0.05, port=balancer.port):
        await asyncio.sleep(1 + checks_seconds)  # as in the cluster, each has been checked and found ready
        harness.timeline.mark("PostgreSQL is stopped")
        await asyncio.to_thread(harness.postgres.stop)
        await asyncio.sleep(checks_seconds)
        harness.timeline.mark("more callers connect")
        # The connections that exist would still lead to the instances, and the new callers need more of them.
        async with harness.callers(count=32, pause_seconds=0.05, port=balancer.port):
            await asyncio.sleep(checks_seconds)
            recovered_at = await harness.start_postgres()
            await asyncio.sleep(checks_seconds)
        downs = await balancer.times_down()
    first = harness.timeline.first_served_after(recovered_at)
    harness.claim("first served after recovery", first, at_most=RECOVERY_SECONDS, unit="s")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)
    harness.claim("requests refused in words", harness.timeline.count(REFUSED), at_least=1)
    harness.claim("times that the balancer removed an instance", sum(downs.values()), at_most=0)
