"""Migrations, the seed, the rights of the service's role, and the pruning of old keys."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from ops.common.process import ROOT
from svc.clients.model import NewClient, parse_money
from svc.postgres import dsn, maintenance, queries
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases, Owner

pytestmark = pytest.mark.slow  # each migration is a process of dbmate


@pytest.fixture
async def empty(databases: Databases) -> AsyncIterator[str]:
    """The DSN of an empty database."""
    name = await databases.new("template1")
    yield databases.postgres.dsn(database=name)
    await databases.drop(name)


async def test_migrating_again_changes_nothing(postgres: EmbeddedPostgres, test_database: str, owner: Owner) -> None:
    """A migration of a migrated database keeps every row."""
    before = await owner.fetch("SELECT * FROM clients")
    await maintenance.migrate(postgres.dsn(database=test_database))

    assert await owner.fetch("SELECT * FROM clients") == before


async def test_two_migrations_at_the_same_time_both_succeed(empty: str) -> None:
    """Two jobs may migrate the same new database: one waits for the other."""
    await asyncio.gather(maintenance.migrate(empty), maintenance.migrate(empty))

    assert await maintenance.seed(empty) == 4


async def test_migrations_accept_any_url_that_the_service_accepts(empty: str, postgres: EmbeddedPostgres) -> None:
    """Dbmate can also use a URL with a percent-encoded socket folder and parameters that only libpq has."""
    name = empty.partition("?")[0].rpartition("/")[2]
    folder = str(postgres.data).replace("/", "%2F")
    url = f"postgresql://postgres:p%20w@{folder}/{name}?gssencmode=prefer&keepalives=1&sslmode=prefer"

    assert "0002" in await maintenance.migrate(str(dsn.parse(url)))


async def test_a_failed_migration_reports_the_reason(empty: str) -> None:
    """The error message has PostgreSQL's own."""
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE clients (id int)")
    await connection.close()

    with pytest.raises(maintenance.MaintenanceError, match='"clients" already exists'):
        await maintenance.migrate(empty)


async def test_migrate_sets_the_password_of_the_services_role(short_folder: Path) -> None:
    """The role logs in with the newest password only, and no password is ever sent to the server."""
    hba = short_folder / "hba.conf"
    hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    server = EmbeddedPostgres(short_folder, {"hba_file": str(hba), "log_statement": "all"})
    server.start()
    try:
        for password in ("first, then", "changed: \"'\\ %$"):
            report = await maintenance.migrate(server.dsn(), password)
            assert report.endswith("The service's role has the given password.")
            await (await asyncpg.connect(server.dsn(SERVICE_ROLE), password=password)).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn(SERVICE_ROLE), password="first, then")
    finally:
        server.stop()
    assert "first, then" not in server.log.read_text()


async def test_the_log_of_the_deployed_database_has_no_clients(short_folder: Path) -> None:
    """With Terraform's parameters, the log of a slow statement has no parameter values."""
    group = re.findall(r'name  = "(log_\w+)"\s+value = "(\w+)"', (ROOT / "terraform/database.tf").read_text())
    server = EmbeddedPostgres(short_folder, {**dict(group), "log_min_duration_statement": "0"})
    server.start()
    try:
        await maintenance.migrate(server.dsn())
        connection = await asyncpg.connect(server.dsn(SERVICE_ROLE))
        await connection.execute("INSERT INTO clients (name, money) VALUES ($1, $2)", "Marigold", Decimal("31337.25"))
        await connection.close()
    finally:
        server.stop()
    log = server.log.read_text()

    assert "INSERT INTO clients" in log
    assert "Marigold" not in log
    assert "31337" not in log


def test_migrations_have_no_rollback() -> None:
    """No down block drops anything; each raises an error."""
    for migration in (queries.SQL / "migrations").iterdir():
        _, down = re.split("-- migrate:down", migration.read_text())

        assert "only go forward" in down
        assert not re.search("drop|delete|truncate", down.replace("would drop", ""), re.IGNORECASE)


async def test_a_second_seeding_changes_nothing(empty: str) -> None:
    """The first seeding adds four clients, the second none."""
    await maintenance.migrate(empty)

    assert [await maintenance.seed(empty), await maintenance.seed(empty)] == [4, 0]


async def test_seeding_a_database_in_use_changes_nothing(
    postgres: EmbeddedPostgres, test_database: str, owner: Owner
) -> None:
    """A client who was removed stays removed."""
    await owner.execute("DELETE FROM clients WHERE name = 'Andres'")

    assert await maintenance.seed(postgres.dsn(database=test_database)) == 0


async def test_prune_deletes_keys_after_24_hours(postgres: EmbeddedPostgres, test_database: str, owner: Owner) -> None:
    """Keys are deleted after 24 hours and not before, and their clients stay."""
    fingerprint = NewClient("Ann", parse_money("1")).fingerprint()
    ages = {"old": timedelta(hours=24, seconds=1), "young": timedelta(hours=23, minutes=59)}
    for key, age in ages.items():
        await owner.execute(
            "INSERT INTO idempotency_keys VALUES ($1, $2, 1, now() - $3::interval)", key, fingerprint, age
        )
    deleted = await maintenance.prune(postgres.dsn(SERVICE_ROLE, test_database))

    assert deleted == 1
    assert [row["key"] for row in await owner.fetch("SELECT key FROM idempotency_keys")] == ["young"]
    assert await owner.fetchval("SELECT count(*) FROM clients") == 4


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM clients",
        "UPDATE clients SET money = 0",
        "TRUNCATE idempotency_keys",
        "DROP TABLE clients",
        "CREATE TABLE mine (id int)",
        "UPDATE idempotency_keys SET client_id = 1",
        "COPY clients TO PROGRAM 'cat'",
        "ALTER ROLE clients_service SUPERUSER",
    ],
)
async def test_the_services_role_has_no_other_rights(
    postgres: EmbeddedPostgres, test_database: str, statement: str
) -> None:
    """The service's role can neither change nor remove clients, nor create or alter anything."""
    connection = await asyncpg.connect(postgres.dsn(SERVICE_ROLE, test_database))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("name", "money"), [("''", "1"), ("repeat('a', 151)", "1"), ("'A'", "'NaN'"), ("'A'", "1e16"), ("NULL", "1")]
)
async def test_the_table_rejects_invalid_clients(owner: Owner, name: str, money: str) -> None:
    """The bounds also hold for writes that bypass the service."""
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.NumericValueOutOfRangeError)):
        await owner.execute(f"INSERT INTO clients (name, money) VALUES ({name}, {money})")  # noqa: S608 - fixed above


async def test_a_database_that_is_not_utf8_is_rejected(postgres: EmbeddedPostgres) -> None:
    """The migration fails and names the database's encoding."""
    connection = await asyncpg.connect(postgres.dsn())
    latin = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    await connection.execute(latin)
    await connection.close()

    with pytest.raises(maintenance.MaintenanceError, match="LATIN1"):
        await maintenance.migrate(postgres.dsn(database="latin"))


@pytest.mark.parametrize("query", sorted((queries.SQL / "queries").iterdir()), ids=lambda path: path.stem)
def test_every_query_states_its_purpose(query: Path) -> None:
    """A query's first line is a comment with its purpose."""
    assert re.match(r"-- .{20,}\.", query.read_text())
