"""The webhook that the API server of kind asks about tokens, as EKS asks AWS."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.deploy.common import CannotProceed
from ops.deploy.kubernetes import token
from ops.rehearsal.certificates import Certificate, create_ca, create_certificate
from ops.rehearsal.kind import authentication, cluster
from tests.k8s import api_server
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def set_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets what signs a token."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture(name="ca")
def make_ca(tmp_path: Path) -> Certificate:
    return create_ca(tmp_path)


@pytest.fixture(name="url")
def run_webhook(ca: Certificate) -> Iterator[str]:
    with authentication.running("127.0.0.1", create_certificate(ca, "webhook", ["127.0.0.1"])) as url:
        yield url


def review(url: str, ca: Certificate, presented: str) -> dict[str, Any]:
    """Asks about a token as an API server does; returns the status of the TokenReview."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": presented}}
    tls = ssl.create_default_context(cafile=ca.certificate)
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, context=tls, timeout=PATIENCE_SECONDS) as response:
        answer = json.load(response)
    assert {name: answer[name] for name in ("apiVersion", "kind")} == {
        name: body[name] for name in body if name != "spec"
    }
    status: dict[str, Any] = answer["status"]
    return status


def test_the_token_of_a_deployment_is_an_administrators(url: str, ca: Certificate) -> None:
    """It is what `ops/deploy` sends to EKS."""
    status = review(url, ca, token("olimac", "us-east-1"))

    assert status == {"authenticated": True, "user": {"username": "rehearsal", "groups": ["system:masters"]}}


@pytest.mark.parametrize(
    "presented", ["", "k8s-aws-v1.", "k8s-aws-v1.aHR0cHM6Ly9leGFtcGxl", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"]
)
def test_any_other_token_is_refused(url: str, ca: Certificate, presented: str) -> None:
    """Those of service accounts, too: the API server has checked them before it asks."""
    assert review(url, ca, presented) == {"authenticated": False}


def test_the_api_server_trusts_only_our_ca(ca: Certificate) -> None:
    """Its configuration has the URL and the certificate."""
    (entry,) = authentication.config("https://10.0.0.1:1/", ca)["clusters"]

    assert entry["cluster"]["server"] == "https://10.0.0.1:1/"
    assert base64.b64decode(entry["cluster"]["certificate-authority-data"]) == ca.certificate.read_bytes()


@pytest.mark.slow
@pytest.mark.deployment
def test_a_real_api_server_asks_the_webhook(tmp_path: Path, ca: Certificate, url: str) -> None:
    """Where there is one: it gives access by a token of EKS, and refuses any other."""
    folder, file = tmp_path / "server", tmp_path / "webhook.json"
    folder.mkdir()
    file.write_text(json.dumps(authentication.config(url, ca)))
    options = (f"--{name}={value}" for name, value in cluster.webhook_arguments(str(file)).items())

    with api_server.running(folder, *options) as server:
        accepted = server.kubectl("auth", "whoami", "--output=json", f"--token={token('olimac', 'us-east-1')}")
        with pytest.raises(CannotProceed, match="Unauthorized"):
            server.kubectl("auth", "whoami", "--token=another")

    assert "system:masters" in json.loads(accepted)["status"]["userInfo"]["groups"]
