"""Loads a real cluster until its autoscaler of pods adds some, and waits until it removes one."""

import os
import subprocess
import time

from ops.deploy.common import Outputs, wait_for
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import DEPLOYMENT, NAMESPACE

_ROUND_SECONDS = 15
_MORE_SECONDS = 120.0  # metrics are read each 15 s
_FEWER_SECONDS = 420.0  # the autoscaler waits for 300 s


def test_load_makes_pods_and_then_fewer(outputs: Outputs) -> None:
    """The load is sent to a node, past the balancer, which would need more CPU than the service."""
    kubernetes = Kubernetes(outputs)

    def replicas() -> int:
        scaler = kubernetes.get(NAMESPACE, "horizontalpodautoscaler", DEPLOYMENT)
        assert scaler
        number: int = scaler["status"]["currentReplicas"]
        return number

    service = kubernetes.get(NAMESPACE, "service", DEPLOYMENT)
    assert service
    (port,) = service["spec"]["ports"]
    url = f"http://{os.environ['REHEARSAL_NODE']}:{port['nodePort']}/get/1"
    least, started = replicas(), time.monotonic()
    while True:
        subprocess.run(["wrk", "-t2", "-c64", f"-d{_ROUND_SECONDS}s", url], check=True)  # noqa: S607
        if (most := replicas()) > least:
            break
        assert time.monotonic() - started < _MORE_SECONDS, f"still {least} pods"

    def has_fewer() -> bool | None:
        nonlocal most
        most = max(most, replicas())
        return replicas() < most or None

    wait_for(f"fewer pods than {most}", has_fewer, timeout=_FEWER_SECONDS)
