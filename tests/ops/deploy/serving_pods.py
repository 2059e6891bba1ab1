"""Pods that run nothing, but have a log with the metrics that the service writes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object, Store, kind_of
from svc.logs import names
from svc.telemetry import metrics
from svc.telemetry.distribution import Distribution

_DEPLOYMENT = kind_of("Deployment")
_POD = kind_of("Pod")


def documents(route: str, status: int, latencies_ms: Sequence[float]) -> str:
    """The service's metrics of requests with these latencies, in milliseconds."""
    latency = Distribution()
    for ms in latencies_ms:
        latency.add(ms)
    dimensions, _ = metrics._dimensions((route, "GET", status))
    values: metrics.Values = {names.REQUESTS: len(latencies_ms), names.LATENCY: latency}
    return b"".join(metrics.documents(dimensions, values, {names.POD: "a-host"})).decode()


@dataclass
class ServingPods(Controllers):
    """Makes two pods of each Deployment of the service and one of its canary, which are available at once.

    Attributes:
        responses: by Deployment, the status and the latency in milliseconds of the 100 requests of each of its pods.
        not_ready: the Deployments whose pods are not available.
    """

    responses: dict[str, tuple[int, float]] = field(default_factory=dict)
    not_ready: set[str] = field(default_factory=set)

    def _log(self, pod: str, _: str) -> str:
        deployment = pod.rpartition("-")[0]
        if deployment not in self.responses:
            return "no requests\n"
        status, ms = self.responses[deployment]
        return documents("/get/{id}", status, [ms] * 100)

    async def _roll_out(self, store: Store, deployment: Object, *, is_deleted: bool) -> None:
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        if name == "cluster-autoscaler":
            await super()._roll_out(store, deployment, is_deleted=is_deleted)
            return
        count = deployment["spec"].get("replicas", 2)
        for number in range(count):
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
            pod["metadata"] = {**template["metadata"], "name": f"{name}-{number}", "namespace": "clients"}
            if is_deleted:
                store.delete(_POD, "clients", f"{name}-{number}")
            else:
                store.apply(_POD, pod)
        while not is_deleted and name in self.not_ready:  # noqa: ASYNC110 - tests change it
            await asyncio.sleep(0.02)
        ready = {"observedGeneration": deployment["metadata"]["generation"], "replicas": count}
        ready |= dict.fromkeys(("updatedReplicas", "readyReplicas", "availableReplicas"), count)
        store.set_status(_DEPLOYMENT, deployment, ready)
