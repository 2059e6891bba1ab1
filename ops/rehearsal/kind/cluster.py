"""The cluster: nodes of kind, which take images from our registry, and ask our webhook about tokens as EKS does."""

import base64
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from ops.deploy.kubernetes import kubectl
from ops.rehearsal.certificates import Certificate
from ops.rehearsal.environment import NAME
from ops.rehearsal.kind import authentication
from ops.rehearsal.kind.docker import REGISTRY, REGISTRY_PORT, Network, run
from ops.rehearsal.steps import StepFailed

# The nodes' images of kind 0.33 (.github/workflows/cluster.yml), by the minor version of Kubernetes.
# https://github.com/kubernetes-sigs/kind/releases/tag/v0.33.0
IMAGES: Final = {
    "1.35": "docker.io/kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0",
    "1.36": "docker.io/kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed",
}

# As in AWS, one range has nodes and pods, and another the database.
RANGES: Final = {"TF_VAR_cluster_range": "10.90.0.0/16", "TF_VAR_database_range": "10.91.0.0/16"}
NODES: Final = Network(f"{NAME}-nodes", "10.90.0.0/24", "10.90.0.1")
DATABASE: Final = Network(f"{NAME}-database", "10.91.0.0/24", "10.91.0.1")
_PODS: Final = "10.90.128.0/17"

_ZONES: Final = ("a", "b")  # one node each
_METRICS_SERVER: Final = Path(__file__).with_name("metrics-server.yaml")
_READY: Final = "300s"
_KUBECTL_SECONDS: Final = 330.0

# Within the nodes: the webhook's configuration, and where containerd looks for mirrors of registries.
_AUTHENTICATION: Final = "/etc/authentication"
_CERTS: Final = "/etc/containerd/certs.d"
_MIRROR: Final = """\
server = "https://{registry}"
[host."http://{mirror}"]
  capabilities = ["pull", "resolve"]
"""
_MIRRORED: Final = {"docker.io": "registry-1.docker.io", "registry.k8s.io": "registry.k8s.io"}


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        url: of its API.
        ca: the certificate of the CA that signed the API's certificate, PEM.
        config: a kubeconfig of its administrator.
        nodes: the addresses of the nodes that run pods.
    """

    url: str
    ca: Path
    config: Path
    nodes: list[str]

    def kubectl(self, *arguments: str) -> str:
        """Runs kubectl as the administrator, and returns its output.

        Raises:
            CannotProceed: kubectl failed; the message has its error.
        """
        variables = {"KUBECONFIG": str(self.config), "HOME": str(self.config.parent)}
        return kubectl(arguments, variables, timeout=_KUBECTL_SECONDS)


def missing(version: str) -> str:
    """Says what this machine lacks for a cluster of this minor version; empty if nothing."""
    for tool in ("docker", "kind", "wrk"):
        if shutil.which(tool) is None:
            return f"{tool} is missing"
    if sys.platform != "linux":
        return "containers reach an address of this machine only on Linux"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:  # noqa: S607
        return "no Docker daemon answers"
    return "" if version in IMAGES else f"ops/rehearsal/kind/cluster.py has no image of nodes for Kubernetes {version}"


@contextlib.contextmanager
def running(folder: Path, version: str, webhook: str, ca: Certificate) -> Iterator[Cluster]:
    """Creates the cluster with metrics-server, and deletes it at the end.

    Args:
        folder: for its files; after a failure it has the logs of all pods and nodes, too.
        version: of Kubernetes.
        webhook: the URL of the authentication webhook.
        ca: signed the webhook's certificate.
    """
    config = folder / "kubeconfig"
    variables = {"KIND_EXPERIMENTAL_DOCKER_NETWORK": NODES.name}  # instead of the one that all clusters share
    kind = partial(run, "kind", environment=variables)
    delete = partial(kind, "delete", "cluster", "--name", NAME, "--kubeconfig", config)
    _write_mounts(folder, authentication.config(webhook, ca))
    delete()  # of a rehearsal that was killed
    try:
        options = ("--name", NAME, "--image", IMAGES[version], "--kubeconfig", config, "--wait", _READY)
        kind("create", "cluster", *options, "--config", "-", stdin=json.dumps(_configuration(folder)))
        cluster = _find(config)
        cluster.kubectl("apply", "--filename", str(_METRICS_SERVER))
        yield cluster
    except StepFailed:
        with contextlib.suppress(StepFailed):
            kind("export", "logs", folder / "kind", "--name", NAME)
        raise
    finally:
        delete()


def _write_mounts(folder: Path, webhook: dict[str, Any]) -> None:
    """Writes the folders that the nodes mount."""
    (folder / "authentication").mkdir()
    (folder / "authentication" / "webhook.json").write_text(json.dumps(webhook))
    for name, registry in _MIRRORED.items():
        (folder / "certs.d" / name).mkdir(parents=True)
        mirror = _MIRROR.format(registry=registry, mirror=f"{REGISTRY}:{REGISTRY_PORT}")
        (folder / "certs.d" / name / "hosts.toml").write_text(mirror)


def _configuration(folder: Path) -> dict[str, Any]:
    """Returns kind's configuration: https://kind.sigs.k8s.io/docs/user/configuration."""
    webhook = {"name": "authentication", "hostPath": _AUTHENTICATION, "mountPath": _AUTHENTICATION, "readOnly": True}
    arguments = webhook_arguments(f"{_AUTHENTICATION}/webhook.json")
    api_server = {"extraArgs": arguments, "extraVolumes": [webhook]}
    mirrors = {"hostPath": str(folder / "certs.d"), "containerPath": _CERTS, "readOnly": True}
    mounted = {"hostPath": str(folder / "authentication"), "containerPath": _AUTHENTICATION, "readOnly": True}
    zones = [{"topology.kubernetes.io/zone": zone} for zone in _ZONES]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"podSubnet": _PODS},
        "kubeadmConfigPatches": [json.dumps({"kind": "ClusterConfiguration", "apiServer": api_server})],
        "nodes": [
            {"role": "control-plane", "extraMounts": [mirrors, mounted]},
            *({"role": "worker", "labels": labels, "extraMounts": [mirrors]} for labels in zones),
        ],
    }


def webhook_arguments(file: str) -> dict[str, str]:
    """Returns the arguments with which an API server asks the webhook that the file configures."""
    return {"authentication-token-webhook-config-file": file, "authentication-token-webhook-version": "v1"}


def _find(config: Path) -> Cluster:
    (found,) = yaml.safe_load(config.read_text())["clusters"]
    ca = config.with_name("cluster-ca.crt")
    ca.write_bytes(base64.b64decode(found["cluster"]["certificate-authority-data"]))
    containers = json.loads(run("docker", "network", "inspect", NODES.name))[0]["Containers"].values()
    nodes = [one["IPv4Address"].partition("/")[0] for one in containers if one["Name"].startswith(f"{NAME}-worker")]
    return Cluster(found["cluster"]["server"], ca, config, nodes)
