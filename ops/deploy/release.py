"""The last good release: it is kept in the cluster once it has proved itself, and a rollback brings it back.

All of its objects are kept as they were applied, so that its settings come back with its image. They stay until another
release has proved itself, however many fail in between. The database's Secret is not among them: a rollback keeps the
present one, also after the service has moved to another database or has a new password.
"""

import time
from datetime import UTC, datetime
from typing import Final

from ops.deploy import canary, error_budget, manifests
from ops.deploy.common import CannotProceed, Outputs, report
from ops.deploy.error_budget import Requests
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import NAMESPACE, ROLLOUT_SECONDS, SELECTOR, roll_out, running_image

CONFIG_MAP: Final = "last-good-release"
SECONDS: Final = 300.0

_POLL_SECONDS: Final = 10.0
_NO_RELEASE: Final = "no release"


def accept(outputs: Outputs, image: str, environment: str, *, seconds: float = SECONDS, dry_run: bool = False) -> None:
    """Watches the first minutes of the release that runs, and then keeps it as the one to go back to.

    Args:
        outputs: of Terraform.
        image: the release's image by digest.
        environment: its overlay in k8s/overlays.
        seconds: how long to watch.
        dry_run: only print what would happen.

    Raises:
        CannotProceed: the cluster runs another image, or an error budget burns.
    """
    rendered = manifests.render(environment, outputs, image)
    if dry_run:
        report(f"Would watch {image} for {seconds:.0f} s, and keep it as the last good release")
        return
    cluster = Kubernetes(outputs)
    running = running_image(cluster) or _NO_RELEASE
    if running != image:
        raise CannotProceed(f"the service runs {running}, not {image}: deploy it first")
    _watch(cluster, image, seconds)
    metadata = {"name": CONFIG_MAP, "namespace": NAMESPACE}
    data = {"image": image, "manifests": rendered}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    report(f"The last good release is now {image}.")


def rollback(outputs: Outputs, *, timeout: float = ROLLOUT_SECONDS, dry_run: bool = False) -> None:
    """Removes a canary, brings the last good release back, and waits until its pods serve.

    The database's schema stays as it is: the last good release works on a newer one.

    Raises:
        CannotProceed: no release was kept, or its pods did not become available in time.
    """
    cluster = Kubernetes(outputs)
    kept = cluster.get(NAMESPACE, "configmap", CONFIG_MAP)
    running = running_image(cluster) or _NO_RELEASE
    if dry_run:
        report(f"Would go back from {running} to {kept['data']['image'] if kept else 'nothing: no release was kept'}")
        return
    canary.remove(cluster)
    if kept is None:
        raise CannotProceed("no release has proved itself yet, so there is none to go back to")
    image = kept["data"]["image"]
    report(f"Going back from {running} to {image}" if running != image else f"The service runs {image}: restoring it")
    roll_out(cluster, manifests.parse(kept["data"]["manifests"]), timeout=timeout)
    report(f"The service runs the last good release, {image}. The database's schema is as it was before.")


def _pods(cluster: Kubernetes, image: str) -> list[str]:
    """Returns the names of the pods with this image: those of the release before may still be stopping."""
    found = cluster.find_all(NAMESPACE, "pods", SELECTOR)
    return [one["metadata"]["name"] for one in found if one["spec"]["containers"][0]["image"] == image]


def _watch(cluster: Kubernetes, image: str, seconds: float) -> None:
    """Reads the requests of the release's pods until the time is over or an error budget burns."""
    started = datetime.now(UTC)
    end = time.monotonic() + seconds
    report(f"Watching the release for {seconds:.0f} s")
    is_over = False
    while not is_over:
        time.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        by_pod = error_budget.read(cluster, started)
        requests = sum((by_pod.get(pod, Requests()) for pod in _pods(cluster, image)), Requests())
        if problem := error_budget.burning(requests):
            raise CannotProceed(f"the release consumes an error budget as fast as an alarm's page: {problem}")
        is_over = time.monotonic() >= end
    report(f"The release's pods: {requests}.")
