"""A migration expands the schema: the build before it goes on serving, during the roll-out and after a rollback.

`statements/<migration>/` has the queries of the builds whose newest migration that is. A new migration gets a new
folder with its queries, and leaves the folder before it as it is: those are the queries of the previous release.
What only they need is removed by a later migration, when no pod runs them any more.
"""

from pathlib import Path
from typing import Final

import asyncpg
import pytest

from svc.postgres import queries
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Owner

RELEASES: Final = Path(__file__).parent / "statements"
ARGUMENTS: Final[dict[str, tuple[object, ...]]] = {
    "add": (["Ann"], "{1.00}", ["a-key"], [rf"\x{'00' * 32}"]),
    "add_without_keys": (["Ann"], "{1.00}"),
    "get": ("{1}",),
    "missing_migrations": (["0001"],),
    "page": (0, 10),
    "prune": (10,),
    "ready": (),
}


async def run_statements(dsn: str, release: str) -> None:
    """Runs all queries of a release with the service's role.

    Raises:
        PostgresError: one of them does not work on the database's schema.
    """
    connection = await asyncpg.connect(dsn)
    try:
        for file in sorted((RELEASES / release).glob("*.sql")):
            await connection.fetch(file.read_text(), *ARGUMENTS[file.stem])
    finally:
        await connection.close()


def test_the_queries_of_this_build_are_kept() -> None:
    """The next migration finds them there, as those of the previous release."""
    current = {file.name: file.read_text() for file in (queries.SQL / "queries").glob("*.sql")}
    newest = RELEASES / queries.migrations()[-1]
    kept = {file.name: file.read_text() for file in newest.glob("*.sql")}

    assert kept == current, f"copy sql/queries/*.sql to {newest}"


async def test_the_previous_release_runs_on_the_newest_schema(postgres: EmbeddedPostgres, test_database: str) -> None:
    """Its queries, and those of this build, work with the rights of the service's role."""
    releases = sorted(folder.name for folder in RELEASES.iterdir())

    for release in releases[-2:]:
        await run_statements(postgres.dsn(SERVICE_ROLE, test_database), release)


@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE clients RENAME name TO full_name",
        "ALTER TABLE clients ADD email text NOT NULL DEFAULT ''; ALTER TABLE clients ALTER email DROP DEFAULT",
        "ALTER TABLE idempotency_keys DROP created_at",
        "ALTER TABLE clients DROP money",
        "ALTER TABLE clients RENAME TO customers",
        "REVOKE SELECT ON clients FROM clients_service",
    ],
)
async def test_a_migration_that_breaks_the_previous_release_is_found(
    postgres: EmbeddedPostgres, owner: Owner, test_database: str, migration: str
) -> None:
    """A column, a table, a type or a right that it uses has changed."""
    await owner.execute(migration)

    with pytest.raises(asyncpg.PostgresError):
        await run_statements(postgres.dsn(SERVICE_ROLE, test_database), queries.migrations()[-1])


async def test_a_migration_that_only_adds_is_accepted(
    postgres: EmbeddedPostgres, owner: Owner, test_database: str
) -> None:
    """A column with a default, and a table."""
    await owner.execute("ALTER TABLE clients ADD email text NOT NULL DEFAULT ''; CREATE TABLE orders ()")

    await run_statements(postgres.dsn(SERVICE_ROLE, test_database), queries.migrations()[-1])
