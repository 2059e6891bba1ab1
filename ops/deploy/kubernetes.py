"""The cluster's API through kubectl, with a short-lived token in a temporary kubeconfig."""

import atexit
import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError
from botocore.model import ServiceId
from botocore.signers import RequestSigner

from ops.deploy.common import CannotProceed, Outputs, aws_client, report, wait_for

_FIELD_MANAGER: Final = "clients-api-deployment"  # owns the fields that it applies
_TOKEN_SECONDS: Final = 60  # for the presigned request; EKS accepts the token itself for 15 minutes
_KUBECTL_SECONDS: Final = 60
_UPDATE_SECONDS: Final = 900.0  # EKS needs some minutes

# All that kubectl inherits: where it is, and the proxy.
_INHERITED_VARIABLES: Final = ("PATH", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")

Object = dict[str, Any]


class NoCluster(CannotProceed):
    """The cluster does not exist."""


class Kubernetes:
    """The API of the cluster that Terraform created."""

    def __init__(self, outputs: Outputs) -> None:
        """Looks the cluster up in EKS.

        Raises:
            NoCluster: it does not exist.
            CannotProceed: it is not active.
        """
        self._name = outputs.name
        cluster = describe_cluster(outputs)
        if cluster["status"] not in ("ACTIVE", "UPDATING"):
            raise CannotProceed(f"the cluster {self._name} is {cluster['status']}; run this again when it is ACTIVE")
        self._endpoint: str = cluster["endpoint"]
        self._ca_data: str = cluster["certificateAuthority"]["data"]
        self._region = outputs.region

    def apply(self, *objects: Object) -> str:
        """Applies the objects in their order, on the server side, and returns kubectl's output."""
        text = "\n".join(map(json.dumps, objects))
        options = ("--server-side", f"--field-manager={_FIELD_MANAGER}", "--force-conflicts")
        return self.run("apply", *options, "-f", "-", stdin=text)

    def get(self, namespace: str, kind: str, name: str) -> Object | None:
        """Returns the object, or None if it does not exist."""
        found = self.run("get", kind, name, "--namespace", namespace, "--ignore-not-found", "--output=json")
        return json.loads(found) if found.strip() else None

    def find_all(self, namespace: str, kind: str, selector: str) -> list[Object]:
        """Returns the objects with these labels."""
        found = self.run("get", kind, "--namespace", namespace, "--selector", selector, "--output=json")
        items: list[Object] = json.loads(found)["items"]
        return items

    def delete(self, namespace: str, kind: str, name: str, *, timeout: int) -> None:
        """Deletes the object and all that it owns, if it exists, and waits until it is gone."""
        options = ("--ignore-not-found", "--cascade=foreground", "--wait", f"--timeout={timeout}s")
        self.run("delete", kind, name, "--namespace", namespace, *options, timeout=timeout + _KUBECTL_SECONDS)

    def wait_for_rollout(self, namespace: str, workload: str, *, timeout: float) -> None:
        """Waits until all pods of a Deployment or a DaemonSet are those of its current template, and available.

        Args:
            namespace: of the workload.
            workload: its kind and name: deployment/clients-api.
            timeout: in seconds.

        Raises:
            CannotProceed: they are not in time, or the cluster gave up before; the message has kubectl's last words.
        """
        options = ("--namespace", namespace, f"--timeout={timeout:.0f}s")
        report(self.run("rollout", "status", workload, *options, timeout=timeout + _KUBECTL_SECONDS).rstrip())

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = _KUBECTL_SECONDS) -> str:
        """Runs kubectl and returns its output.

        Args:
            arguments: without secrets: every user of this machine can see them.
            stdin: the standard input of kubectl.
            timeout: in seconds.

        Raises:
            CannotProceed: kubectl failed; the message has its error.
        """
        with tempfile.TemporaryDirectory(prefix="kubectl-") as folder:
            config = Path(folder, "config")
            config.touch(mode=0o600)
            config.write_text(json.dumps(self._config()))
            variables = {"KUBECONFIG": str(config), "HOME": folder, "KUBECACHEDIR": _cache_folder()}
            return kubectl(arguments, variables, stdin=stdin, timeout=timeout)

    def _config(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": self._name,
                    "cluster": {"server": self._endpoint, "certificate-authority-data": self._ca_data},
                }
            ],
            "users": [{"name": self._name, "user": {"token": token(self._name, self._region)}}],
            "contexts": [{"name": self._name, "context": {"cluster": self._name, "user": self._name}}],
            "current-context": self._name,
        }


def describe_cluster(outputs: Outputs) -> Object:
    """Returns the cluster as EKS describes it.

    Raises:
        NoCluster: it does not exist.
    """
    try:
        described: Object = aws_client("eks", outputs.region).describe_cluster(name=outputs.name)["cluster"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise NoCluster(
            f"the cluster {outputs.name} does not exist in {outputs.region}: apply Terraform first"
        ) from None
    return described


def update_cluster(outputs: Outputs, what: str, **change: object) -> None:
    """Changes the cluster's configuration, and waits until EKS has finished.

    Args:
        outputs: of Terraform.
        what: what EKS does, as messages name it: "EKS to turn on the logs".
        change: the parameter of UpdateClusterConfig, only one.

    Raises:
        CannotProceed: the update failed, or took too long.
    """
    eks = aws_client("eks", outputs.region)
    update_id = eks.update_cluster_config(name=outputs.name, **change)["update"]["id"]

    def finished_update() -> Object | None:
        update: Object = eks.describe_update(name=outputs.name, updateId=update_id)["update"]
        return None if update["status"] == "InProgress" else update

    update = wait_for(what, finished_update, timeout=_UPDATE_SECONDS)
    if update["status"] != "Successful":
        raise CannotProceed(f"the EKS update ended with status {update['status']}: {update.get('errors')}")


def secret_data(secret: Object | None) -> dict[str, str]:
    """Returns the content of a Secret, empty if it does not exist."""
    return {name: base64.b64decode(value).decode() for name, value in (secret or {}).get("data", {}).items()}


def token(cluster: str, region: str) -> str:
    """Returns a bearer token for the cluster: a presigned GetCallerIdentity request, which EKS sends to AWS.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
    """
    request = {
        "method": "GET",
        "url": f"https://sts.{region}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    session = _session(region)
    signer = RequestSigner(ServiceId("STS"), region, "sts", "v4", session.get_credentials(), session.events)
    url = signer.generate_presigned_url(request, region_name=region, expires_in=_TOKEN_SECONDS, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


@cache
def _cache_folder() -> str:
    """Where kubectl keeps which kinds of objects the cluster has, since asking for them takes half of a call."""
    folder = tempfile.mkdtemp(prefix="kubectl-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _session(region: str) -> boto3.Session:
    """Keeps the session, since creating one takes 25 ms."""
    return boto3.Session(region_name=region)


def kubectl(
    arguments: Sequence[str],
    environment: dict[str, str],
    *,
    stdin: str | None = None,
    timeout: float = _KUBECTL_SECONDS,
) -> str:
    """Runs kubectl in a minimal environment and returns its output.

    Raises:
        CannotProceed: kubectl is missing, took too long, or failed; the message has its error.
    """
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    try:
        done = subprocess.run(
            ["kubectl", *arguments],  # noqa: S607 - PATH says where it is
            input=stdin,
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CannotProceed(
            "kubectl is missing; its version must be within one minor version of the cluster's"
        ) from None
    except subprocess.TimeoutExpired:
        raise CannotProceed(f"kubectl {arguments[0]} took longer than {timeout:.0f} s") from None
    if done.returncode:
        raise CannotProceed(f"kubectl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout
