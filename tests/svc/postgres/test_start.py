"""The start: a database that the service cannot use is reported, and the service starts all the same."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.common.ports import free_port
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases, Owner
from tests.service import Service

pytestmark = pytest.mark.slow

SECRET = "hunter2"


@pytest.fixture(name="warning")
def make_warning() -> Iterator[Callable[..., str]]:
    """Starts the service with a database's URL, and returns the warning once it listens."""
    services = []

    def start(url: str, **environment: str) -> str:
        services.append(Service({"DATABASE_URL": url, "DRAIN_SECONDS": "0", **environment}))
        services[-1].wait_until_listening()
        found = re.search("^warning: (.*)$", services[-1].output, re.MULTILINE)
        return found[1] if found else ""

    yield start
    for service in services:
        service.end()


def test_a_database_that_can_be_used_gets_no_warning(
    warning: Callable[..., str], postgres: EmbeddedPostgres, test_database: str
) -> None:
    """A migrated database is not mentioned."""
    assert warning(postgres.dsn(SERVICE_ROLE, test_database)) == ""


def test_an_unreachable_database_is_reported(warning: Callable[..., str]) -> None:
    """The warning has the database's name, host and port, and not the password."""
    port = free_port()
    found = warning(f"postgresql://u:{SECRET}@127.0.0.1:{port}/clients")

    assert found.startswith(f"the database clients on 127.0.0.1:{port} cannot be used: ")
    assert "refused" in found or "Connect call failed" in found
    assert SECRET not in found


def test_a_database_that_hangs_is_reported(warning: Callable[..., str]) -> None:
    """The start waits for it no longer than a request would."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = warning(f"postgresql://u:{SECRET}@127.0.0.1:{port}/clients", DB_CONNECT_SECONDS="2")

    assert found.startswith(f"the database clients on 127.0.0.1:{port} did not respond within 2 s")


async def test_a_database_that_is_not_migrated_is_reported(warning: Callable[..., str], databases: Databases) -> None:
    """The warning has the command that migrates it."""
    name = await databases.new("template1")
    found = warning(databases.postgres.dsn(database=name))
    await databases.drop(name)

    assert f"the database {name} on " in found
    assert "is not migrated (relation " in found
    assert "run `python -m svc migrate`" in found


async def test_a_database_with_an_older_schema_is_reported(
    warning: Callable[..., str], postgres: EmbeddedPostgres, owner: Owner, test_database: str
) -> None:
    """The warning names the missing migrations and the command that runs them."""
    await owner.execute("DELETE FROM schema_migrations WHERE version = '0002'")
    found = warning(postgres.dsn(SERVICE_ROLE, test_database))

    assert f"the database {test_database} on " in found
    assert "lacks migration 0002: run `python -m svc migrate`" in found


@pytest.mark.parametrize("right", ["SELECT", "INSERT"])
async def test_a_role_without_a_right_is_reported(
    warning: Callable[..., str], postgres: EmbeddedPostgres, owner: Owner, test_database: str, right: str
) -> None:
    """The warning has the command that grants the rights, whether the role may not read or not write."""
    await owner.execute(f"REVOKE {right} ON clients FROM {SERVICE_ROLE}")
    found = warning(postgres.dsn(SERVICE_ROLE, test_database))

    assert f"the database {test_database} on " in found
    assert "does not give this user all rights: run `python -m svc migrate`" in found


def test_a_login_that_is_refused_is_reported(warning: Callable[..., str], postgres: EmbeddedPostgres) -> None:
    """The warning has the server's reason."""
    assert 'role "nobody_of_this_name" does not exist' in warning(postgres.dsn("nobody_of_this_name"))


def test_a_wrong_password_is_reported(warning: Callable[..., str], short_folder: Path) -> None:
    """The warning has the server's reason, and not the password."""
    hba = short_folder / "hba.conf"
    hba.write_text("local all all scram-sha-256\n")
    server = EmbeddedPostgres(short_folder, {"hba_file": str(hba)})
    server.start()
    try:
        found = warning(f"{server.dsn()}&password={SECRET}")
    finally:
        server.stop()

    assert 'password authentication failed for user "postgres"' in found
    assert SECRET not in found
