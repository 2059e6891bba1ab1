"""Applies objects to the cluster, and waits until their pods have replaced the earlier ones."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from ops.deploy.common import CannotProceed, report
from ops.deploy.kubernetes import Kubernetes, Object, secret_data

NAMESPACE: Final = "clients"
DEPLOYMENT: Final = "clients-api"
SERVICE_SECRET: Final = "database"  # noqa: S105 - a name

# At most 10 pods (k8s/base), one after the other: each starts and has to be ready for 15 s. A new node needs 3 minutes.
ROLLOUT_SECONDS: Final = 900.0

_FINGERPRINT_ANNOTATION: Final = "olimac.link/database-secret"
_KINDS: Final = ("Deployment", "DaemonSet")


def roll_out(cluster: Kubernetes, objects: Sequence[Object], *, timeout: float = ROLLOUT_SECONDS) -> None:
    """Applies the objects in their order, and waits for the pods of all Deployments and DaemonSets among them.

    A pod reads the database's Secret only at its start. So its template has the Secret's fingerprint, and pods that
    started with another Secret are replaced.

    Args:
        cluster: where to apply them.
        objects: of an overlay.
        timeout: for all pods together, in seconds.

    Raises:
        CannotProceed: the service's Secret does not exist, the cluster refused an object, or its pods did not become
            available in time. Then the earlier pods still run.
    """
    workloads = [one for one in objects if one["kind"] in _KINDS]
    for workload in workloads:
        if _reads_the_secret(workload):
            annotations = workload["spec"]["template"]["metadata"].setdefault("annotations", {})
            annotations[_FINGERPRINT_ANNOTATION] = _fingerprint(cluster)
    report(cluster.apply(*objects).rstrip())
    deadline = time.monotonic() + timeout
    for workload in workloads:
        metadata = workload["metadata"]
        name = f"{workload['kind'].lower()}/{metadata['name']}"
        report(f"Waiting for the rollout of {name}")
        cluster.wait_for_rollout(metadata["namespace"], name, timeout=max(1.0, deadline - time.monotonic()))


def _reads_the_secret(workload: Object) -> bool:
    containers: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    sources = [source for container in containers for source in container.get("envFrom", [])]
    return {"secretRef": {"name": SERVICE_SECRET}} in sources


def _fingerprint(cluster: Kubernetes) -> str:
    secret = cluster.get(NAMESPACE, "secret", SERVICE_SECRET)
    if secret is None:
        raise CannotProceed(f"the Secret {SERVICE_SECRET} does not exist: prepare the database first")
    return hashlib.sha256(json.dumps(secret_data(secret), sort_keys=True).encode()).hexdigest()
