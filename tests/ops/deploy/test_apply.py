"""python -m ops apply: the cluster's objects become what an overlay says."""

import base64
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.deploy import manifests
from ops.deploy.kubernetes import kubectl as kubectl_command
from ops.rehearsal import kubernetes
from ops.rehearsal.certificates import authority
from ops.rehearsal.steps import IMAGE
from ops.rehearsal.world import is_signed
from tests.ops.deploy.cloud import (
    Cloud,
    Kubectl,
    Run,
    all_objects,
    names,
)

PRODUCTION = ("apply", "production", "--image", IMAGE)


def image_of(deployment: dict[str, Any]) -> str:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image: str = container["image"]
    return image


def without_revisions(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "metadata": {**one["metadata"], "resourceVersion": ""}} for one in objects]


def test_the_objects_of_production_are_there(cluster: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """With the image, and what only Terraform knows, filled in."""
    done = run(*PRODUCTION)

    assert (done.status, done.error) == (0, "")
    assert "deployment.apps/clients-api serverside-applied" in done.said
    found = {one["metadata"]["name"]: one for one in cluster.objects("deployments")}
    assert sorted(found) == ["clients-api", "cluster-autoscaler"]
    assert image_of(found["clients-api"]) == IMAGE
    (service,) = cluster.objects("services")
    certificate = service["metadata"]["annotations"]["service.beta.kubernetes.io/aws-load-balancer-ssl-cert"]
    assert certificate == cloud.outputs.certificate_arn


def test_the_objects_of_monitoring_are_there(cluster: kubernetes.Cluster, run: Run) -> None:
    """In their own namespace, and no Secret among them."""
    assert run("apply", "monitoring", "--image", IMAGE).status == 0
    assert "telemetry" in names(cluster.objects("namespaces"))
    assert cluster.objects("secrets") == []


def test_applying_twice_is_the_same_as_once(cluster: kubernetes.Cluster, run: Run) -> None:
    """Nothing is made anew, and nothing is left over."""
    first, before = run(*PRODUCTION), without_revisions(all_objects(cluster))
    second, after = run(*PRODUCTION), without_revisions(all_objects(cluster))

    assert (first.status, second.status) == (0, 0)
    assert before == after


def test_another_image_takes_the_place_of_the_first(cluster: kubernetes.Cluster, run: Run) -> None:
    """What a push to main does each time."""
    other = IMAGE.replace("5ca1ab1e", "0ddba115")
    run(*PRODUCTION)

    assert run("apply", "production", "--image", other).status == 0
    assert other in map(image_of, cluster.objects("deployments"))


@pytest.mark.parametrize(
    "image", ["clients-api", "docker.io/olimac/clients-api:latest", "clients-api@sha256:", IMAGE[:-1]]
)
def test_an_image_that_is_not_named_by_digest_is_refused(cluster: kubernetes.Cluster, run: Run, image: str) -> None:
    """What such a name means could change between two pods."""
    before = all_objects(cluster)

    done = run("apply", "production", "--image", image)

    assert done.status == 1
    assert done.error.startswith(f"error: the image {image} is not named by digest (name@sha256:…)")
    assert all_objects(cluster) == before


@pytest.mark.parametrize("overlay", ["staging", "../production", ""])
def test_an_overlay_that_is_none_is_not_understood(run: Run, overlay: str) -> None:
    """The right ones are named."""
    done = run("apply", overlay, "--image", IMAGE)

    assert done.status == 2
    assert "choose from" in done.error
    assert "production" in done.error


@pytest.mark.usefixtures("cloud")
def test_a_missing_kubectl_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything else is tried."""
    monkeypatch.setenv("PATH", str(tmp_path))

    done = run(*PRODUCTION)

    assert done == (1, "", "error: kubectl is missing; it has to be at most one minor version from the cluster's\n")


def test_a_cluster_that_is_not_made_yet_is_said(cluster: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """Its API does not answer before it is active."""
    cloud.cluster.status = "CREATING"
    before = all_objects(cluster)

    done = run(*PRODUCTION)

    assert done == (1, "", "error: the cluster olimac is CREATING; run this again when it is ACTIVE\n")
    assert all_objects(cluster) == before


def test_a_cluster_that_is_being_updated_takes_objects(cluster: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """Its API answers meanwhile."""
    cloud.cluster.status = "UPDATING"

    assert run(*PRODUCTION).status == 0
    assert "clients-api" in names(cluster.objects("deployments"))


def test_an_object_that_the_api_refuses_is_said_in_its_words(
    cluster: kubernetes.Cluster, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is wrong: whose it is, and what is wrong with it."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    deployment = folder / "base" / "deployment.yaml"
    deployment.write_text(deployment.read_text().replace("minReadySeconds: 15", "minReadySeconds: soon"))

    done = run(*PRODUCTION)

    assert done.status == 1
    assert done.error.startswith("error: kubectl apply failed: ")
    assert 'Deployment "clients-api" is invalid: spec.minReadySeconds' in done.error
    assert "clients-api" not in names(cluster.objects("deployments"))


def test_an_overlay_that_is_broken_is_said_in_kustomizes_words(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubectl: Kubectl
) -> None:
    """Nothing was applied then."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    (folder / "base" / "deployment.yaml").unlink()

    done = run(*PRODUCTION)

    assert done.status == 1
    assert done.error.startswith("error: kubectl kustomize failed: ")
    assert "deployment.yaml" in done.error
    assert [call.arguments[0] for call in kubectl.calls()] == ["kustomize"]


def test_an_overlay_that_wants_what_nobody_knows_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value was added to the overlay, and not to Terraform's outputs."""
    folder = tmp_path / "k8s"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    with (folder / "overlays" / "production" / "deployment.env").open("a") as values:
        values.write("MOON=\n")

    assert run(*PRODUCTION) == (1, "", "error: production wants MOON, of which nothing is known\n")


def test_an_api_that_is_away_is_said(cluster: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """It is private, say, and this machine is not in its network."""
    cloud.cluster.endpoint = "https://127.0.0.1:1"

    done = run(*PRODUCTION)

    assert done.status == 1
    assert done.error.startswith("error: kubectl apply failed: ")
    assert "connection refused" in done.error
    assert "clients" not in names(cluster.objects("namespaces"))


def test_an_api_with_another_certificate_is_not_spoken_to(
    cluster: kubernetes.Cluster, cloud: Cloud, run: Run, tmp_path: Path
) -> None:
    """EKS tells which CA has to have signed it; whoever answers in its place gets no token."""
    others = authority(tmp_path).certificate.read_bytes()
    cloud.cluster.certificate_authority = {"data": base64.b64encode(others).decode()}

    done = run(*PRODUCTION)

    assert done.status == 1
    assert "certificate" in done.error
    assert "clients" not in names(cluster.objects("namespaces"))


@pytest.mark.usefixtures("cluster")
def test_the_token_is_eks_and_nobody_sees_it(kubectl: Kubectl, run: Run, cloud: Cloud) -> None:
    """It is in a file that is its owner's alone and soon gone, and on no command line; nor is it shown."""
    done = run(*PRODUCTION)

    assert done.status == 0
    kustomize, apply = kubectl.calls()
    assert kustomize.config == {}
    (user,) = apply.config["users"]
    token = user["user"]["token"]
    assert is_signed(token)
    assert stat.S_IMODE(int(apply.mode, 8)) == 0o600
    assert not Path(apply.file).exists()
    assert all(token not in argument for call in kubectl.calls() for argument in call.arguments)
    assert token not in done.said + done.error + apply.said
    # The caller's signature is for this cluster alone.
    (question,) = [base64.urlsafe_b64decode(token.removeprefix("k8s-aws-v1.") + "==").decode()]
    assert question.startswith(f"https://sts.{cloud.outputs.region}.amazonaws.com/?Action=GetCallerIdentity")
    assert "X-Amz-Expires=60" in question


def test_a_token_that_the_api_does_not_take_is_said(
    cluster: kubernetes.Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls is not among the cluster's administrators."""
    monkeypatch.setattr("ops.deploy.kubernetes.token", lambda *_: "k8s-aws-v1.nobody")

    done = run(*PRODUCTION)

    assert done.status == 1
    assert done.error.startswith("error: kubectl apply failed: ")
    assert "asked for the client to provide credentials" in done.error
    assert "clients" not in names(cluster.objects("namespaces"))


def test_a_kubectl_that_hangs_is_ended(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for it is bounded."""
    script = tmp_path / "kubectl"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(kubectl_command, "__kwdefaults__", {"said": None, "seconds": 0.2})

    assert run(*PRODUCTION) == (1, "", "error: kubectl kustomize took longer than 0 s\n")


def test_a_dry_run_shows_the_objects(cluster: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """As YAML, and without asking the cluster or AWS."""
    before = all_objects(cluster)

    done = run(*PRODUCTION, "--dry-run")

    assert done.status == 0
    kinds = [one["kind"] for one in yaml.safe_load_all(done.said)]
    assert {"Namespace", "Deployment", "Service"} <= set(kinds)
    assert IMAGE in done.said
    assert cloud.way.asked == []
    assert all_objects(cluster) == before
