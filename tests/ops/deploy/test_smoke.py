"""python -m ops smoke: requests to a deployed service, with TLS verified."""

import http.server
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.deploy.smoke import SmokeTest
from ops.rehearsal import certificates
from ops.rehearsal.certificates import Certificate, create_ca, create_certificate
from ops.rehearsal.tls import Address, listen
from svc.http.access import digest
from tests.ops.deploy.fixtures import HOSTNAME, Result, Run, free_address
from tests.service import Service

Smoke = Callable[..., Result]
StartProxy = Callable[..., str]

CLIENT = b'{"id":5,"name":"Ann","money":"0.01"}'
RESPONSES = {
    "/readyz": (200, b"{}"),
    "/add": (400, b"{}"),
    "/getall": (200, b"[" + CLIENT + b"]"),
    "/get/": (200, CLIENT),
}


@pytest.fixture(name="short_timeout")
def shorten_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmokeTest.run, "__kwdefaults__", {"timeout": 0.3})


@pytest.fixture(name="ca")
def create_test_ca(tmp_path: Path) -> Certificate:
    """A CA that this machine does not trust."""
    return create_ca(tmp_path)


@pytest.fixture(name="start_proxy")
def make_start_proxy(ca: Certificate) -> Iterator[StartProxy]:
    """Starts a TLS proxy before an address, as a load balancer; returns its own address for --connect."""
    proxies = []

    def start_proxy(upstream: Address | None, *names: str, signed_by: Certificate = ca) -> str:
        certificate = create_certificate(signed_by, "public", [*names] or [HOSTNAME])
        proxy = listen(certificate, lambda: upstream, ("127.0.0.1", 0))
        proxies.append(proxy)
        return "{}:{}".format(*proxy.address)

    yield start_proxy
    for proxy in proxies:
        proxy.close()


@pytest.fixture(name="smoke")
def make_smoke(run: Run, ca: Certificate) -> Smoke:
    """Runs the command, which trusts the CA."""
    return lambda connect, *more: run("smoke", "--connect", connect, "--authority", str(ca.certificate), *more)


@pytest.fixture(name="fake_service")
def make_fake_service() -> Iterator[Callable[[dict[str, tuple[int, bytes]]], Address]]:
    """Starts a service that returns a fixed status and body for each prefix of a path."""
    servers = []

    def start(responses: dict[str, tuple[int, bytes]]) -> Address:
        class Handler(http.server.BaseHTTPRequestHandler):
            def _respond(self) -> None:
                status, body = next(response for path, response in responses.items() if self.path.startswith(path))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _respond  # noqa: N815 - names of the base class

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return "127.0.0.1", server.server_port

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_real_service_passes_and_keeps_its_data(
    serve: Callable[..., Service], start_proxy: StartProxy, smoke: Smoke
) -> None:
    """The requests go to the load balancer's address; the clients are the same before and after."""
    service = serve(TRUSTED_PROXIES="127.0.0.1")
    service.wait_until_ready()

    def clients() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{service.url}/getall") as response:
            found: list[dict[str, Any]] = json.load(response)
        return found

    before = clients()
    result = smoke(start_proxy(("127.0.0.1", service.port)))

    assert result == (0, f"https://{HOSTNAME} works: listed and read 1 client; an empty add was refused.\n", "")
    assert clients() == before


def test_an_empty_database_passes(fake_service: Any, start_proxy: StartProxy, smoke: Smoke) -> None:
    """There is no client to read."""
    result = smoke(start_proxy(fake_service({**RESPONSES, "/getall": (200, b"[]")})))

    assert "listed and read 0 client" in result.stdout


def test_the_key_of_the_environment_is_sent(
    serve: Callable[..., Service], start_proxy: StartProxy, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the API needs a key, the test passes with API_KEY, and fails with a 401 without it."""
    connect = start_proxy(("127.0.0.1", serve(API_KEY_HASHES=digest("a-key").hex()).port))
    status, _, stderr = smoke(connect)
    monkeypatch.setenv("API_KEY", "a-key")

    assert (status, "401 instead of 200" in stderr) == (1, True)
    assert smoke(connect)[0] == 0


@pytest.mark.usefixtures("short_timeout")
def test_a_certificate_for_another_name_is_refused(start_proxy: StartProxy, smoke: Smoke) -> None:
    """The server must prove that it has the public name."""
    result = smoke(start_proxy(None, "other.olimac.link", "127.0.0.1"))

    assert result.status == 1
    assert f"Hostname mismatch, certificate is not valid for '{HOSTNAME}'" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_a_certificate_that_has_expired_is_refused(
    start_proxy: StartProxy, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is that of OpenSSL."""
    monkeypatch.setattr(certificates, "_LIFETIME", timedelta(minutes=-1))

    result = smoke(start_proxy(None))

    assert result.status == 1
    assert "certificate has expired" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_a_certificate_of_an_unknown_authority_is_refused(
    start_proxy: StartProxy, smoke: Smoke, tmp_path: Path
) -> None:
    """The name is right, but nobody trusted has signed it."""
    others = tmp_path / "others"
    others.mkdir()

    result = smoke(start_proxy(None, signed_by=create_ca(others)))

    assert result.status == 1
    assert "certificate verify failed" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_the_machines_cas_are_trusted_by_default(start_proxy: StartProxy, run: Run) -> None:
    """They did not sign this certificate."""
    result = run("smoke", "--connect", start_proxy(None))

    assert result.status == 1
    assert "unable to get local issuer certificate" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_an_unreachable_service_is_an_error(smoke: Smoke) -> None:
    """The command fails after a timeout, with the last error."""
    result = smoke("{}:{}".format(*free_address()))

    assert result.status == 1
    assert result.stdout.startswith(f"Waiting for https://{HOSTNAME}/readyz (0 s of at most")
    assert f"waiting for https://{HOSTNAME}/readyz" in result.stderr
    assert "the last result was ConnectionRefusedError" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_a_load_balancer_without_pods_is_an_error(start_proxy: StartProxy, smoke: Smoke) -> None:
    """It closes the connection."""
    result = smoke(start_proxy(None))

    assert result.status == 1
    assert "the last result was RemoteDisconnected" in result.stderr


@pytest.mark.usefixtures("short_timeout")
def test_a_service_that_does_not_become_ready_is_an_error(
    serve: Callable[..., Service], start_proxy: StartProxy, smoke: Smoke
) -> None:
    """The message has the service's own response, a 503 with the reason."""
    service = serve(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", TRUSTED_PROXIES="127.0.0.1")

    result = smoke(start_proxy(("127.0.0.1", service.port)))

    assert result.status == 1
    assert "the last result was 503: {" in result.stderr
    assert "atabase" in result.stderr


def test_the_command_waits_until_the_service_is_ready(fake_service: Any, start_proxy: StartProxy, smoke: Smoke) -> None:
    """It repeats the request after a 503."""
    responses = {**RESPONSES, "/readyz": (503, b'"not yet"')}
    timer = threading.Timer(0.1, responses.update, [{"/readyz": (200, b"{}")}])
    timer.start()

    result = smoke(start_proxy(fake_service(responses)))

    timer.join()
    assert result.status == 0, result


@pytest.mark.usefixtures("short_timeout")
@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ({"/readyz": (200, b"<html>")}, "JSONDecodeError"),
        ({"/add": (201, b"{}")}, "POST /add returned 201 instead of 400: {}"),
        ({"/add": (503, b'{"title":"Busy"}')}, "POST /add returned 503 instead of 400: {'title': 'Busy'}"),
        ({"/get/": (404, b'"nobody"')}, "GET /get/5 returned 404 instead of 200: nobody"),
        (
            {"/get/": (200, CLIENT.replace(b"0.01", b"1.00"))},
            "GET /get/5 returned {'id': 5, 'name': 'Ann', 'money': '1.00'}, but /getall has {'id': 5, ",
        ),
        ({"/getall": (200, b"5")}, "GET /getall?limit=1 returned 5, which is not a list of clients"),
        ({"/getall": (200, b"[{}]")}, "GET /getall?limit=1 returned [{}], which is not a list of clients"),
        ({"/getall": (500, b'"no"')}, "GET /getall?limit=1 returned 500 instead of 200: no"),
    ],
)
def test_a_wrong_response_is_an_error(
    fake_service: Any, start_proxy: StartProxy, smoke: Smoke, responses: dict[str, tuple[int, bytes]], message: str
) -> None:
    """The message has the request and the response."""
    result = smoke(start_proxy(fake_service({**RESPONSES, **responses})))

    assert result.status == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_unreadable_ca_file_is_an_error(run: Run, tmp_path: Path, content: str | None) -> None:
    """The file does not exist, or has no certificates."""
    file = tmp_path / "authority.pem"
    if content:
        file.write_text(content)

    result = run("smoke", "--authority", str(file))

    assert result.status == 1
    assert result.stderr.startswith(f"error: cannot read CA certificates from {file}: ")


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:https"])
def test_an_address_without_a_port_is_an_error(run: Run, address: str) -> None:
    """The exit status is that of argparse."""
    result = run("smoke", "--connect", address)

    assert result.status == 2
    assert "argument --connect: invalid" in result.stderr


def test_a_dry_run_sends_no_request(smoke: Smoke) -> None:
    """It prints the URL."""
    assert smoke("127.0.0.1:1", "--dry-run") == (0, f"Would send requests to https://{HOSTNAME}\n", "")
