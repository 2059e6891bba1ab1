"""python -m ops canary: one pod of the new build serves beside the others, and is compared with them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.deploy import canary
from ops.rehearsal import kubernetes
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.steps import IMAGE
from tests.ops.deploy.fixtures import (
    NAMESPACE,
    Account,
    MockAws,
    NoLoadBalancers,
    Result,
    Run,
    names,
    namespaced,
    running_cluster,
)
from tests.ops.deploy.serving_pods import ServingPods

NEW = IMAGE.replace("5ca1ab1e", "0ddba115")
CANARY, SERVICE = "clients-api-canary", "clients-api"


@pytest.fixture(name="pods")
def make_pods(tmp_path: Path) -> ServingPods:
    """The pods of the service and of its canary; all requests succeed."""
    responses = {SERVICE: (200, 5.0), CANARY: (200, 5.0)}
    return ServingPods({}, tmp_path / "pods", NoLoadBalancers(), responses=responses)


@pytest.fixture(name="cluster")
def run_cluster(mock_aws: MockAws, account: Account, pods: ServingPods) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the database's Secret and no release."""
    secret = namespaced("Secret", "database", stringData={"DB_HOST": "db.example"})
    with running_cluster(mock_aws, account, pods.running, [NAMESPACE, secret]) as cluster:
        yield cluster


@pytest.fixture(name="compare")
def make_compare(run: Run, monkeypatch: pytest.MonkeyPatch, cluster: kubernetes.Cluster) -> Callable[..., Result]:
    """Rolls a release out, and runs the command with the next one."""
    monkeypatch.setattr(canary, "_POLL_SECONDS", 0.1)

    def compare(*options: str) -> Result:
        assert run("apply", "production", "--image", IMAGE).status == 0
        result = run("canary", "--image", NEW, "--seconds", "1", *options)
        # Whatever came of it, the canary is gone and the release as before.
        assert names(cluster.objects("deployments")) == [SERVICE, "cluster-autoscaler"]
        assert [image(one) for one in cluster.objects("pods")] == [IMAGE, IMAGE]
        return result

    return compare


def image(pod: Object) -> str:
    found: str = pod["spec"]["containers"][0]["image"]
    return found


def test_before_the_first_release_there_is_no_canary(cluster: kubernetes.Cluster, run: Run) -> None:
    """There is nothing to compare it with."""
    result = run("canary", "--image", NEW)

    assert result == (0, "No release runs yet with which a canary could be compared.\n", "")
    assert cluster.objects("deployments") == []


def test_a_canary_that_is_as_good_as_the_others_passes(compare: Callable[[], Result]) -> None:
    """The report has the requests of both."""
    result = compare()

    assert (result.status, result.stderr) == (0, "")
    assert "Canary: 100 requests, 0 with a server error" in result.stdout
    assert "Other pods: 200 requests, 0 with a server error" in result.stdout


def test_a_canary_whose_requests_fail_is_an_error(compare: Callable[[], Result], pods: ServingPods) -> None:
    """The message has the figures of both."""
    pods.responses[CANARY] = (500, 5.0)

    result = compare()

    assert result.status == 1
    expected = "100 of its 100 requests got a server error, but 0 of 200 of the other pods"
    assert result.stderr == f"error: the canary is worse than the other pods: {expected}\n"


def test_a_canary_whose_requests_are_slow_is_an_error(compare: Callable[[], Result], pods: ServingPods) -> None:
    """They miss the latency objective."""
    pods.responses[CANARY] = (200, 500.0)

    result = compare()

    assert result.status == 1
    assert "100 of its 100 requests took longer than 100 ms" in result.stderr


def test_an_outage_of_all_pods_is_not_the_canarys(compare: Callable[[], Result], pods: ServingPods) -> None:
    """A release that mends it must get through."""
    pods.responses = {SERVICE: (503, 5.0), CANARY: (503, 5.0)}

    assert compare().status == 0


def test_without_requests_a_canary_passes(compare: Callable[[], Result], pods: ServingPods) -> None:
    """It became ready and stayed so; the smoke test follows."""
    pods.responses = {}

    result = compare()

    assert result.status == 0
    assert "Canary: 0 requests" in result.stdout


def test_a_canary_that_does_not_become_ready_is_an_error(compare: Callable[..., Result], pods: ServingPods) -> None:
    """Its log is shown."""
    pods.not_ready = {CANARY}
    pods.responses = {}

    result = compare("--timeout", "3")

    assert result.status == 1
    assert "no requests" in result.stdout  # the log
    assert "kubectl rollout failed: " in result.stderr


def test_a_canary_that_does_not_stay_ready_is_an_error(
    compare: Callable[[], Result], pods: ServingPods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, its process crashed after it had been ready."""
    monkeypatch.setattr("ops.deploy.kubernetes.Kubernetes.wait_for_rollout", lambda *_, **__: None)
    pods.not_ready = {CANARY}

    result = compare()

    assert result.status == 1
    assert "the canary is no longer ready; see its log above" in result.stderr


def test_the_canary_gets_its_share_of_requests_and_policies(
    cluster: kubernetes.Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Service and the policies select its pod; its own selector selects only that; it has its build's settings."""
    run("apply", "production", "--image", IMAGE)
    seen: list[Object] = []
    monkeypatch.setattr(canary, "_compare", lambda *_: seen.extend(cluster.objects("deployments")))
    run("canary", "--image", NEW)
    by_name = {one["metadata"]["name"]: one["spec"] for one in seen}
    labels = by_name[CANARY]["template"]["metadata"]["labels"]
    (service,) = cluster.objects("services")
    (budget,) = cluster.objects("poddisruptionbudgets")
    own = by_name[SERVICE]["template"]["metadata"]["labels"]

    assert by_name[CANARY]["replicas"] == 1
    assert service["spec"]["selector"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert own.items() < labels.items()  # so each network policy that selects those pods selects this one
    assert not by_name[CANARY]["selector"]["matchLabels"].items() <= own.items()
    (container,) = by_name[CANARY]["template"]["spec"]["containers"]
    settings = container["envFrom"][0]["configMapRef"]["name"]
    assert settings in names(cluster.objects("configmaps"))
