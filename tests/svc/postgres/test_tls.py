"""TLS to a database that is not on this machine: both drivers reject a server that cannot prove its identity.

The embedded PostgreSQL has no TLS, so the rehearsal's TLS proxy is in front of it. The address `0.0.0.0` leads to this
machine but is not a loopback address, so it counts as another machine.
"""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from ops.common.ports import free_port
from ops.common.process import ROOT
from ops.rehearsal.certificates import Certificate, create_ca, create_certificate
from ops.rehearsal.tls import listen
from svc.postgres import dsn, maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.service import Service

pytestmark = pytest.mark.slow

StartProxy: TypeAlias = Callable[..., int]

OTHER_MACHINE = "0.0.0.0"
SECRET = "hunter2"


@pytest.fixture(name="plain", scope="module")
def make_plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a PostgreSQL without TLS."""
    port = free_port()
    server = EmbeddedPostgres(tmp_path_factory.mktemp("tls"), {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    yield port
    server.stop()


@pytest.fixture
def ca(tmp_path: Path) -> Certificate:
    return create_ca(tmp_path)


@pytest.fixture
def other_ca(tmp_path: Path) -> Certificate:
    folder = tmp_path / "other"
    folder.mkdir()
    return create_ca(folder)


@pytest.fixture
def start_proxy(plain: int, ca: Certificate) -> Iterator[StartProxy]:
    """Starts a TLS proxy for PostgreSQL, whose certificate has the given names, and returns the proxy's port."""
    proxies = []

    def start(*names: str) -> int:
        certificate = create_certificate(ca, "server", list(names))
        proxies.append(listen(certificate, lambda: ("127.0.0.1", plain), ("127.0.0.1", 0), starttls=True))
        return proxies[-1].address[1]

    yield start
    for proxy in proxies:
        proxy.close()


def url(port: int, query: str = "") -> str:
    return f"postgresql://postgres:{SECRET}@{OTHER_MACHINE}:{port}/postgres{query}"


def run(command: str, database: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "svc", command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def check_readiness(environment: dict[str, str], before: Sequence[str] = ()) -> None:
    """Checks that a service with this environment is ready."""
    service = Service({**environment, "DRAIN_SECONDS": "0"}, before=before)
    try:
        service.wait_until_listening()
        service.wait_until_ready()
    finally:
        service.end()


def errors_of(database: str) -> tuple[str, str]:
    """The errors of the service's driver and of the migrations' driver."""
    with pytest.raises((ssl.SSLError, ConnectionError)) as service:
        asyncio.run(asyncpg.connect(database))
    with pytest.raises(maintenance.MaintenanceError) as migrations:
        asyncio.run(maintenance._dbmate(database))
    return str(service.value), str(migrations.value)


def test_the_database_with_the_right_certificate_is_used(start_proxy: StartProxy, ca: Certificate) -> None:
    """Where only the trusted CA is configured, the database is migrated, and the service is ready."""
    database = {"database": url(start_proxy(OTHER_MACHINE)), "PGSSLROOTCERT": str(ca.certificate)}
    migrated = run("migrate", **database)
    check_readiness({"DATABASE_URL": database.pop("database"), **database})

    assert (migrated.returncode, "warning" in migrated.stderr) == (0, False), migrated.stderr


@pytest.fixture(params=["absent", "a file", "a loop", "a long name", "not readable"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The path of a home folder in which no file can be read."""
    folder = tmp_path / "home"
    if request.param == "a file":
        folder.touch()
    elif request.param == "a loop":
        folder.symlink_to(folder)
    elif request.param == "not readable":
        folder.mkdir(mode=0)
    yield f"/{'long' * 100}" if request.param == "a long name" else str(folder)
    if request.param == "not readable":
        folder.chmod(0o700)


def test_a_home_folder_that_cannot_be_read_is_as_an_empty_one(start_proxy: StartProxy, home: str) -> None:
    """Neither driver fails at its default files: the database is migrated, and the service is ready."""
    # Root may read every folder, but for this capability.
    before = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []
    database = {"DATABASE_URL": url(start_proxy(OTHER_MACHINE), "?sslmode=require"), "HOME": home}
    migrate = [*before, sys.executable, "-m", "svc", "migrate"]
    migrated = subprocess.run(migrate, cwd=ROOT, env={**os.environ, **database}, stderr=subprocess.PIPE, check=False)
    check_readiness(database, before)

    assert migrated.returncode == 0, migrated.stderr


def test_a_certificate_of_another_authority_is_rejected(start_proxy: StartProxy, other_ca: Certificate) -> None:
    """The database's certificate must be signed by a trusted CA, even where its name is right."""
    database = str(dsn.parse(url(start_proxy(OTHER_MACHINE), f"?sslrootcert={other_ca.certificate}")))
    service, migrations = errors_of(database)

    assert "certificate verify failed" in service
    assert "failed to verify certificate" in migrations


def test_a_certificate_for_another_name_is_rejected(start_proxy: StartProxy, ca: Certificate) -> None:
    """The certificate is signed by a trusted CA, but belongs to another server."""
    database = str(dsn.parse(url(start_proxy("127.0.0.1"), f"?sslrootcert={ca.certificate}")))
    service, migrations = errors_of(database)

    assert "IP address mismatch" in service
    assert f"not {OTHER_MACHINE}" in migrations


def test_without_sslrootcert_the_machines_authorities_verify(start_proxy: StartProxy) -> None:
    """Where no CA is configured, both drivers use those that the machine trusts, and reject another's certificate."""
    service, migrations = errors_of(str(dsn.parse(url(start_proxy(OTHER_MACHINE)))))

    assert "certificate verify failed" in service
    assert "unknown authority" in migrations


def test_a_database_without_tls_is_rejected(plain: int) -> None:
    """Where no sslmode is configured, both drivers require TLS."""
    service, migrations = errors_of(str(dsn.parse(url(plain))))

    assert "rejected SSL upgrade" in service
    assert "SSL is not enabled on the server" in migrations


def test_a_weaker_sslmode_is_reported(plain: int) -> None:
    """The command runs, and prints one line with a warning, which includes no secret."""
    done = run("migrate", url(plain, "?sslmode=prefer"))
    warning = "warning: sslmode=prefer does not verify that the server is the database; verify-full does"

    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == warning
    assert done.stderr.count("sslmode") == 1
    assert SECRET not in done.stderr


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file or directory"), ("none", "it contains none")])
def test_missing_ca_certificates_are_reported_at_the_start(content: str | None, reason: str, tmp_path: Path) -> None:
    """A service that could never connect to its database does not start."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = run("serve", url(1, f"?sslrootcert={file}"))

    assert done.returncode == 1
    assert done.stderr == (f"error: sslrootcert is '{file}', but must be a file of CA certificates (PEM): {reason}.\n")
