"""Drains a node of a real cluster, as an upgrade of the nodes does; the rehearsal sends requests meanwhile."""

from ops.deploy.common import Outputs
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import DEPLOYMENT, NAMESPACE, SELECTOR

_SECONDS = 300


def test_a_drained_node_has_no_pod_of_the_service(outputs: Outputs) -> None:
    """Its pods are replaced on the other node, which the disruption budget lets happen only one by one."""
    kubernetes = Kubernetes(outputs)

    def nodes() -> list[str]:
        return [pod["spec"]["nodeName"] for pod in kubernetes.find_all(NAMESPACE, "pods", SELECTOR)]

    drained = nodes()[0]
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={_SECONDS}s")
    try:
        kubernetes.run("drain", drained, *options, timeout=_SECONDS + 60)
        kubernetes.wait_for_rollout(NAMESPACE, f"deployment/{DEPLOYMENT}", timeout=_SECONDS)

        assert drained not in nodes()
    finally:
        kubernetes.run("uncordon", drained)
