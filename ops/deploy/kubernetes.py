"""The cluster's API, by way of kubectl: what a person would type, with a token that is in no file for long."""

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError
from botocore.signers import RequestSigner

from ops.deploy.common import CannotProceed, Outputs, aws

_MANAGER: Final = "clients-api-deployment"  # who owns the fields that it applies
_TOKEN_SECONDS: Final = 60  # of the signed request in it; EKS lets the token live for 15 minutes
_ANSWER_SECONDS: Final = 60

_WAYS: Final = ("PATH", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")

Object = dict[str, Any]


class NoCluster(CannotProceed):
    """There is no cluster of that name."""


class Kubernetes:
    """The API of the cluster that Terraform made."""

    def __init__(self, outputs: Outputs) -> None:
        """Finds the cluster.

        Raises:
            NoCluster: there is none.
            CannotProceed: it cannot be used.
        """
        self._name, self._region = outputs.name, outputs.region
        cluster = describe(outputs)
        if cluster["status"] not in ("ACTIVE", "UPDATING"):
            raise CannotProceed(f"the cluster {self._name} is {cluster['status']}; run this again when it is ACTIVE")
        self._endpoint: str = cluster["endpoint"]
        self._authority: str = cluster["certificateAuthority"]["data"]

    def apply(self, manifests: str | Object) -> str:
        """Makes objects what the manifests say (server-side apply), and gives kubectl's words."""
        text = manifests if isinstance(manifests, str) else json.dumps(manifests)
        return self.run(
            "apply", "--server-side", f"--field-manager={_MANAGER}", "--force-conflicts", "-f", "-", said=text
        )

    def get(self, namespace: str, kind: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        found = self.run("get", kind, name, "--namespace", namespace, "--ignore-not-found", "--output=json")
        return json.loads(found) if found.strip() else None

    def delete(self, namespace: str, kind: str, name: str, *, seconds: int) -> None:
        """Deletes the object and all it owns, where it is there, and waits until it is gone."""
        options = ("--ignore-not-found", "--cascade=foreground", "--wait", f"--timeout={seconds}s")
        self.run("delete", kind, name, "--namespace", namespace, *options, seconds=seconds + _ANSWER_SECONDS)

    def run(self, *arguments: str, said: str | None = None, seconds: float = _ANSWER_SECONDS) -> str:
        """What kubectl says to the arguments.

        Args:
            arguments: none of them secret: every user of the machine sees them.
            said: its standard input.
            seconds: how long it may take.

        Raises:
            CannotProceed: with its own words.
        """
        with tempfile.TemporaryDirectory(prefix="kubectl-") as folder:
            config = Path(folder, "config")
            config.touch(mode=0o600)
            config.write_text(json.dumps(self._config()))
            return kubectl(arguments, {"KUBECONFIG": str(config), "HOME": folder}, said=said, seconds=seconds)

    def _config(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": self._name,
                    "cluster": {"server": self._endpoint, "certificate-authority-data": self._authority},
                }
            ],
            "users": [{"name": self._name, "user": {"token": token(self._name, self._region)}}],
            "contexts": [{"name": self._name, "context": {"cluster": self._name, "user": self._name}}],
            "current-context": self._name,
        }


def describe(outputs: Outputs) -> Object:
    """What EKS says of the cluster.

    Raises:
        NoCluster: there is none of its name.
    """
    try:
        described: Object = aws("eks", outputs.region).describe_cluster(name=outputs.name)["cluster"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise NoCluster(f"there is no cluster {outputs.name} in {outputs.region}: apply Terraform first") from None
    return described


def token(cluster: str, region: str) -> str:
    """A bearer token for the cluster: a signed question to AWS of who we are, which EKS asks on our behalf.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
    """
    session = boto3.Session(region_name=region)
    sts = session.client("sts")
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    request = {
        "method": "GET",
        "url": f"https://sts.{region}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=region, expires_in=_TOKEN_SECONDS, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def kubectl(
    arguments: Sequence[str], environment: dict[str, str], *, said: str | None = None, seconds: float = _ANSWER_SECONDS
) -> str:
    """What kubectl says, or CannotProceed with its complaint. Of our environment it has the way out alone."""
    ways = {name: os.environ[name] for name in _WAYS if name in os.environ}
    try:
        done = subprocess.run(
            ["kubectl", *arguments],  # noqa: S607 - wherever the person has it
            input=said,
            env={**ways, **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise CannotProceed("kubectl is missing; it has to be at most one minor version from the cluster's") from None
    except subprocess.TimeoutExpired:
        raise CannotProceed(f"kubectl {arguments[0]} took longer than {seconds:.0f} s") from None
    if done.returncode:
        raise CannotProceed(f"kubectl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout
