"""The way to a database that is not on this machine: who is not that database is refused, by both drivers.

The embedded PostgreSQL speaks no TLS, so the rehearsal's front does, before it. `0.0.0.0` leads to this machine and is
no loopback address, so it stands for elsewhere.
"""

import asyncio
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from ops.common.ports import free_port
from ops.common.process import ROOT, Service
from ops.rehearsal.certificates import Certificate, authority, certificate
from ops.rehearsal.tls import listen
from svc.postgres import dsn, maintenance
from svc.postgres.embedded import EmbeddedPostgres

Show: TypeAlias = Callable[..., int]

ELSEWHERE = "0.0.0.0"
SECRET = "hunter2"


@pytest.fixture(name="plain", scope="module")
def make_plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a PostgreSQL that speaks no TLS."""
    port = free_port()
    server = EmbeddedPostgres(tmp_path_factory.mktemp("tls"), {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    yield port
    server.stop()


@pytest.fixture
def ca(tmp_path: Path) -> Certificate:
    return authority(tmp_path)


@pytest.fixture
def other_ca(tmp_path: Path) -> Certificate:
    folder = tmp_path / "other"
    folder.mkdir()
    return authority(folder)


@pytest.fixture
def show(plain: int, ca: Certificate) -> Iterator[Show]:
    """Puts TLS before it, with a certificate for some names, and gives the port."""
    fronts = []

    def shown(*names: str) -> int:
        shown_one = certificate(ca, "server", list(names))
        fronts.append(listen(shown_one, lambda: ("127.0.0.1", plain), ("127.0.0.1", 0), asks=True))
        return fronts[-1].address[1]

    yield shown
    for front in fronts:
        front.close()


def url(port: int, query: str = "") -> str:
    return f"postgresql://postgres:{SECRET}@{ELSEWHERE}:{port}/postgres{query}"


def run(command: str, database: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "svc", command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refusals(database: str) -> tuple[str, str]:
    """What the service's driver says, and the migrations'."""
    with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
        asyncio.run(asyncpg.connect(database))
    with pytest.raises(maintenance.MaintenanceError) as failed:
        asyncio.run(maintenance._dbmate(database))
    return str(refused.value), str(failed.value)


def test_the_database_with_the_right_certificate_is_used(show: Show, ca: Certificate) -> None:
    """With nothing said but which CA is trusted: it is migrated, and the service is ready on it."""
    database = {"database": url(show(ELSEWHERE)), "PGSSLROOTCERT": str(ca.certificate)}
    migrated = run("migrate", **database)
    service = Service({"DATABASE_URL": database.pop("database"), **database, "DRAIN_SECONDS": "0"})
    try:
        service.wait_until_listening()
        with urllib.request.urlopen(f"{service.url}/readyz") as answer:
            ready = answer.status
    finally:
        service.end()

    assert (migrated.returncode, "warning" in migrated.stderr) == (0, False), migrated.stderr
    assert ready == 200


def test_another_authoritys_certificate_is_refused(show: Show, other_ca: Certificate) -> None:
    """Whoever made a certificate for our database's name has to be someone whom we trust."""
    database = str(dsn.parse(url(show(ELSEWHERE), f"?sslrootcert={other_ca.certificate}")))
    service, migrations = refusals(database)

    assert "certificate verify failed" in service
    assert "failed to verify certificate" in migrations


def test_a_certificate_for_another_name_is_refused(show: Show, ca: Certificate) -> None:
    """One that we trust, and that is not our database."""
    database = str(dsn.parse(url(show("127.0.0.1"), f"?sslrootcert={ca.certificate}")))
    service, migrations = refusals(database)

    assert "IP address mismatch" in service
    assert f"not {ELSEWHERE}" in migrations


def test_the_machines_own_authorities_did_not_sign_it(show: Show) -> None:
    """Where no CA is named, those that the machine trusts are asked, by both drivers."""
    service, migrations = refusals(str(dsn.parse(url(show(ELSEWHERE)))))

    assert "certificate verify failed" in service
    assert "unknown authority" in migrations


def test_a_database_without_tls_is_refused(plain: int) -> None:
    """Where nothing is said of TLS, none is no way to go on."""
    service, migrations = refusals(str(dsn.parse(url(plain))))

    assert "rejected SSL upgrade" in service
    assert "SSL is not enabled on the server" in migrations


def test_who_wants_less_is_told_what_that_means(plain: int) -> None:
    """In one line, which holds no secret; the command does what it is told."""
    done = run("migrate", url(plain, "?sslmode=prefer"))
    told = "warning: sslmode=prefer lets whoever is between here and the database pose as it; verify-full does not"

    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == told
    assert done.stderr.count("sslmode") == 1
    assert SECRET not in done.stderr


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), ("none", "there are none in it")])
def test_ca_certificates_that_are_not_there_are_told_of_at_once(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    """A service that could never reach its database does not start."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = run("serve", url(1, f"?sslrootcert={file}"))

    assert done.returncode == 1
    assert done.stderr == (
        f"error: sslrootcert is '{file}', and has to be a file of CA certificates (PEM): {reason}.\n"
    )
