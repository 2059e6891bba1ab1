"""The tests of a file in this folder share a database, which is emptied and seeded before each."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import Databases


@pytest.fixture(scope="module")
def shared_database(databases: Databases) -> Iterator[str]:
    """The name of a database with the schema."""
    name = asyncio.run(databases.new())
    yield name
    asyncio.run(databases.drop(name))


@pytest.fixture(name="test_database")
async def empty_and_seed(postgres: EmbeddedPostgres, shared_database: str) -> str:
    """The name of a database with the four first clients in it."""
    dsn = postgres.dsn(database=shared_database)
    connection = await asyncpg.connect(dsn)
    # Much faster than TRUNCATE, which makes new files.
    await connection.execute(
        "DELETE FROM clients; DELETE FROM idempotency_keys; SELECT setval('clients_id_seq', 1, false)"
    )
    await connection.close()
    await maintenance.seed(dsn)
    return shared_database
