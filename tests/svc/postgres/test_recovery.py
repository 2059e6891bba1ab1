"""What a restore and a change of the service's password do to a database, on a server with passwords."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from ops.common.process import ROOT
from svc.postgres import maintenance, recovery
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import SERVICE_ROLES

pytestmark = pytest.mark.slow  # each migration is a process of dbmate

FIRST, SECOND = SERVICE_ROLES


@pytest.fixture(name="server")
def run_server(short_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server on which only the owner needs no password, since roles belong to the whole server."""
    rules = short_folder / "hba.conf"
    rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    server = EmbeddedPostgres(short_folder, {"hba_file": str(rules), "fsync": "off"})
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def connect(server: EmbeddedPostgres, user: str, password: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(server.dsn(user), password=password)


async def can_log_in(server: EmbeddedPostgres, user: str, password: str) -> bool:
    try:
        await (await connect(server, user, password)).close()
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return False
    return True


async def test_the_second_role_has_the_rights_of_the_first(server: EmbeddedPostgres) -> None:
    """It is created only where it is named; it reads and adds, and does nothing else."""
    await maintenance.migrate(server.dsn(), "first")
    before = await can_log_in(server, SECOND, "second")
    for _ in range(2):
        await maintenance.migrate(server.dsn(), "second", SECOND)

    connection = await connect(server, SECOND, "second")
    await connection.execute("INSERT INTO clients (name, money) VALUES ('Ann', 1)")
    assert await connection.fetchval("SELECT count(*) FROM clients") == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM clients")
    await connection.close()
    assert not before
    assert await can_log_in(server, FIRST, "first")


@pytest.mark.parametrize(("kept", "accepted"), [(FIRST, [True, False]), (SECOND, [False, True])])
async def test_the_other_roles_password_is_revoked(server: EmbeddedPostgres, kept: str, accepted: list[bool]) -> None:
    """The role that is named keeps its password, and sessions go on."""
    await maintenance.migrate(server.dsn(), "first")
    await maintenance.migrate(server.dsn(), "second", SECOND)
    sessions = [await connect(server, FIRST, "first"), await connect(server, SECOND, "second")]
    await maintenance.run(server.dsn(), lambda connection: recovery.revoke(connection, kept))

    assert [await can_log_in(server, FIRST, "first"), await can_log_in(server, SECOND, "second")] == accepted
    for session in sessions:
        assert await session.fetchval("SELECT count(*) FROM clients") == 0
        await session.close()


async def test_revoking_needs_no_second_role(server: EmbeddedPostgres) -> None:
    """It was never created."""
    await maintenance.migrate(server.dsn(), "first")
    await maintenance.run(server.dsn(), lambda connection: recovery.revoke(connection, FIRST))

    assert await can_log_in(server, FIRST, "first")


async def test_a_frozen_database_takes_no_adds_until_it_is_thawed(server: EmbeddedPostgres) -> None:
    """Sessions that were open before end, later ones only read, and a migration makes it writable as well."""
    await maintenance.migrate(server.dsn(), "first")
    add = "INSERT INTO clients (name, money) VALUES ('Ann', 1)"
    for undo in (recovery.thaw, None):
        open_before = await connect(server, FIRST, "first")
        for _ in range(2):  # a second time, as after a failure
            await maintenance.run(server.dsn(), recovery.freeze)
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)):
            await open_before.execute(add)
        frozen = await connect(server, FIRST, "first")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await frozen.execute(add)
        if undo:
            await maintenance.run(server.dsn(), undo)
        else:
            await maintenance.migrate(server.dsn())
        assert frozen.is_closed()
        writable = await connect(server, FIRST, "first")
        await writable.execute(add)
        await writable.close()


async def test_the_content_of_a_database_is_counted(server: EmbeddedPostgres) -> None:
    """An empty one has no newest client and no newest key."""
    await maintenance.migrate(server.dsn(), "first")
    empty = json.loads(await maintenance.run(server.dsn(), recovery.inspect))
    await maintenance.seed(server.dsn())
    connection = await connect(server, FIRST, "first")
    await connection.execute("INSERT INTO idempotency_keys VALUES ('k', sha256('a'), 1, '2026-11-29 16:05:00+00')")
    await connection.close()

    newest_schema = max((ROOT / "sql" / "migrations").iterdir()).name.partition("_")[0]
    assert empty == {"schema": newest_schema, "clients": 0, "newest_client": 0, "newest_key": ""}
    assert json.loads(await maintenance.run(server.dsn(), recovery.inspect)) == {
        "schema": newest_schema,
        "clients": 4,
        "newest_client": 4,
        "newest_key": "2026-11-29T16:05:00Z",
    }


async def test_the_commands_report_what_they_did(server: EmbeddedPostgres) -> None:
    """Each is a command of `python -m svc`; a database that is not migrated is an error."""

    def run(command: str) -> tuple[int, str]:
        environment = {**os.environ, "DATABASE_URL": server.dsn(), "DB_SERVICE_USERNAME": SECOND}
        done = subprocess.run(
            [sys.executable, "-m", "svc", command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    not_migrated = run("inspect")
    await maintenance.migrate(server.dsn())

    assert not_migrated[0] == 1
    assert "error: the database did not run a statement" in not_migrated[1]
    assert run("freeze") == (0, "The database is read-only.\n")
    assert run("thaw") == (0, "The database is writable.\n")
    assert run("revoke") == (0, f"Of the service's roles, only {SECOND} can have a password.\n")
    assert run("inspect")[1].startswith('{"schema": ')
