"""The cloud controller for kind: Services of type LoadBalancer have their load balancer, and lose it."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from ops.deploy.common import CannotProceed
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import kubernetes
from ops.rehearsal.kind import balancers
from ops.rehearsal.kind.balancers import CloudController
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.load_balancer import Refused
from ops.rehearsal.tls import Address
from tests.ops.deploy.fixtures import NAMESPACE, Account, MockAws, namespaced, running_cluster

PORTS = [{"port": 443, "nodePort": 30443}]
SERVICE = namespaced("Service", "clients-api", spec={"type": "LoadBalancer", "ports": PORTS})
INTERNAL = namespaced("Service", "internal", spec={"ports": [{"port": 80}]})


@dataclass
class Cloud:
    """Records what is created and deleted.

    Attributes:
        created: the names of Services, once for each call.
        deleted: likewise.
        upstream: of the last load balancer.
        refusals: how many creations fail.
    """

    created: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    upstream: Callable[[], Address | None] = lambda: None
    refusals: int = 0

    def create(self, service: Object, upstream: Callable[[], Address | None]) -> str:
        if self.refusals:
            self.refusals -= 1
            raise Refused("a wrong annotation")
        self.created.append(service["metadata"]["name"])
        self.upstream = upstream
        return "a.example"

    def delete(self, service: Object) -> None:
        self.deleted.append(service["metadata"]["name"])


@pytest.fixture(name="cluster")
def run_cluster(mock_aws: MockAws, account: Account) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with a Service for callers from outside, and one for other pods."""
    with running_cluster(mock_aws, account, objects=[NAMESPACE, SERVICE, INTERNAL]) as cluster:
        yield cluster


@pytest.fixture(name="cloud")
def make_cloud() -> Cloud:
    return Cloud()


@pytest.fixture(name="controller")
def make_controller(cluster: kubernetes.Cluster, account: Account, cloud: Cloud) -> CloudController:
    assert cluster.objects("services")
    return CloudController(Kubernetes(account.outputs).run, ["10.0.0.2", "10.0.0.3"], cloud)


def test_a_service_gets_one_load_balancer(controller: CloudController, cloud: Cloud) -> None:
    """Nothing happens while the Service is as it was; connections go to its port of each node by turns."""
    controller.reconcile()
    controller.reconcile()

    assert cloud.created == ["clients-api"]
    assert [cloud.upstream() for _ in range(3)] == [("10.0.0.2", 30443), ("10.0.0.3", 30443), ("10.0.0.2", 30443)]


def test_a_changed_service_is_configured_again(controller: CloudController, cloud: Cloud, account: Account) -> None:
    """Its annotations configure the load balancer."""
    controller.reconcile()
    metadata = {**SERVICE["metadata"], "annotations": {"a": "b"}}
    Kubernetes(account.outputs).apply({**SERVICE, "metadata": metadata})
    controller.reconcile()

    assert (cloud.created, cloud.deleted) == (["clients-api"] * 2, [])


def test_the_load_balancer_goes_with_its_service(controller: CloudController, cloud: Cloud, account: Account) -> None:
    """As `teardown` expects."""
    controller.reconcile()
    Kubernetes(account.outputs).delete("clients", "service", "clients-api", timeout=60)
    controller.reconcile()
    controller.reconcile()

    assert cloud.deleted == ["clients-api"]


def test_a_service_that_is_refused_is_tried_again(
    controller: CloudController, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged, as a cluster has it in an event; a cluster that does not respond is asked again, too."""
    monkeypatch.setattr(balancers, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(logging.getLogger(balancers.__name__), "propagate", True)
    cloud.refusals = 2
    has_failed, kubectl = threading.Event(), controller.kubectl

    def failing_once(*arguments: str) -> str:
        if not has_failed.is_set():
            has_failed.set()
            raise CannotProceed("kubectl get failed")
        return kubectl(*arguments)

    controller.kubectl = failing_once
    with controller.running():
        while not cloud.created:
            threading.Event().wait(0.01)

    assert "a wrong annotation" in caplog.text
    assert "kubectl get failed" in caplog.text
