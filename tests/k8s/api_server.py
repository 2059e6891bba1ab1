"""A real API server of Kubernetes, with its etcd, on loopback and without any other part of a cluster.

It needs kube-apiserver and etcd: in the folder that REAL_API_SERVER names, or else on PATH. The controller-tools of
Kubernetes publish both as one archive, envtest.
"""

import base64
import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from ops.common.ports import free_port
from ops.deploy.common import CannotProceed
from ops.deploy.kubernetes import kubectl
from ops.rehearsal.certificates import create_ca, create_certificate

FOLDER: Final = "REAL_API_SERVER"  # an environment variable
_PROGRAMS: Final = ("etcd", "kube-apiserver")

_START_SECONDS: Final = 180
_STOP_SECONDS: Final = 30
_KUBECTL_SECONDS: Final = 120.0


@dataclass(frozen=True)
class ApiServer:
    """A running API server.

    Attributes:
        home: a folder with kubectl's configuration, in which kubectl also caches what the server can do.
    """

    home: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl as the cluster's administrator, and returns its output.

        Raises:
            CannotProceed: kubectl failed; the message has the server's error.
        """
        variables = {"HOME": str(self.home), "KUBECONFIG": str(self.home / "config")}
        return kubectl(arguments, variables, stdin=stdin, timeout=_KUBECTL_SECONDS)


def find_programs() -> dict[str, str]:
    """Returns the paths of kube-apiserver and etcd.

    Without them, the test is skipped, also in CI, since no package has kube-apiserver. If REAL_API_SERVER is set,
    it fails instead.
    """
    folder = os.environ.get(FOLDER)
    found = {name: shutil.which(name, path=folder) for name in _PROGRAMS}
    absent = [name for name, path in found.items() if path is None]
    if absent and folder is not None:
        pytest.fail(f"{FOLDER} is {folder!r}, where there is no {' and no '.join(absent)}")
    if absent:
        pytest.skip(f"no API server: PATH has no {' and no '.join(absent)}; {FOLDER} can name a folder with both")
    return {name: str(Path(path).absolute()) for name, path in found.items() if path is not None}


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[ApiServer]:
    """Runs an API server with the usual admission, which includes Pod Security, until the context is left.

    Args:
        folder: for the files; must exist.
        options: further ones of kube-apiserver.
    """
    programs = find_programs()
    ca = create_ca(folder)
    certificate = create_certificate(ca, "server", ["127.0.0.1"])
    token = secrets.token_urlsafe()
    tokens = folder / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f'{token},administrator,administrator,"system:masters"\n')
    etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    server = ApiServer(folder)
    _write_config(folder / "config", url, ca.certificate, token)
    with (
        _process(
            [
                programs["etcd"],
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
            ],
            folder / "etcd.log",
        ),
        _process(
            [
                programs["kube-apiserver"],
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--tls-cert-file={certificate.certificate}",
                f"--tls-private-key-file={certificate.key}",
                f"--token-auth-file={tokens}",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",  # as in EKS, where Pod Security decides instead
                "--service-cluster-ip-range=10.100.0.0/16",
                "--endpoint-reconciler-type=none",  # an address of loopback cannot be an endpoint
                # No pod runs that could use a token, so that the server's key may sign them.
                f"--service-account-issuer={url}",
                f"--service-account-key-file={certificate.certificate}",
                f"--service-account-signing-key-file={certificate.key}",
                *options,
            ],
            folder / "kube-apiserver.log",
        ) as process,
    ):
        _wait_until_ready(server, process, folder / "kube-apiserver.log")
        yield server


def _write_config(file: Path, url: str, ca: Path, token: str) -> None:
    name = "real"
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a program until the context is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(server: ApiServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until the server is ready and has created the namespaces and roles that every cluster has."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.kubectl("get", "--raw", "/readyz")
            server.kubectl("get", "namespace", "default", "kube-system")
        except CannotProceed as error:
            if process.poll() is not None or time.monotonic() > end:
                last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                pytest.fail(f"the API server does not get ready: {error}\n{last}")
            time.sleep(0.2)
        else:
            return
