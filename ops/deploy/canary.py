"""A canary: one pod of the new build serves its share of the requests, and is compared with the other pods.

It is a Deployment of its own beside the service's, made from it, so the service's pods and what they run stay as they
are. The Service, the policies and the disruption budget cover its pod by its labels. The autoscaler of pods counts it,
too, so it may add a pod meanwhile.
"""

import time
from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Final

from ops.deploy import error_budget, manifests
from ops.deploy.common import CannotProceed, Outputs, report
from ops.deploy.error_budget import Requests
from ops.deploy.kubernetes import Kubernetes, Object
from ops.deploy.rollout import DEPLOYMENT, NAMESPACE, roll_out

NAME: Final = f"{DEPLOYMENT}-canary"
SECONDS: Final = 300.0
READY_SECONDS: Final = 600.0  # for its pod, which may need a new node

_LABEL: Final = {"olimac.link/track": "canary"}
_REMOVAL_SECONDS: Final = 120  # more than terminationGracePeriodSeconds
_POLL_SECONDS: Final = 10.0
_LAST_LINES: Final = 20


def run(
    outputs: Outputs,
    image: str,
    environment: str,
    *,
    seconds: float = SECONDS,
    timeout: float = READY_SECONDS,
    dry_run: bool = False,
) -> None:
    """Runs one pod of the image beside the service's pods, compares it with them, and removes it.

    Args:
        outputs: of Terraform.
        image: the new image by digest.
        environment: its overlay in k8s/overlays.
        seconds: how long it serves.
        timeout: until it is ready, in seconds.
        dry_run: only print what would happen.

    Raises:
        CannotProceed: it did not become ready or did not stay so, or its requests fail or are slow, more than those of
            the other pods.
    """
    objects = _objects(manifests.parse(manifests.render(environment, outputs, image)))
    if dry_run:
        report(f"Would run one pod of {image} for {seconds:.0f} s, and compare it with the others")
        return
    cluster = Kubernetes(outputs)
    if cluster.get(NAMESPACE, "deployment", DEPLOYMENT) is None:
        report("No release runs yet with which a canary could be compared.")
        return
    try:
        try:
            roll_out(cluster, objects, timeout=timeout)
        except CannotProceed:
            _show_log(cluster)
            raise
        _compare(cluster, seconds)
    finally:
        remove(cluster)


def remove(cluster: Kubernetes) -> None:
    """Removes the canary, if there is one, and waits until its pod has responded to its last requests."""
    if cluster.get(NAMESPACE, "deployment", NAME):
        report("Removing the canary")
        cluster.delete(NAMESPACE, "deployment", NAME, timeout=_REMOVAL_SECONDS)


def _objects(production: Sequence[Object]) -> list[Object]:
    """Returns the canary's Deployment, after the settings of its build."""
    (service,) = [one for one in production if (one["kind"], one["metadata"]["name"]) == ("Deployment", DEPLOYMENT)]
    canary = deepcopy(service)
    canary["metadata"]["name"] = NAME
    canary["spec"]["replicas"] = 1
    # With this label in its selector, it counts only its own pod. The service's selector matches this pod, too, but a
    # Deployment manages only pods that it owns.
    canary["spec"]["selector"]["matchLabels"] |= _LABEL
    canary["spec"]["template"]["metadata"]["labels"] |= _LABEL
    settings = [one for one in production if one["kind"] == "ConfigMap" and one["metadata"]["namespace"] == NAMESPACE]
    return [*settings, canary]


def _compare(cluster: Kubernetes, seconds: float) -> None:
    """Compares the canary with the other pods until the time is over or the canary is worse."""
    started = datetime.now(UTC)
    end = time.monotonic() + seconds
    report(f"The canary serves for {seconds:.0f} s")
    is_over = False
    while not is_over:
        time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        deployment = cluster.get(NAMESPACE, "deployment", NAME) or {}
        if not deployment.get("status", {}).get("availableReplicas"):
            _show_log(cluster)
            raise CannotProceed("the canary is no longer ready; see its log above")
        pods = error_budget.read(cluster, started)
        canary = sum((requests for pod, requests in pods.items() if pod.startswith(NAME)), Requests())
        others = sum((requests for pod, requests in pods.items() if not pod.startswith(NAME)), Requests())
        if problem := error_budget.worse(canary, others):
            raise CannotProceed(f"the canary is worse than the other pods: {problem}")
        is_over = time.monotonic() >= end
    report(f"Canary: {canary}. Other pods: {others}.")


def _show_log(cluster: Kubernetes) -> None:
    try:
        report(cluster.run("logs", f"deployment/{NAME}", "--namespace", NAMESPACE, f"--tail={_LAST_LINES}").rstrip())
    except CannotProceed as error:
        report(f"Cannot show the canary's log: {error}")
