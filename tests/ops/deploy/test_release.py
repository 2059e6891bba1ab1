"""python -m ops accept and rollback: the last good release is kept, and comes back with its settings."""

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.deploy import manifests, release
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import kubernetes
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.steps import IMAGE
from tests.ops.deploy.fixtures import (
    NAMESPACE,
    Account,
    MockAws,
    NoLoadBalancers,
    Run,
    names,
    namespaced,
    running_cluster,
)
from tests.ops.deploy.serving_pods import ServingPods

BAD = IMAGE.replace("5ca1ab1e", "0ddba115")
WORSE = IMAGE.replace("5ca1ab1e", "baadf00d")
SERVICE = "clients-api"


@pytest.fixture(name="pods")
def make_pods(tmp_path: Path) -> ServingPods:
    """The pods of the service, whose requests succeed."""
    return ServingPods({}, tmp_path / "pods", NoLoadBalancers(), responses={SERVICE: (200, 5.0)})


@pytest.fixture(name="cluster")
def run_cluster(
    mock_aws: MockAws, account: Account, pods: ServingPods, monkeypatch: pytest.MonkeyPatch
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the database's Secret and no release."""
    monkeypatch.setattr(release, "_POLL_SECONDS", 0.1)
    secret = namespaced("Secret", "database", stringData={"DB_HOST": "db.example"})
    with running_cluster(mock_aws, account, pods.running, [NAMESPACE, secret]) as cluster:
        yield cluster


@pytest.fixture(name="change_settings")
def make_change_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Changes a setting of the checkout, as the next release does."""

    def change() -> None:
        folder = tmp_path / "k8s"
        shutil.copytree(manifests.FOLDER, folder)
        monkeypatch.setattr(manifests, "FOLDER", folder)
        settings = folder / "base" / "settings.env"
        settings.write_text(settings.read_text().replace("DB_POOL_SIZE=3", "DB_POOL_SIZE=300"))

    return change


def deployment(cluster: kubernetes.Cluster) -> Object:
    (service,) = [one for one in cluster.objects("deployments") if one["metadata"]["name"] == SERVICE]
    return service


def running(cluster: kubernetes.Cluster) -> tuple[str, str]:
    """Returns the image of the service's pods, and the DB_POOL_SIZE of their settings."""
    (container,) = deployment(cluster)["spec"]["template"]["spec"]["containers"]
    name = container["envFrom"][0]["configMapRef"]["name"]
    (settings,) = [one for one in cluster.objects("configmaps") if one["metadata"]["name"] == name]
    return container["image"], settings["data"]["DB_POOL_SIZE"]


def fingerprints(cluster: kubernetes.Cluster) -> set[str]:
    """Returns the annotations of the service's pods which say with which Secret they started."""
    pods = [one for one in cluster.objects("pods") if one["metadata"]["name"].startswith(SERVICE)]
    return {one["metadata"]["annotations"]["olimac.link/database-secret"] for one in pods}


def deploy(run: Run, image: str) -> None:
    assert run("apply", "production", "--image", image).status == 0


def test_the_last_good_release_comes_back_with_its_settings(
    cluster: kubernetes.Cluster, run: Run, change_settings: Callable[[], None]
) -> None:
    """The command says what it did, also where several releases failed in between."""
    deploy(run, IMAGE)
    accepted = run("accept", "--image", IMAGE, "--seconds", "1")
    change_settings()
    deploy(run, BAD)
    deploy(run, WORSE)
    before = running(cluster)

    result = run("rollback")

    assert (accepted.status, result.status) == (0, 0)
    assert f"The last good release is now {IMAGE}.\n" in accepted.stdout
    assert (before, running(cluster)) == ((WORSE, "300"), (IMAGE, "3"))
    assert f"Going back from {WORSE} to {IMAGE}\n" in result.stdout
    assert 'deployment "clients-api" successfully rolled out' in result.stdout
    assert f"The service runs the last good release, {IMAGE}." in result.stdout


def test_a_rollback_keeps_the_present_database(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """The service has moved since the last good release: neither the old Secret nor pods with it come back."""
    deploy(run, IMAGE)
    run("accept", "--image", IMAGE, "--seconds", "0")
    (before,) = fingerprints(cluster)
    moved = namespaced("Secret", "database", stringData={"DB_HOST": "restored.example"})
    Kubernetes(account.outputs).apply(moved)
    deploy(run, BAD)

    assert run("rollback").status == 0
    assert running(cluster) == (IMAGE, "3")
    (after,) = fingerprints(cluster)
    assert after != before
    (secret,) = cluster.objects("secrets")
    assert base64.b64decode(secret["data"]["DB_HOST"]) == b"restored.example"


def test_a_rollback_can_run_again(cluster: kubernetes.Cluster, run: Run) -> None:
    """It leaves the last good release as it is."""
    deploy(run, IMAGE)
    run("accept", "--image", IMAGE, "--seconds", "0")

    result = run("rollback")

    assert result.status == 0
    assert f"The service runs {IMAGE}: restoring it" in result.stdout
    assert running(cluster) == (IMAGE, "3")


def test_without_a_good_release_a_rollback_only_removes_a_canary(
    cluster: kubernetes.Cluster, account: Account, run: Run
) -> None:
    """The first release has none before it."""
    deploy(run, IMAGE)
    spec = deployment(cluster)["spec"]
    metadata = {"name": "clients-api-canary", "namespace": "clients"}
    Kubernetes(account.outputs).apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    )

    result = run("rollback")

    assert result.status == 1
    assert result.stderr == "error: no release has proved itself yet, so there is none to go back to\n"
    assert names(cluster.objects("deployments")) == [SERVICE, "cluster-autoscaler"]


def test_a_release_that_burns_a_budget_is_not_accepted(
    cluster: kubernetes.Cluster, run: Run, pods: ServingPods
) -> None:
    """The one before it stays the last good release."""
    deploy(run, IMAGE)
    run("accept", "--image", IMAGE, "--seconds", "0")
    deploy(run, BAD)
    pods.responses[SERVICE] = (500, 5.0)

    result = run("accept", "--image", BAD, "--seconds", "5")

    assert result.status == 1
    assert "error budget as fast as an alarm's page: 200 of 200 requests got a server error\n" in result.stderr
    (kept,) = [one for one in cluster.objects("configmaps") if one["metadata"]["name"] == "last-good-release"]
    assert kept["data"]["image"] == IMAGE


@pytest.mark.parametrize("is_deployed", [False, True])
def test_only_the_release_that_runs_is_accepted(cluster: kubernetes.Cluster, run: Run, is_deployed: bool) -> None:
    """Another image has not proved itself."""
    if is_deployed:
        deploy(run, IMAGE)

    result = run("accept", "--image", BAD)

    runs = IMAGE if is_deployed else "no release"
    assert result == (1, "", f"error: the service runs {runs}, not {BAD}: deploy it first\n")
    assert "last-good-release" not in names(cluster.objects("configmaps"))


@pytest.mark.usefixtures("cluster")
def test_a_dry_run_says_where_it_would_go(run: Run) -> None:
    """It changes nothing."""
    assert run("rollback", "--dry-run").stdout == "Would go back from no release to nothing: no release was kept\n"
    deploy(run, IMAGE)
    run("accept", "--image", IMAGE, "--seconds", "0")
    deploy(run, BAD)
    assert run("rollback", "--dry-run").stdout == f"Would go back from {BAD} to {IMAGE}\n"
