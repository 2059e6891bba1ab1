"""make audit: bandit on our code, and pip-audit on what it is made of, before a stand-in for OSV on loopback."""

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

CANARY = ("pyyaml", "5.1")
HASH = f"    --hash=sha256:{'0' * 64}\n"
EXCEPTION_MOST = timedelta(days=90)


class Osv(ThreadingHTTPServer):
    """Knows of holes as it is told, and keeps what it is asked: https://google.github.io/osv.dev/post-v1-query."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.holes = {CANARY: "GHSA-8q59-q68h-6hv4"}
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class Answer(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = (query["package"]["name"], query["version"])
        self.server.asked.append(asked)
        body = json.dumps(self._answer(*asked)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, name: str, version: str) -> dict[str, Any]:
        if (name, version) not in self.server.holes:
            return {}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        hole = self.server.holes[name, version]
        return {"vulns": [{"id": hole, "aliases": ["CVE-2026-1"], "summary": "", "affected": affected}]}

    def log_message(self, *_: object) -> None:
        """Nothing."""


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
    """One that is small, and in which nothing is wrong."""
    for folder in ("svc", "ops", "requirements", ".ci"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.bandit]\n")
    (tmp_path / ".ci" / "advisories.toml").touch()
    (tmp_path / "requirements" / "service.txt").write_text(f"fine==1.0 \\\n{HASH}holey==2.0 \\\n{HASH}")
    return tmp_path


def audit(checkout: Path, url: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "--osv-url", url]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_version_that_is_locked_is_asked_for(osv: Osv) -> None:
    """Of all lock files, whatever platform and Python it is for; and our own code is as bandit wants it."""
    locks = [file.read_text(encoding="utf-8") for file in (ROOT / "requirements").glob("*.txt")]
    pins = {pin for lock in locks for pin in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)}
    status, said = audit(ROOT, osv.url)

    assert status == 0, said
    assert sorted(osv.asked) == sorted([CANARY, *pins])
    assert f"{len(pins)} versions in {len(locks)} lock files" in said
    assert {name for name, _ in pins} >= {"aiohttp", "pywin32", "checkov"}


def test_a_hole_that_is_known_is_an_error(osv: Osv, checkout: Path) -> None:
    """With its name, and where it is mended."""
    osv.holes["holey", "2.0"] = "GHSA-1"
    status, said = audit(checkout, osv.url)

    assert status == 1
    assert "audit: error: holey 2.0: CVE-2026-1, GHSA-1, mended in 9.9\n" in said
    assert "fine" not in said


@pytest.mark.parametrize("name", ["GHSA-1", "CVE-2026-1"])
@pytest.mark.parametrize(("days", "status"), [(0, 0), (-1, 1)])
def test_a_hole_can_be_lived_with_for_a_while(osv: Osv, checkout: Path, name: str, days: int, status: int) -> None:
    """To the day that was set, and its reason is told each time."""
    osv.holes["holey", "2.0"] = "GHSA-1"
    until = (datetime.now(UTC) + timedelta(days=days)).date()
    exception = f'[[accepted]]\nid = "{name}"\nuntil = {until}\nreason = "nobody calls it"\n'
    (checkout / ".ci" / "advisories.toml").write_text(exception)
    ended, said = audit(checkout, osv.url)

    assert ended == status
    assert f"accepted until {until}" in said
    assert ("nobody calls it" in said) is (status == 0)


def test_where_nobody_answers_nothing_is_known(checkout: Path) -> None:
    """That is no success, and not the same as a hole."""
    status, said = audit(checkout, f"http://127.0.0.1:{free_port()}/")

    assert status == 3
    assert "no advisory service can be asked from here, so nothing is known" in said


def test_who_knows_nothing_is_not_believed(osv: Osv, checkout: Path) -> None:
    """A mirror or a proxy that answers everything with nothing has not said that all is well."""
    osv.holes.clear()
    status, said = audit(checkout, osv.url)

    assert status == 3
    assert "knows of no hole in PyYAML 5.1" in said


def test_unsafe_code_is_an_error_wherever_it_is_looked_for(checkout: Path) -> None:
    """Also where no advisory service answers."""
    (checkout / "svc" / "unsafe.py").write_text("import pickle\npickle.loads(open('x', 'rb').read())\n")
    status, said = audit(checkout, f"http://127.0.0.1:{free_port()}/")

    assert status == 1
    assert "B301" in said


def test_no_exception_is_for_ever() -> None:
    """Each has its reason, and a day within three months on which to look anew."""
    accepted = tomllib.loads((ROOT / ".ci" / "advisories.toml").read_text(encoding="utf-8")).get("accepted", [])

    assert all(one["reason"] and one["id"] for one in accepted)
    assert all(one["until"] <= datetime.now(UTC).date() + EXCEPTION_MOST for one in accepted)
