"""make audit: bandit checks our code, and pip-audit checks the locked packages against a fake OSV on loopback."""

import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.common.ports import free_port
from ops.common.process import ROOT

pytestmark = pytest.mark.slow

CANARY = ("pyyaml", "5.1")
HASH = f"    --hash=sha256:{'0' * 64}\n"
MAX_EXCEPTION = timedelta(days=90)


class Osv(ThreadingHTTPServer):
    """A fake OSV that records the queries: https://google.github.io/osv.dev/post-v1-query."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.vulnerabilities = {CANARY: "GHSA-8q59-q68h-6hv4"}
        self.queries: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class Handler(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = (query["package"]["name"], query["version"])
        self.server.queries.append(package)
        body = json.dumps(self._respond(*package)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _respond(self, name: str, version: str) -> dict[str, Any]:
        if (name, version) not in self.server.vulnerabilities:
            return {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        identifier = self.server.vulnerabilities[name, version]
        return {"vulns": [{"id": identifier, "aliases": ["CVE-2026-1"], "summary": "", "affected": affected}]}

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@pytest.fixture
def osv() -> Iterator[Osv]:
    with Osv() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Creates a small checkout without findings."""
    for folder in ("svc", "ops", "requirements", ".ci"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.bandit]\n")
    (tmp_path / ".ci" / "advisories.toml").touch()
    (tmp_path / "requirements" / "service.txt").write_text(f"fine==1.0 \\\n{HASH}unsafe==2.0 \\\n{HASH}")
    return tmp_path


def audit(checkout: Path, url: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "--osv-url", url]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_every_locked_version_is_checked(osv: Osv) -> None:
    """All versions of all lock files are checked, for any platform and Python; bandit finds nothing in our code."""
    locks = [file.read_text(encoding="utf-8") for file in (ROOT / "requirements").glob("*.txt")]
    pins = {pin for lock in locks for pin in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)}
    status, output = audit(ROOT, osv.url)

    assert status == 0, output
    assert sorted(osv.queries) == sorted([CANARY, *pins])
    assert f"{len(pins)} versions in {len(locks)} lock files" in output
    assert {name for name, _ in pins} >= {"aiohttp", "pywin32", "checkov"}


def test_a_known_vulnerability_is_an_error(osv: Osv, checkout: Path) -> None:
    """The message has its names and the fixed version."""
    osv.vulnerabilities["unsafe", "2.0"] = "GHSA-1"
    status, output = audit(checkout, osv.url)

    assert status == 1
    assert "audit: error: unsafe 2.0: CVE-2026-1, GHSA-1, fixed in 9.9\n" in output
    assert "fine" not in output


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-2026-1"])
@pytest.mark.parametrize(("days", "status"), [(0, 0), (-1, 1)])
def test_a_vulnerability_can_be_accepted_until_a_date(
    osv: Osv, checkout: Path, name: str, days: int, status: int
) -> None:
    """The output has the date, and the reason while it is accepted."""
    osv.vulnerabilities["unsafe", "2.0"] = "GHSA-1"
    until = (datetime.now(UTC) + timedelta(days=days)).date()
    exception = f'[[accepted]]\nid = "{name}"\nuntil = {until}\nreason = "nobody calls it"\n'
    (checkout / ".ci" / "advisories.toml").write_text(exception)
    exit_status, output = audit(checkout, osv.url)

    assert exit_status == status
    assert f"accepted until {until}" in output
    assert ("nobody calls it" in output) is (status == 0)


def test_an_unreachable_advisory_service_has_its_own_exit_status(checkout: Path) -> None:
    """Status 3 is neither success nor a finding."""
    status, output = audit(checkout, f"http://127.0.0.1:{free_port()}/")

    assert status == 3
    assert "no advisory service answers, so the packages were not checked" in output


def test_an_advisory_service_without_data_is_not_trusted(osv: Osv, checkout: Path) -> None:
    """A mirror or a proxy may return an empty response for everything, which is no success."""
    osv.vulnerabilities.clear()
    status, output = audit(checkout, osv.url)

    assert status == 3
    assert "has no vulnerability of PyYAML 5.1" in output


def test_unsafe_code_is_an_error_without_an_advisory_service(checkout: Path) -> None:
    """The exit status is 1, not 3."""
    (checkout / "svc" / "unsafe.py").write_text("import pickle\npickle.loads(open('x', 'rb').read())\n")
    status, output = audit(checkout, f"http://127.0.0.1:{free_port()}/")

    assert status == 1
    assert "B301" in output


def test_every_exception_has_a_reason_and_a_date() -> None:
    """The date is at most 90 days away."""
    accepted = tomllib.loads((ROOT / ".ci" / "advisories.toml").read_text(encoding="utf-8")).get("accepted", [])

    assert all(one["reason"] and one["id"] for one in accepted)
    assert all(one["until"] <= datetime.now(UTC).date() + MAX_EXCEPTION for one in accepted)
