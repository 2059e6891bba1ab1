"""The environment on kind, with programs in place of docker and kind where there is no Docker."""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import yaml

from ops.common.process import ROOT
from ops.deploy import load_balancer
from ops.deploy.common import aws_client, wait_for
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import images, kubernetes
from ops.rehearsal import steps as all_steps
from ops.rehearsal.annotations import PREFIX
from ops.rehearsal.certificates import create_ca, create_certificate
from ops.rehearsal.environment import Environment, is_eks_token
from ops.rehearsal.kind import cluster, environment
from ops.rehearsal.kind.docker import Network, networks, run
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.steps import IMAGE, SECOND, StepFailed
from tests.ops.deploy.fixtures import NAMESPACE, OUTPUTS, VERSION, require_haproxy, require_kubectl

pytestmark = pytest.mark.slow

ADMINISTRATOR = "administrator"

# Programs that record their arguments and their input, and print what the real ones would.
PROGRAM = """#!{python} -IS
import hashlib, json, os, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
stdin = sys.stdin.read() if name != "kubectl" and "-" in arguments else ""
with open({calls!r}, "a") as calls:
    calls.write(json.dumps({{"command": [name, *arguments], "stdin": stdin}}) + "\\n")
match [name, *arguments]:
    case ["kubectl", "apply", "--filename", _]:
        pass
    case ["kubectl", *_]:
        os.execv({kubectl!r}, ["kubectl", *arguments])
    case ["docker", "port", *_]:
        print("127.0.0.1:5555")
    case ["docker", "push", tag]:
        print("latest: digest: sha256:" + hashlib.sha256(tag.encode()).hexdigest() + " size: 1")
    case ["docker", "network", "inspect", *_]:
        nodes = {{"olimac-control-plane": "4", "olimac-worker": "2", "olimac-worker2": "3", "olimac-registry": "5"}}
        containers = [{{"Name": node, "IPv4Address": "10.90.0." + last + "/24"}} for node, last in nodes.items()]
        print(json.dumps([{{"Containers": dict(enumerate(containers))}}]))
    case ["kind", "create", *_]:
        if os.path.exists({folder!r} + "/broken"):
            sys.exit("ERROR: no space left on device")
        with open(arguments[arguments.index("--kubeconfig") + 1], "w") as config:
            config.write(open({folder!r} + "/kubeconfig").read())
"""


class Docker:
    """Programs named docker, kind and kubectl, first on PATH.

    Attributes:
        folder: of the programs and their files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kubectl = shutil.which("kubectl")
        text = PROGRAM.format(python=sys.executable, calls=str(folder / "calls"), folder=str(folder), kubectl=kubectl)
        for name in ("docker", "kind", "kubectl"):
            program = folder / name
            program.write_text(text)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def calls(self, *words: str) -> list[dict[str, Any]]:
        """Returns the calls whose command begins with these words."""
        calls = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [call for call in calls if call["command"][: len(words)] == list(words)]


@pytest.fixture(name="docker")
def install_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    """Puts the programs on PATH; the cluster that kind creates is a stand-in, and its networks are loopback."""
    require_kubectl()
    require_haproxy()
    folder = tmp_path / "bin"
    folder.mkdir()
    ca = create_ca(folder)
    certificate = create_certificate(ca, "api", ["127.0.0.1"])
    docker = Docker(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(cluster, "NODES", Network("olimac-nodes", "127.0.90.0/24", "127.0.90.1"))
    monkeypatch.setattr(cluster, "DATABASE", Network("olimac-database", "127.0.91.0/24", "127.0.91.1"))
    with kubernetes.running(VERSION, certificate, is_authorized, no_controllers) as created:
        data = base64.b64encode(ca.certificate.read_bytes()).decode()
        entry = {"name": "kind", "cluster": {"server": created.url, "certificate-authority-data": data}}
        context = {"name": "kind", "context": {"cluster": "kind", "user": ADMINISTRATOR}}
        user = {"name": ADMINISTRATOR, "user": {"token": ADMINISTRATOR}}
        config = {"clusters": [entry], "users": [user], "contexts": [context], "current-context": "kind"}
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        yield docker


def is_authorized(token: str) -> bool:
    """Whether the stand-in gives access; the real administrator has a certificate instead of a token."""
    return token == ADMINISTRATOR or is_eks_token(token)


@contextlib.asynccontextmanager
async def no_controllers(_: kubernetes.Store) -> AsyncIterator[Callable[[str, str], str]]:
    yield lambda *_: ""


@pytest.fixture(name="started")
def start_environment(docker: Docker, short_folder: Path) -> Iterator[Environment]:
    """Runs the environment with the sources of two releases."""
    assert docker.folder.exists()
    sources = images.write(short_folder / "images")
    with environment.running(
        short_folder / "environment", VERSION, {one: sources[one] for one in (IMAGE, SECOND)}
    ) as it:
        yield it


def test_a_deployment_finds_the_cluster_and_its_load_balancer_in_aws(
    started: Environment, production_objects: list[Object]
) -> None:
    """The mock AWS describes the cluster of kind; a Service there gets its load balancer, and loses it at teardown."""
    role, vpc = "arn:aws:iam::123456789012:role/cluster", {"subnetIds": ["subnet-1"]}
    aws_client("eks", OUTPUTS.region).create_cluster(
        name=OUTPUTS.name, version=VERSION, roleArn=role, resourcesVpcConfig=vpc
    )
    ec2 = aws_client("ec2", OUTPUTS.region)
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2]]
    tags = {f"kubernetes.io/cluster/{OUTPUTS.name}": "owned", "kubernetes.io/role/elb": "1"}
    ec2.create_tags(Resources=subnets, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    (service,) = [one for one in production_objects if one["kind"] == "Service"]
    service["spec"]["ports"][0]["nodePort"] = 30443
    (certificate,) = aws_client("acm", OUTPUTS.region).list_certificates()["CertificateSummaryList"]
    service["metadata"]["annotations"][f"{PREFIX}ssl-cert"] = certificate["CertificateArn"]
    created = Kubernetes(OUTPUTS)

    created.apply(NAMESPACE, service)
    found = wait_for("the load balancer", lambda: load_balancer.find(OUTPUTS), timeout=60)
    created.delete("clients", "service", "clients-api", timeout=60)
    wait_for("its removal", lambda: load_balancer.find(OUTPUTS) is None or None, timeout=60)

    assert found.hostname.endswith(".elb.amazonaws.com")
    assert started.variables.items() >= {**cluster.RANGES, "REHEARSAL_NODE": "10.90.0.2"}.items()


def test_pods_reach_postgresql_with_tls(started: Environment) -> None:
    """At the address that this machine has in the database's network, by a certificate for it; only with a password."""
    verified = f"sslmode=verify-full sslrootcert={started.ca}"

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"host=127.0.91.1 port=5432 user=postgres password=no dbname=clients {verified}")


def test_the_nodes_ask_about_tokens_and_take_images_from_the_registry(started: Environment, docker: Docker) -> None:
    """The API server has the webhook's configuration, and each node our registry before those of the images."""
    (create,) = docker.calls("kind", "create", "cluster")
    configuration = json.loads(create["stdin"])
    (patch,) = (json.loads(one) for one in configuration["kubeadmConfigPatches"])
    mounts = {mount["containerPath"]: Path(mount["hostPath"]) for mount in configuration["nodes"][0]["extraMounts"]}
    webhook = json.loads((mounts["/etc/authentication"] / "webhook.json").read_text())

    file = patch["apiServer"]["extraArgs"]["authentication-token-webhook-config-file"]
    assert file == "/etc/authentication/webhook.json"
    assert webhook["clusters"][0]["cluster"]["server"].startswith("https://127.0.90.1:")
    mirrors = {node["extraMounts"][0]["hostPath"] for node in configuration["nodes"]}
    assert mirrors == {str(mounts["/etc/containerd/certs.d"])}
    for registry in ("docker.io", "registry.k8s.io"):
        assert '"http://olimac-registry:5000"' in (Path(*mirrors) / registry / "hosts.toml").read_text()
    assert [node["role"] for node in configuration["nodes"]] == ["control-plane", "worker", "worker"]
    assert cluster.IMAGES[VERSION] in create["command"]
    assert started.ca.exists()


def test_a_step_gets_the_digests_of_the_registry(started: Environment, docker: Docker) -> None:
    """The names of the images are those of Docker Hub; a later release is the first one with other SQL."""
    sequences = itertools.chain.from_iterable(all_steps.on_kind(started.ca, "p"))
    (step,) = [one for sequence in sequences for one in sequence if one.name == "second release: rollout"]
    renamed = all_steps.with_images(step, started.images)
    first, second, autoscaler = docker.calls("docker", "build")

    assert renamed.command[-1] == f"IMAGE={started.images[SECOND]}"
    assert re.fullmatch(r"docker\.io/olimac/clients-api@sha256:[0-9a-f]{64}", started.images[SECOND])
    assert first["command"][-2:] == ["BUILD=" + "5ca1ab1e" * 8, str(ROOT)]
    tag = first["command"][first["command"].index("--tag") + 1]
    assert second["stdin"] == f"FROM {tag}\nCOPY sql /app/sql\nENV BUILD={'0ddba115' * 8}\n"
    assert "127.0.0.1:5555/autoscaling/cluster-autoscaler:v" in " ".join(autoscaler["command"])


def test_nothing_remains_in_docker(docker: Docker, short_folder: Path) -> None:
    """Cluster, registry, images and networks are removed in the reverse order, as at the start of each rehearsal."""
    with environment.running(short_folder / "environment", VERSION, {IMAGE: ROOT}):
        before = len(docker.calls())

    assert [call["command"][:3] for call in docker.calls()[before:] if call["command"][0] != "kubectl"] == [
        ["kind", "delete", "cluster"],
        ["docker", "rm", "--force"],
        ["docker", "image", "prune"],
        ["docker", "network", "rm"],
    ]


def test_a_cluster_that_does_not_start_is_removed_with_its_reason(docker: Docker, short_folder: Path) -> None:
    """Its logs are kept."""
    (docker.folder / "broken").touch()

    with (
        pytest.raises(StepFailed, match=r"kind create cluster .* failed:\nERROR: no space left on device"),
        environment.running(short_folder / "environment", VERSION, {IMAGE: ROOT}),
    ):
        pass
    assert len(docker.calls("kind", "export", "logs")) == 1
    assert docker.calls("kind")[-1]["command"][1] == "delete"
    assert docker.calls()[-1]["command"][:3] == ["docker", "network", "rm"]


def test_a_real_network_has_an_address_of_this_machine() -> None:
    """With Docker: containers reach what listens there. Afterwards it is gone."""
    try:
        run("docker", "info")
    except (FileNotFoundError, StepFailed) as error:
        pytest.skip(f"no Docker: {error}")
    network = Network("clients-tests", "10.92.0.0/24", "10.92.0.1")

    with networks(network), socket.create_server((network.gateway, 0)):
        listed = run("docker", "network", "ls", "--format", "{{.Name}}").split()
    assert network.name in listed
    assert network.name not in run("docker", "network", "ls", "--format", "{{.Name}}").split()


def test_the_objects_of_metrics_server_are_valid() -> None:
    """By the schemas of Kubernetes, with an image by digest."""
    objects = list(yaml.safe_load_all(cluster._METRICS_SERVER.read_text()))
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]

    for one in objects:
        kubernetes_validate.validate(one, VERSION, strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])


def test_kind_has_an_image_of_nodes_for_the_cluster() -> None:
    """By digest, for the version in Terraform's variables; it belongs to the release that the workflow installs."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/cluster.yml").read_text())
    (step,) = [one for one in workflow["jobs"]["cluster"]["steps"] if "SHA256" in one.get("env", {})]
    image = cluster.IMAGES[VERSION]

    assert re.fullmatch(rf"docker\.io/kindest/node:v{re.escape(VERSION)}\.\d+@sha256:[0-9a-f]{{64}}", image)
    assert f"kind/releases/tag/{step['env']['VERSION']}\n" in Path(cluster.__file__).read_text()
