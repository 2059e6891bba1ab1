"""The service's role, where the database's owner may not create roles or change this one."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE

pytestmark = pytest.mark.slow  # each migration is a process of dbmate

OWNER = "plain_owner"
COMMAND = (
    r"Run this as a user who may do that: psql --host \S+ --port 5432 --dbname owned "
    r"--file sql/roles.sql --command '\\password clients_service'$"
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server of its own, since roles belong to the whole server."""
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        server = EmbeddedPostgres(Path(folder), {"fsync": "off"})
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
async def owned(server: EmbeddedPostgres) -> str:
    """The URL with which an owner without further rights connects to its new database."""
    await execute(server.dsn(), "DROP DATABASE IF EXISTS owned", f"DROP ROLE IF EXISTS {OWNER}, {SERVICE_ROLE}")
    await execute(server.dsn(), f"CREATE ROLE {OWNER} LOGIN", f"CREATE DATABASE owned OWNER {OWNER}")
    return server.dsn(OWNER, "owned")


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def test_an_owner_who_may_not_create_roles_gets_the_command(owned: str) -> None:
    """Without a password to set, the migration succeeds and reports it; with one, it ends with the sentence."""
    reason = f"permission denied to create role. {COMMAND}"

    with pytest.raises(maintenance.MaintenanceError, match=f"^the schema is up to date, but .*: {reason}"):
        await maintenance.migrate(owned, "secret")
    assert re.search(f"\nBut .*: {reason}", await maintenance.migrate(owned))


async def test_an_owner_who_may_not_change_the_role_gets_the_command(owned: str, server: EmbeddedPostgres) -> None:
    """Another user created the role, so its password is not the owner's to set."""
    await execute(server.dsn(), f"CREATE ROLE {SERVICE_ROLE} LOGIN")

    with pytest.raises(maintenance.MaintenanceError, match=f"permission denied to alter role. {COMMAND}"):
        await maintenance.migrate(owned, "secret")


async def test_a_user_who_may_not_grant_gets_the_command(owned: str, server: EmbeddedPostgres) -> None:
    """Another user owns the tables, so they are not this user's to grant."""
    superuser = server.dsn(database="owned")
    await maintenance.migrate(superuser)
    await execute(superuser, f"GRANT SELECT ON schema_migrations TO {OWNER}")

    with pytest.raises(maintenance.MaintenanceError, match=f"permission denied for table clients. {COMMAND}"):
        await maintenance.migrate(owned, "secret")
