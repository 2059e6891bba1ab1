"""What the cluster does by itself: runs Jobs and Deployments, and makes load balancers for Services."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.pods import Pod
from ops.rehearsal.tls import Address

_DEPLOYMENT: Final = kind_of("Deployment")
_JOB: Final = kind_of("Job")
_SERVICE: Final = kind_of("Service")


class Cloud(Protocol):
    """What a cloud does for a cluster."""

    def make(self, service: Object, behind: Callable[[], Address | None]) -> str:
        """Makes a load balancer, and gives its hostname."""

    def remove(self, service: Object) -> None:
        """Removes it."""


@dataclass
class Controllers:
    """The controllers of one cluster.

    Attributes:
        image: that this checkout stands for; pods of other images are not run.
        folder: for the pods' files.
        cloud: makes a Service's load balancer, and removes it.
        pods: those that were started and not removed, by their names.
    """

    image: str
    folder: Path
    cloud: Cloud
    pods: dict[str, Pod] = field(default_factory=dict)
    _turns: Iterator[int] = field(default_factory=itertools.count)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def acting(self, store: Store) -> AsyncIterator[Callable[[str, str], str]]:
        """Acts on the store's objects meanwhile, and gives what a container of a pod has said."""
        following = asyncio.create_task(self._follow(store))
        try:
            yield self._log
        finally:
            await _cancel(following, *self._tasks.values())
            await self._stop(list(self.pods.values()), seconds=0)

    def next_pod(self) -> Address | None:
        """Where the next connection to the service goes: its ready pods take turns."""
        ready = [pod.port for pod in self.pods.values() if pod.is_ready]
        return ("127.0.0.1", ready[next(self._turns) % len(ready)]) if ready else None

    def _log(self, pod: str, container: str) -> str:
        return self.pods[pod].log(container)

    async def _follow(self, store: Store) -> None:
        """Acts on each Job, Deployment and Service whose specification changed, and leaves off what it did before."""
        acts = {_DEPLOYMENT: self._deploy, _JOB: self._work, _SERVICE: self._balance}
        known: dict[str, object] = {}
        async for change in store.changes():
            uid = change.object["metadata"]["uid"]
            wanted = None if change.how == "DELETED" else change.object.get("spec")
            if change.kind not in acts or (uid in known and known[uid] == wanted):
                continue
            known[uid] = wanted
            if uid in self._tasks:
                await _cancel(self._tasks[uid])
            act = acts[change.kind](store, change.object, is_gone=wanted is None)
            self._tasks[uid] = asyncio.create_task(act)

    async def _work(self, store: Store, job: Object, *, is_gone: bool) -> None:
        """Runs a Job: a pod, and after one that failed another, as often as it says."""
        if is_gone:
            await self._stop(self._pods_of(job), seconds=0)
            return
        for failed in range(job["spec"]["backoffLimit"] + 1):
            pod = self._start(store, job)
            if await pod.ended():
                pod.tell("Succeeded")
                store.set_status(_JOB, job, {"succeeded": 1, "failed": failed, "conditions": [_true("Complete")]})
                return
            pod.tell("Failed")
        store.set_status(_JOB, job, {"failed": failed + 1, "conditions": [_true("Failed")]})

    async def _deploy(self, store: Store, deployment: Object, *, is_gone: bool) -> None:
        """Brings new pods up, and the old ones down once the new ones are ready."""
        old = self._pods_of(deployment)
        if is_gone:
            await self._stop(old)
            return
        if any(container["image"] != self.image for container in deployment["spec"]["template"]["spec"]["containers"]):
            return  # somebody else's, which is not on this machine
        wanted = _replicas(store, deployment)
        new = [self._start(store, deployment) for _ in range(wanted)]
        status = {"observedGeneration": deployment["metadata"]["generation"], "updatedReplicas": wanted}
        store.set_status(_DEPLOYMENT, deployment, {**status, "replicas": len(old) + wanted})
        if not all(await asyncio.gather(*(pod.is_up() for pod in new))):
            status["conditions"] = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
            store.set_status(_DEPLOYMENT, deployment, {**status, "replicas": len(old) + wanted})
            return
        await self._stop(old)
        status |= {"replicas": wanted, "readyReplicas": wanted, "availableReplicas": wanted}
        store.set_status(_DEPLOYMENT, deployment, status)

    async def _balance(self, store: Store, service: Object, *, is_gone: bool) -> None:
        """Makes and removes the load balancer of a Service that wants one."""
        if service["spec"].get("type") != "LoadBalancer":
            return
        if is_gone:
            await asyncio.to_thread(self.cloud.remove, service)
        elif not service.get("status"):
            hostname = await asyncio.to_thread(self.cloud.make, service, self.next_pod)
            store.set_status(_SERVICE, service, {"loadBalancer": {"ingress": [{"hostname": hostname}]}})

    def _start(self, store: Store, owner: Object) -> Pod:
        pod = Pod(store, owner, self.folder)
        self.pods[pod.name] = pod
        pod.start()
        return pod

    def _pods_of(self, owner: Object) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.owner == owner["metadata"]["uid"]]

    async def _stop(self, pods: list[Pod], seconds: float | None = None) -> None:
        await asyncio.gather(*(pod.stop(seconds) for pod in pods))
        for pod in pods:
            self.pods.pop(pod.name, None)


def _replicas(store: Store, deployment: Object) -> int:
    """As many as its autoscaler wants at least, or it says itself."""
    for scaler in store.all_of("horizontalpodautoscalers"):
        if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]:
            least: int = scaler["spec"]["minReplicas"]
            return least
    own: int = deployment["spec"].get("replicas", 1)
    return own


def _true(condition: str) -> Object:
    return {"type": condition, "status": "True"}


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
