"""Applies objects to the cluster, and waits until their pods have replaced the earlier ones.

A pod reads the database's Secret only at its start. So the template of each pod that reads it has the Secret's
fingerprint, and a changed Secret replaces the pods: in a deployment, a restore and a change of the password.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from ops.deploy.common import CannotProceed, report, wait_for
from ops.deploy.kubernetes import Kubernetes, Object, secret_data

NAMESPACE: Final = "clients"
DEPLOYMENT: Final = "clients-api"
SERVICE_SECRET: Final = "database"  # noqa: S105 - a name
SELECTOR: Final = "app.kubernetes.io/name=clients-api,app.kubernetes.io/component=service"  # of the service's pods

# At most 10 pods (k8s/base), one after the other: each starts and has to be ready for 15 s. A new node needs 3 minutes.
ROLLOUT_SECONDS: Final = 900.0

_STOP_SECONDS: Final = 300.0  # more than terminationGracePeriodSeconds of a pod
_FINGERPRINT_ANNOTATION: Final = "olimac.link/database-secret"
_KINDS: Final = ("Deployment", "DaemonSet")


def roll_out(cluster: Kubernetes, objects: Sequence[Object], *, timeout: float = ROLLOUT_SECONDS) -> None:
    """Applies the objects in their order, and waits for the pods of all Deployments and DaemonSets among them.

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


def replace_pods(cluster: Kubernetes) -> None:
    """Replaces the service's pods if they started with another Secret, and waits; nothing else of them changes.

    Raises:
        CannotProceed: there is no release, or the new pods did not become available in time. Then the earlier pods
            still run.
    """
    require_release(cluster)
    template = {"metadata": {"annotations": {_FINGERPRINT_ANNOTATION: _fingerprint(cluster)}}}
    patch = json.dumps({"spec": {"template": template}})
    report(cluster.run("patch", "deployment", DEPLOYMENT, "--namespace", NAMESPACE, "--patch", patch).rstrip())
    cluster.wait_for_rollout(NAMESPACE, f"deployment/{DEPLOYMENT}", timeout=ROLLOUT_SECONDS)


def wait_for_old_pods(cluster: Kubernetes) -> None:
    """Waits until no pod of the service that started with another Secret is left, not even one that is stopping.

    Raises:
        CannotProceed: one is left after the time in which a pod must have stopped.
    """
    expected = _fingerprint(cluster)

    def have_stopped() -> bool | None:
        pods = cluster.find_all(NAMESPACE, "pods", SELECTOR)
        found = [pod["metadata"].get("annotations", {}).get(_FINGERPRINT_ANNOTATION) for pod in pods]
        return all(fingerprint == expected for fingerprint in found) or None

    wait_for("the pods with the old Secret to stop", have_stopped, timeout=_STOP_SECONDS)


def running_image(cluster: Kubernetes) -> str | None:
    """Returns the image of the release that the service runs, or None if none was deployed."""
    deployment = cluster.get(NAMESPACE, "deployment", DEPLOYMENT)
    if deployment is None:
        return None
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def require_release(cluster: Kubernetes) -> str:
    """Returns the image of the release that the service runs.

    Raises:
        CannotProceed: none was deployed.
    """
    image = running_image(cluster)
    if image is None:
        raise CannotProceed(f"there is no deployment {DEPLOYMENT} in {NAMESPACE}: deploy the service first")
    return image


def _reads_the_secret(workload: Object) -> bool:
    containers: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    sources = [source for container in containers for source in container.get("envFrom", [])]
    return {"secretRef": {"name": SERVICE_SECRET}} in sources


def _fingerprint(cluster: Kubernetes) -> str:
    secret = cluster.get(NAMESPACE, "secret", SERVICE_SECRET)
    if secret is None:
        raise CannotProceed(f"the Secret {SERVICE_SECRET} does not exist: prepare the database first")
    return hashlib.sha256(json.dumps(secret_data(secret), sort_keys=True).encode()).hexdigest()
