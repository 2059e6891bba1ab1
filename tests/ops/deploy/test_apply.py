"""python -m ops apply: applies the objects of an overlay to the cluster."""

import base64
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.deploy import manifests
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.kubernetes import kubectl as kubectl_command
from ops.rehearsal import kubernetes
from ops.rehearsal.certificates import create_ca
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.environment import is_eks_token
from ops.rehearsal.kubernetes import Store
from ops.rehearsal.steps import IMAGE
from tests.ops.deploy.fixtures import (
    NAMESPACE,
    Account,
    Kubectl,
    MockAws,
    NoLoadBalancers,
    Run,
    all_objects,
    names,
    namespaced,
    running_cluster,
)

PRODUCTION = ("apply", "production", "--image", IMAGE)


@pytest.fixture(name="cluster")
def run_prepared_cluster(mock_aws: MockAws, account: Account, tmp_path: Path) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the database's Secret, which reports all pods as available."""
    controllers = Controllers({}, tmp_path / "pods", NoLoadBalancers())
    secret = namespaced("Secret", "database", stringData={"DB_HOST": "db.example"})
    with running_cluster(mock_aws, account, controllers.running, [NAMESPACE, secret]) as cluster:
        yield cluster


def image_in(deployment: dict[str, Any]) -> str:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image: str = container["image"]
    return image


def without_revisions(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "metadata": {**one["metadata"], "resourceVersion": ""}} for one in objects]


def test_the_objects_of_production_are_created(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """The image and the values of Terraform are filled in."""
    result = run(*PRODUCTION)

    assert (result.status, result.stderr) == (0, "")
    assert "deployment.apps/clients-api serverside-applied" in result.stdout
    found = {one["metadata"]["name"]: one for one in cluster.objects("deployments")}
    assert sorted(found) == ["clients-api", "cluster-autoscaler"]
    assert image_in(found["clients-api"]) == IMAGE
    (service,) = cluster.objects("services")
    certificate = service["metadata"]["annotations"]["service.beta.kubernetes.io/aws-load-balancer-ssl-cert"]
    assert certificate == account.outputs.certificate_arn


def test_the_objects_of_staging_are_created(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """The same values are filled in as for production, and there are fewer pods at most."""
    assert run("apply", "staging", "--image", IMAGE).status == 0
    assert IMAGE in map(image_in, cluster.objects("deployments"))
    (scaler,) = cluster.objects("horizontalpodautoscalers")
    assert scaler["spec"]["maxReplicas"] == 3
    assert account.outputs.certificate_arn in str(cluster.objects("services"))


def test_the_objects_of_monitoring_are_created(cluster: kubernetes.Cluster, run: Run) -> None:
    """They have their own namespace, and there is no Secret."""
    assert run("apply", "monitoring", "--image", IMAGE).status == 0
    assert "telemetry" in names(cluster.objects("namespaces"))
    assert names(cluster.objects("secrets")) == ["database"]


def test_a_second_apply_changes_nothing(cluster: kubernetes.Cluster, run: Run) -> None:
    """No object is recreated, and none is added."""
    first, before = run(*PRODUCTION), without_revisions(all_objects(cluster))
    second, after = run(*PRODUCTION), without_revisions(all_objects(cluster))

    assert (first.status, second.status) == (0, 0)
    assert before == after


def test_another_image_replaces_the_first(cluster: kubernetes.Cluster, run: Run) -> None:
    """Each push to main does this."""
    other = IMAGE.replace("5ca1ab1e", "0ddba115")
    run(*PRODUCTION)

    assert run("apply", "production", "--image", other).status == 0
    assert other in map(image_in, cluster.objects("deployments"))


# --- The pods


def fingerprint(cluster: kubernetes.Cluster) -> str:
    """Returns the fingerprint of the database's Secret in the pod template of the service."""
    (service,) = [one for one in cluster.objects("deployments") if one["metadata"]["name"] == "clients-api"]
    annotation: str = service["spec"]["template"]["metadata"]["annotations"]["olimac.link/database-secret"]
    return annotation


def test_the_pods_are_replaced_if_the_databases_secret_has_changed(
    cluster: kubernetes.Cluster, account: Account, run: Run
) -> None:
    """A pod reads it only at its start."""
    run(*PRODUCTION)
    first = fingerprint(cluster)
    changed = namespaced("Secret", "database", stringData={"DB_HOST": "other.example"})
    Kubernetes(account.outputs).apply(changed)

    assert run(*PRODUCTION).status == 0
    assert fingerprint(cluster) != first


def test_without_the_databases_secret_nothing_is_applied(mock_aws: MockAws, account: Account, run: Run) -> None:
    """The pods could not start; the step before this one creates the Secret."""
    with running_cluster(mock_aws, account, objects=[NAMESPACE]) as cluster:
        before = all_objects(cluster)
        result = run(*PRODUCTION)

        assert result == (1, "", "error: the Secret database does not exist: prepare the database first\n")
        assert all_objects(cluster) == before


@pytest.mark.parametrize(
    ("overlay", "workload"),
    [
        ("production", "deployment/clients-api"),
        ("production", "deployment/cluster-autoscaler"),
        ("monitoring", "deployment/collector"),
        ("monitoring", "daemonset/fluent-bit"),
        ("monitoring", "daemonset/container-insights"),
    ],
)
def test_pods_that_do_not_become_available_are_an_error(
    mock_aws: MockAws,
    account: Account,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overlay: str,
    workload: str,
) -> None:
    """The command waits for each Deployment and DaemonSet, and names the one whose pods are missing."""

    class AllButOne(Controllers):
        async def _roll_out(self, store: Store, deployment: kubernetes.Object, *, is_deleted: bool) -> None:
            if f"deployment/{deployment['metadata']['name']}" != workload:
                await super()._roll_out(store, deployment, is_deleted=is_deleted)

        async def _report_available(self, store: Store, daemon_set: kubernetes.Object, *, is_deleted: bool) -> None:
            if f"daemonset/{daemon_set['metadata']['name']}" != workload:
                await super()._report_available(store, daemon_set, is_deleted=is_deleted)

    wait_for_rollout = Kubernetes.wait_for_rollout

    def wait_less_for_it(cluster: Kubernetes, namespace: str, name: str, *, timeout: float) -> None:
        wait_for_rollout(cluster, namespace, name, timeout=1 if name == workload else timeout)

    monkeypatch.setattr(Kubernetes, "wait_for_rollout", wait_less_for_it)
    controllers = AllButOne({}, tmp_path / "pods", NoLoadBalancers())
    secret = namespaced("Secret", "database", stringData={"DB_HOST": "db.example"})
    with running_cluster(mock_aws, account, controllers.running, [NAMESPACE, secret]):
        result = run("apply", overlay, "--image", IMAGE)

    assert result.status == 1
    assert result.stdout.rstrip().endswith(f"Waiting for the rollout of {workload}")
    assert "kubectl rollout failed: " in result.stderr
    assert "timed out" in result.stderr


@pytest.mark.parametrize(
    "image", ["clients-api", "docker.io/olimac/clients-api:latest", "clients-api@sha256:", IMAGE[:-1]]
)
def test_an_image_without_a_digest_is_an_error(cluster: kubernetes.Cluster, run: Run, image: str) -> None:
    """Two pods could run different images of the same name."""
    before = all_objects(cluster)

    result = run("apply", "production", "--image", image)

    assert result.status == 1
    assert result.stderr.startswith(f"error: the image {image} has no digest (name@sha256:…)")
    assert all_objects(cluster) == before


@pytest.mark.parametrize("overlay", ["testing", "../production", ""])
def test_an_unknown_overlay_is_an_error(run: Run, overlay: str) -> None:
    """The message lists the overlays that exist."""
    result = run("apply", overlay, "--image", IMAGE)

    assert result.status == 2
    assert "choose from" in result.stderr
    assert "production" in result.stderr


@pytest.mark.usefixtures("account")
def test_a_missing_kubectl_is_an_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command does nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    result = run(*PRODUCTION)

    message = "error: kubectl is missing; its version must be within one minor version of the cluster's\n"
    assert result == (1, "", message)


def test_a_cluster_that_is_being_created_is_an_error(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """Its API is not available before it is active."""
    account.cluster.status = "CREATING"
    before = all_objects(cluster)

    result = run(*PRODUCTION)

    assert result == (1, "", "error: the cluster olimac is CREATING; run this again when it is ACTIVE\n")
    assert all_objects(cluster) == before


def test_objects_are_applied_while_the_cluster_is_updated(
    cluster: kubernetes.Cluster, account: Account, run: Run
) -> None:
    """Its API stays available."""
    account.cluster.status = "UPDATING"

    assert run(*PRODUCTION).status == 0
    assert "clients-api" in names(cluster.objects("deployments"))


def test_an_object_that_the_api_refuses_is_an_error(
    cluster: kubernetes.Cluster, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the object and the invalid field."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    deployment = folder / "base" / "deployment.yaml"
    deployment.write_text(deployment.read_text().replace("minReadySeconds: 15", "minReadySeconds: soon"))

    result = run(*PRODUCTION)

    assert result.status == 1
    assert result.stderr.startswith("error: kubectl apply failed: ")
    assert 'Deployment "clients-api" is invalid: spec.minReadySeconds' in result.stderr
    assert "clients-api" not in names(cluster.objects("deployments"))


def test_an_overlay_that_kustomize_cannot_render_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubectl: Kubectl
) -> None:
    """Nothing is applied."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    (folder / "base" / "deployment.yaml").unlink()

    result = run(*PRODUCTION)

    assert result.status == 1
    assert result.stderr.startswith("error: kubectl kustomize failed: ")
    assert "deployment.yaml" in result.stderr
    assert [call.arguments[0] for call in kubectl.calls()] == ["kustomize"]


def test_an_overlay_with_an_unknown_value_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value was added to the overlay but not to the values that the command fills in."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    with (folder / "overlays" / "production" / "deployment.env").open("a") as values:
        values.write("MOON=\n")

    assert run(*PRODUCTION) == (1, "", "error: the overlay production needs a value for MOON\n")


def test_an_unreachable_api_is_an_error(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """For example, the API is private and this machine is outside its network."""
    account.cluster.endpoint = "https://127.0.0.1:1"

    result = run(*PRODUCTION)

    assert result.status == 1
    assert result.stderr.startswith("error: kubectl get failed: ")
    assert "connection refused" in result.stderr
    assert cluster.objects("deployments") == []


def test_an_api_with_another_certificate_gets_no_request(
    cluster: kubernetes.Cluster, account: Account, run: Run, tmp_path: Path
) -> None:
    """The CA of EKS did not sign it, so this server could be an impostor and gets no token."""
    other_ca = create_ca(tmp_path).certificate.read_bytes()
    account.cluster.certificate_authority = {"data": base64.b64encode(other_ca).decode()}

    result = run(*PRODUCTION)

    assert result.status == 1
    assert "certificate" in result.stderr
    assert cluster.objects("deployments") == []


@pytest.mark.usefixtures("cluster")
def test_the_token_is_an_eks_token_and_stays_secret(kubectl: Kubectl, run: Run, account: Account) -> None:
    """It is only in a temporary file that its owner alone may read, on no command line and in no output."""
    result = run(*PRODUCTION)

    assert result.status == 0
    kustomize, *calls = kubectl.calls()
    assert kustomize.config == {}
    (apply,) = [call for call in calls if call.arguments[0] == "apply"]
    (user,) = apply.config["users"]
    token = user["user"]["token"]
    assert is_eks_token(token)
    assert stat.S_IMODE(int(apply.mode, 8)) == 0o600
    assert not Path(apply.file).exists()
    assert all(token not in argument for call in kubectl.calls() for argument in call.arguments)
    assert token not in result.stdout + result.stderr + apply.stdin
    # The signature is valid for this cluster only.
    url = base64.urlsafe_b64decode(token.removeprefix("k8s-aws-v1.") + "==").decode()
    assert url.startswith(f"https://sts.{account.outputs.region}.amazonaws.com/?Action=GetCallerIdentity")
    assert "X-Amz-Expires=60" in url


def test_a_token_that_the_api_refuses_is_an_error(
    cluster: kubernetes.Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is not an administrator of the cluster."""
    monkeypatch.setattr("ops.deploy.kubernetes.token", lambda *_: "k8s-aws-v1.nobody")

    result = run(*PRODUCTION)

    assert result.status == 1
    assert result.stderr.startswith("error: kubectl get failed: ")
    assert "asked for the client to provide credentials" in result.stderr
    assert cluster.objects("deployments") == []


def test_kubectl_has_a_timeout(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, kubectl is killed and the command fails."""
    script = tmp_path / "kubectl"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(kubectl_command, "__kwdefaults__", {"stdin": None, "timeout": 0.2})

    assert run(*PRODUCTION) == (1, "", "error: kubectl kustomize took longer than 0 s\n")


def test_a_dry_run_prints_the_objects(cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """It prints YAML, and calls neither the cluster nor AWS."""
    before = all_objects(cluster)

    result = run(*PRODUCTION, "--dry-run")

    assert result.status == 0
    kinds = [one["kind"] for one in yaml.safe_load_all(result.stdout)]
    assert {"Namespace", "Deployment", "Service"} <= set(kinds)
    assert IMAGE in result.stdout
    assert account.proxy.calls == []
    assert all_objects(cluster) == before
