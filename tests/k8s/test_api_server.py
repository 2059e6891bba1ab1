"""The manifests on a real API server: it admits all objects and their pods, and refuses wrong ones.

The server checks more than the schemas: quantities, limits between fields, schedules, Pod Security.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ops.deploy import manifests
from ops.deploy.common import CannotProceed
from tests.k8s import api_server, test_manifests
from tests.k8s.api_server import ApiServer
from tests.k8s.test_manifests import IMAGE, OUTPUTS, Object

WRONG = yaml.safe_load(Path(__file__).with_name("wrong_manifests.yaml").read_text())

# As the deployment applies them: ops/deploy/kubernetes.py.
APPLY = ("apply", "--server-side", "--force-conflicts", "--filename=-")


@pytest.fixture(name="real_server", scope="module")
def run_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with all objects of a deployment and of a load test.

    A warning fails, too: a version of the API that will be removed, or a template whose pods Pod Security forbids.
    """
    with api_server.running(tmp_path_factory.mktemp("server")) as server:
        for overlay in sorted(manifests.OVERLAYS, key=creates_no_namespace):
            server.kubectl(*APPLY, "--warnings-as-errors", stdin=manifests.render(overlay, OUTPUTS, IMAGE))
        server.kubectl(*APPLY, "--warnings-as-errors", stdin=test_manifests.render_load_test())
        yield server


def creates_no_namespace(overlay: str) -> bool:
    return all(manifest["kind"] != "Namespace" for manifest in test_manifests.rendered(overlay))


def pods_of(manifest: Object) -> list[Object]:
    """The pod that the cluster's controllers would make of each template of the object."""
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    if template is None:
        return []
    metadata = manifest["metadata"]
    named = {"namespace": metadata["namespace"], "generateName": f"{metadata['name']}-"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **named}, "spec": template["spec"]}
    return [pod]


def changed(wrong: dict[str, Any]) -> Object:
    """A copy of the object with the wrong value."""
    manifest = copy.deepcopy(test_manifests.find(*wrong["object"]))
    *way, last = wrong["path"]
    inner: Any = manifest
    for key in way:
        inner = inner[key]
    assert isinstance(last, str)
    assert inner.get(last) != wrong["value"]
    inner[last] = wrong["value"]
    return manifest


def each_wrong(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrong", WRONG[kind], ids=lambda wrong: wrong["name"])


def test_a_pod_of_every_template_is_admitted(real_server: ApiServer) -> None:
    """The pods of every kind of controller are created, with Pod Security in force."""
    templates = [manifest for manifest in test_manifests.all_objects() if pods_of(manifest)]
    for manifest in templates:
        for pod in pods_of(manifest):
            real_server.kubectl("create", "--warnings-as-errors", "--filename=-", stdin=json.dumps(pod))

    created = json.loads(real_server.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]
    assert {manifest["kind"] for manifest in templates} >= {"CronJob", "DaemonSet", "Deployment", "Job"}
    assert sorted(one["metadata"]["generateName"] for one in created) == sorted(
        f"{manifest['metadata']['name']}-" for manifest in templates
    )


def test_the_next_release_and_an_upgrade_are_accepted(real_server: ApiServer) -> None:
    """They change no field that is immutable, except in the Job, which the deployment deletes before."""
    image = f"{IMAGE.partition('@')[0]}@sha256:{'fedcba9876543210' * 4}"
    upgraded = replace(OUTPUTS, kubernetes_version="1.99", certificate_arn=f"{OUTPUTS.certificate_arn}-2")
    for overlay in manifests.OVERLAYS:
        objects = [
            one for one in yaml.safe_load_all(manifests.render(overlay, upgraded, image)) if one["kind"] != "Job"
        ]
        if objects:
            real_server.kubectl(*APPLY, "--dry-run=server", stdin=yaml.safe_dump_all(objects))


@each_wrong("refused_by_the_server")
def test_the_server_refuses_a_wrong_manifest(wrong: dict[str, Any], real_server: ApiServer) -> None:
    """It refuses the object or its pod, for the reason that is meant."""
    manifest = changed(wrong)

    with pytest.raises(CannotProceed) as refusal:  # noqa: PT012 - the object is accepted if only its pod is wrong
        real_server.kubectl(*APPLY, "--dry-run=server", stdin=json.dumps(manifest))
        for pod in pods_of(manifest):
            real_server.kubectl("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    assert wrong["message"] in str(refusal.value)


@each_wrong("refused_by_a_test")
def test_the_server_accepts_what_only_a_test_refuses(wrong: dict[str, Any], real_server: ApiServer) -> None:
    """So the test is needed."""
    manifest = changed(wrong)
    manifest["metadata"]["name"] += "-wrong"  # the role of an existing binding cannot change

    real_server.kubectl(*APPLY, "--dry-run=server", stdin=json.dumps(manifest))


@each_wrong("refused_by_a_test")
def test_a_test_refuses_a_wrong_manifest(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test that is named fails because of the wrong value alone, without an API server."""
    check = getattr(test_manifests, wrong["test"])
    right, manifest = test_manifests.find(*wrong["object"]), changed(wrong)
    objects = [manifest if one is right else one for one in test_manifests.all_objects()]
    check()

    monkeypatch.setattr(test_manifests, "all_objects", lambda: objects)
    with pytest.raises(AssertionError):
        check()


# --- The server itself


def program(folder: Path, name: str, commands: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{commands}\n")
    file.chmod(0o755)


@pytest.mark.parametrize("ci", ["true", "false"])
def test_without_the_programs_the_tests_are_skipped(ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what is missing, and how to name it."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.delenv(api_server.FOLDER, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "etcd", "")

    with pytest.raises(pytest.skip.Exception, match=r"PATH has no kube-apiserver; REAL_API_SERVER can name a folder"):
        api_server.find_programs()


def test_a_named_folder_without_the_programs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs on PATH do not replace those that were demanded."""
    program(tmp_path, "etcd", "")
    program(tmp_path, "kube-apiserver", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(api_server.FOLDER, str(tmp_path / "elsewhere"))

    with pytest.raises(pytest.fail.Exception, match="there is no etcd and no kube-apiserver"):
        api_server.find_programs()


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has its last lines, and its etcd is stopped."""
    program(tmp_path, "etcd", f"echo $$ >{tmp_path}/pid; exec sleep 600")
    program(tmp_path, "kube-apiserver", f"until [ -s {tmp_path}/pid ]; do sleep 0.1; done; echo the reason; exit 1")
    monkeypatch.setenv(api_server.FOLDER, str(tmp_path))
    folder = tmp_path / "folder"
    folder.mkdir()

    with pytest.raises(pytest.fail.Exception, match="the reason"), api_server.running(folder):
        pass
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
