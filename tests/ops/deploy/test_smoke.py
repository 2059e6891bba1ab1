"""python -m ops smoke: the first requests of a deployment, over TLS that is checked."""

import http.server
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.common.process import Service
from ops.deploy.smoke import Smoke
from ops.rehearsal import certificates
from ops.rehearsal.certificates import Certificate, authority, certificate
from ops.rehearsal.tls import Address, listen
from svc.http.access import digest
from tests.ops.deploy.cloud import HOSTNAME, Done, Run, free_address

Smoking = Callable[..., Done]
Stand = Callable[..., str]

OURS = b'{"id":5,"name":"Smoke test","money":"0.01"}'
RIGHT = {
    "/readyz": (200, b"{}"),
    "/add": (201, b'{"id":5}'),
    "/getall": (200, b"[" + OURS + b"]"),
    "/get/": (200, OURS),
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Smoke.run, "__kwdefaults__", {"seconds": 0.3})


@pytest.fixture(name="ca")
def make_ca(tmp_path: Path) -> Certificate:
    """A CA that no machine trusts by itself."""
    return authority(tmp_path)


@pytest.fixture(name="stand")
def make_stand(ca: Certificate) -> Iterator[Stand]:
    """Puts a balancer before what listens at an address, and gives its own, as --connect has it."""
    fronts = []

    def stand(behind: Address | None, *names: str, signed_by: Certificate = ca) -> str:
        shown = certificate(signed_by, "public", [*names] or [HOSTNAME])
        front = listen(shown, lambda: behind, ("127.0.0.1", 0))
        fronts.append(front)
        return "{}:{}".format(*front.address)

    yield stand
    for front in fronts:
        front.close()


@pytest.fixture(name="smoke")
def make_smoke(run: Run, ca: Certificate) -> Smoking:
    """Runs the command, trusting the CA."""
    return lambda connect, *more: run("smoke", "--connect", connect, "--authority", str(ca.certificate), *more)


@pytest.fixture(name="answering")
def make_answering() -> Iterator[Callable[[dict[str, tuple[int, bytes]]], Address]]:
    """A service that answers paths as it is told to: their beginning, and status and body."""
    servers = []

    def start(answers: dict[str, tuple[int, bytes]]) -> Address:
        class Answering(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                status, body = next(answer for path, answer in answers.items() if self.path.startswith(path))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815 - as the base class names them

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return "127.0.0.1", server.server_port

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_real_service_passes(serve: Callable[..., Service], stand: Stand, smoke: Smoking) -> None:
    """It is asked by its name, at the balancer's address; however often, it gets one client."""
    service = serve()
    connect = stand(("127.0.0.1", service.port))
    said = (0, f"https://{HOSTNAME} answers: client 5 added, read, and one of 5.\n", "")

    assert [said, said] == [smoke(connect), smoke(connect)]
    with urllib.request.urlopen(f"{service.url}/getall") as answer:
        assert json.load(answer)[4:] == [{"id": 5, "name": "Smoke test", "money": "0.01"}]


def test_a_service_that_wants_a_key_gets_the_one_in_the_environment(
    serve: Callable[..., Service], stand: Stand, smoke: Smoking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With API_KEY it passes; without, it says what was answered."""
    connect = stand(("127.0.0.1", serve(API_KEY_HASHES=digest("a-key").hex()).port))
    status, _, complaint = smoke(connect)
    monkeypatch.setenv("API_KEY", "a-key")

    assert (status, "401 instead of 201" in complaint) == (1, True)
    assert smoke(connect)[0] == 0


def test_a_certificate_for_another_name_is_refused(stand: Stand, smoke: Smoking) -> None:
    """Wherever the name leads, who answers has to be it."""
    done = smoke(stand(None, "other.olimac.link", "127.0.0.1"))

    assert done.status == 1
    assert f"Hostname mismatch, certificate is not valid for '{HOSTNAME}'" in done.error


def test_a_certificate_that_has_expired_is_refused(
    stand: Stand, smoke: Smoking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In OpenSSL's words."""
    monkeypatch.setattr(certificates, "_LIFE", timedelta(minutes=-1))

    done = smoke(stand(None))

    assert done.status == 1
    assert "certificate has expired" in done.error


def test_a_certificate_of_an_unknown_authority_is_refused(stand: Stand, smoke: Smoking, tmp_path: Path) -> None:
    """The name is right, but anybody could have signed it."""
    others = tmp_path / "others"
    others.mkdir()

    done = smoke(stand(None, signed_by=authority(others)))

    assert done.status == 1
    assert "certificate verify failed" in done.error


def test_the_machines_own_authorities_are_trusted_where_none_is_named(stand: Stand, run: Run) -> None:
    """They did not sign the test's certificate."""
    done = run("smoke", "--connect", stand(None))

    assert done.status == 1
    assert "unable to get local issuer certificate" in done.error


def test_nobody_listening_is_said(smoke: Smoking) -> None:
    """The wait is bounded, and its end says what was last seen."""
    done = smoke("{}:{}".format(*free_address()))

    assert done.status == 1
    assert done.said.startswith(f"Waiting for https://{HOSTNAME}/readyz (0 s of")
    assert f"in vain for https://{HOSTNAME}/readyz" in done.error
    assert "last, it was ConnectionRefusedError" in done.error


def test_a_balancer_without_pods_is_said(stand: Stand, smoke: Smoking) -> None:
    """It closes the connection, as nobody is behind it."""
    done = smoke(stand(None))

    assert done.status == 1
    assert "last, it was RemoteDisconnected" in done.error


def test_a_service_that_is_never_ready_is_said_in_its_words(
    serve: Callable[..., Service], stand: Stand, smoke: Smoking
) -> None:
    """503 with the reason, from the service itself."""
    service = serve(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    done = smoke(stand(("127.0.0.1", service.port)))

    assert done.status == 1
    assert "last, it was 503: {" in done.error
    assert "atabase" in done.error


def test_a_service_that_gets_ready_is_waited_for(answering: Any, stand: Stand, smoke: Smoking) -> None:
    """The first answers are not the last word."""
    answers = {**RIGHT, "/readyz": (503, b'"not yet"')}
    address = answering(answers)
    timer = threading.Timer(0.1, answers.update, [{"/readyz": (200, b"{}")}])
    timer.start()

    done = smoke(stand(address))

    timer.join()
    assert done.status == 0, done


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/readyz": (200, b"<html>")}, "JSONDecodeError"),
        (
            {"/add": (503, b'{"title":"Busy"}')},
            "POST /add?name=Smoke%20test&money=0.01 was answered with 503 instead of 201: {'title': 'Busy'}",
        ),
        ({"/add": (201, b"<html>")}, "JSONDecodeError"),
        ({"/add": (201, b"{}")}, "POST /add says {}, in which there is no id"),
        ({"/add": (201, b"5")}, "POST /add says 5, in which there is no id"),
        ({"/get/": (404, b'"nobody"')}, "GET /get/5 was answered with 404 instead of 200: nobody"),
        (
            {"/get/": (200, OURS.replace(b"0.01", b"1.00"))},
            "GET /get/5 says {'id': 5, 'name': 'Smoke test', 'money': '1.00'}, which is not what was added",
        ),
        ({"/getall": (200, b"[]")}, "GET /getall has 0 clients, and not the one that was added"),
        ({"/getall": (200, b"5")}, "GET /getall says 5, which is no list"),
        ({"/getall": (500, b'"no"')}, "GET /getall was answered with 500 instead of 200: no"),
    ],
)
def test_wrong_answers_are_said(
    answering: Any, stand: Stand, smoke: Smoking, answers: dict[str, tuple[int, bytes]], words: str
) -> None:
    """Each with what was asked, and what came."""
    done = smoke(stand(answering({**RIGHT, **answers})))

    assert done.status == 1
    assert words in done.error
    assert done.error.count("\n") == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_is_none_is_said(run: Run, tmp_path: Path, content: str | None) -> None:
    """A file that is not there, or holds something else."""
    file = tmp_path / "authority.pem"
    if content:
        file.write_text(content)

    done = run("smoke", "--authority", str(file))

    assert done.status == 1
    assert done.error.startswith(f"error: the CA certificates cannot be had from {file}: ")


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:https"])
def test_an_address_without_a_port_is_not_understood(run: Run, address: str) -> None:
    """As any other argument that is wrong."""
    done = run("smoke", "--connect", address)

    assert done.status == 2
    assert "argument --connect: invalid" in done.error


def test_a_dry_run_asks_nobody(smoke: Smoking) -> None:
    """It says whom it would ask."""
    assert smoke("127.0.0.1:1", "--dry-run") == (0, f"Would ask https://{HOSTNAME}\n", "")
