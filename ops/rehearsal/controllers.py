"""The controllers of the fake cluster: they run Jobs and Deployments, and create load balancers for Services."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ops.rehearsal.kubernetes import Change, Object, Store, kind_of
from ops.rehearsal.pods import Pod
from ops.rehearsal.tls import Address

_LOG: Final = logging.getLogger(__name__)

_DAEMON_SET: Final = kind_of("DaemonSet")
_DEPLOYMENT: Final = kind_of("Deployment")
_JOB: Final = kind_of("Job")
_SERVICE: Final = kind_of("Service")


class CloudProvider(Protocol):
    """Creates, configures and deletes load balancers for the cluster."""

    def create(self, service: Object, upstream: Callable[[], Address | None]) -> str:
        """Creates the Service's load balancer if there is none, configures it, and returns its hostname."""

    def delete(self, service: Object) -> None:
        """Deletes it."""


@dataclass
class Controllers:
    """The controllers of one cluster.

    Attributes:
        images: the folder with the source of each image that is run, as processes. Pods of other images are not run,
            and only reported as available.
        folder: for the pods' files.
        cloud: creates and deletes load balancers.
        pods: all that were started and not removed, by name.
    """

    images: Mapping[str, Path]
    folder: Path
    cloud: CloudProvider
    pods: dict[str, Pod] = field(default_factory=dict)
    _round_robin: Iterator[int] = field(default_factory=itertools.count)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _stopping: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[Callable[[str, str], str]]:
        """Reconciles the store's objects; gives a function that returns the log of a pod's container."""
        reconciling = asyncio.create_task(self._reconcile(store, store.changes()))
        try:
            yield self._log
        finally:
            await _cancel(reconciling, *self._tasks.values(), *self._stopping)
            await self._stop(list(self.pods.values()), grace_seconds=0)

    def next_pod(self) -> Address | None:
        """Returns the address of the next ready pod, round robin."""
        ready = [pod.port for pod in self.pods.values() if pod.is_ready]
        return ("127.0.0.1", ready[next(self._round_robin) % len(ready)]) if ready else None

    def _log(self, pod: str, container: str) -> str:
        return self.pods[pod].log(container)

    async def _reconcile(self, store: Store, changes: AsyncIterator[Change]) -> None:
        """Handles each workload and Service whose specification changed, and cancels what it did before.

        The annotations of a Service specify its load balancer.
        """
        handlers = {
            _DAEMON_SET: self._report_available,
            _DEPLOYMENT: self._roll_out,
            _JOB: self._run_job,
            _SERVICE: self._sync_load_balancer,
        }
        handled: dict[str, object] = {}
        async for change in changes:
            metadata = change.object["metadata"]
            uid, is_deleted = metadata["uid"], change.type == "DELETED"
            annotations = metadata.get("annotations") if change.kind is _SERVICE else None
            desired = None if is_deleted else (change.object.get("spec"), annotations)
            if change.kind not in handlers or (uid in handled and handled[uid] == desired):
                continue
            handled[uid] = desired
            if uid in self._tasks:
                await _cancel(self._tasks[uid])
            handling = handlers[change.kind](store, change.object, is_deleted=is_deleted)
            name = f"{change.kind.name} {metadata['namespace']}/{metadata['name']}"
            self._tasks[uid] = asyncio.create_task(_logging_errors(name, handling))

    async def _run_job(self, store: Store, job: Object, *, is_deleted: bool) -> None:
        """Runs a pod of the Job, and after each failure another one, up to the Job's backoff limit."""
        if is_deleted:
            await self._stop(self._pods_of(job), grace_seconds=0)
            return
        for failed in range(job["spec"]["backoffLimit"] + 1):
            pod = self._start(store, job)
            if await pod.has_succeeded():
                pod.set_phase("Succeeded")
                store.set_status(_JOB, job, {"succeeded": 1, "failed": failed, "conditions": [_condition("Complete")]})
                return
            pod.set_phase("Failed")
        store.set_status(_JOB, job, {"failed": failed + 1, "conditions": [_condition("Failed")]})

    async def _roll_out(self, store: Store, deployment: Object, *, is_deleted: bool) -> None:
        """Starts new pods, and stops the old ones once the new ones are ready; it does not wait for their end."""
        old = self._pods_of(deployment)
        if is_deleted:
            await self._stop(old)
            return
        replicas = _replicas(store, deployment)
        status = {"observedGeneration": deployment["metadata"]["generation"], "updatedReplicas": replicas}
        if _image(deployment) not in self.images:  # somebody else's, which is not on this machine
            status |= {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
            store.set_status(_DEPLOYMENT, deployment, status)
            return
        new = [self._start(store, deployment) for _ in range(replicas)]
        store.set_status(_DEPLOYMENT, deployment, {**status, "replicas": len(old) + replicas})
        if not all(await asyncio.gather(*(pod.wait_until_ready() for pod in new))):
            status["conditions"] = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
            store.set_status(_DEPLOYMENT, deployment, {**status, "replicas": len(old) + replicas})
            return
        stopping = asyncio.create_task(self._stop(old))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        status |= {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
        store.set_status(_DEPLOYMENT, deployment, status)

    async def _report_available(self, store: Store, daemon_set: Object, *, is_deleted: bool) -> None:
        """Reports the pods of a DaemonSet, whose images are not on this machine, as available on one node."""
        if not is_deleted:
            counts = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled")
            status = dict.fromkeys((*counts, "numberAvailable", "numberReady"), 1)
            observed = {"observedGeneration": daemon_set["metadata"]["generation"], "numberMisscheduled": 0}
            store.set_status(_DAEMON_SET, daemon_set, status | observed)

    async def _sync_load_balancer(self, store: Store, service: Object, *, is_deleted: bool) -> None:
        """Creates, configures or deletes the load balancer of a Service of that type."""
        if service["spec"].get("type") != "LoadBalancer":
            return
        if is_deleted:
            await asyncio.to_thread(self.cloud.delete, service)
        else:
            hostname = await asyncio.to_thread(self.cloud.create, service, self.next_pod)
            store.set_status(_SERVICE, service, {"loadBalancer": {"ingress": [{"hostname": hostname}]}})

    def _start(self, store: Store, owner: Object) -> Pod:
        pod = Pod(store, owner, self.folder, self.images[_image(owner)])
        self.pods[pod.name] = pod
        pod.start()
        return pod

    def _pods_of(self, owner: Object) -> list[Pod]:
        """Returns its pods that are not about to stop."""
        return [one for one in self.pods.values() if one.owner == owner["metadata"]["uid"] and not one.is_stopping]

    async def _stop(self, pods: list[Pod], grace_seconds: float | None = None) -> None:
        await asyncio.gather(*(pod.stop(grace_seconds) for pod in pods))
        for pod in pods:
            self.pods.pop(pod.name, None)


def _image(owner: Object) -> str:
    image: str = owner["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def _replicas(store: Store, deployment: Object) -> int:
    """Returns the minimum of the Deployment's autoscaler, or its own number of replicas."""
    for scaler in store.objects("horizontalpodautoscalers"):
        if scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]:
            minimum: int = scaler["spec"]["minReplicas"]
            return minimum
    replicas: int = deployment["spec"].get("replicas", 1)
    return replicas


async def _logging_errors(name: str, handling: Coroutine[None, None, None]) -> None:
    """Logs why an object could not be handled, as a cluster does with an event of the object, and goes on."""
    try:
        await handling
    except Exception:  # noqa: BLE001 - the other objects are still handled
        _LOG.exception("the cluster cannot handle %s", name)


def _condition(kind: str) -> Object:
    return {"type": kind, "status": "True"}


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
