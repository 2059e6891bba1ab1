"""What a restore and a change of the service's password do to a database, as its owner."""

import asyncio
import json
from typing import Final

from svc.postgres import queries
from svc.postgres.connector import Connection
from svc.postgres.settings import SERVICE_ROLES

_SETTLE_SECONDS: Final = 1.0  # a session that is just being opened is not listed yet


async def inspect(connection: Connection) -> str:
    """Returns what the database holds, as a line of JSON.

    It has `schema`, the version of the newest migration; `clients`, their number; `newest_client`, the highest id, 0
    without clients; `newest_key`, when the newest idempotency key was stored, in UTC, empty without keys.
    """
    row = await connection.fetchrow((queries.SQL / "inspect.sql").read_text())
    return json.dumps(dict(row or {}))


async def freeze(connection: Connection) -> str:
    """Makes the database read-only, and ends the service's sessions, so that the next ones are read-only."""
    await _set(connection, "SET default_transaction_read_only = on")
    return "The database is read-only."


async def thaw(connection: Connection) -> str:
    """Makes a frozen database writable again, and ends the service's read-only sessions."""
    await _set(connection, "RESET default_transaction_read_only")
    return "The database is writable."


async def revoke(connection: Connection, service_username: str) -> str:
    """Takes the password from the service's other role, so that nobody can log in as it. Its sessions go on.

    Args:
        connection: as the owner.
        service_username: the role that keeps its password, one of SERVICE_ROLES.
    """
    for role in SERVICE_ROLES:
        exists = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role)
        if role != service_username and exists:
            await connection.execute(f"ALTER ROLE {role} PASSWORD NULL")
    return f"Of the service's roles, only {service_username} can have a password."


async def _set(connection: Connection, change: str) -> None:
    await connection.execute("SET default_transaction_read_only = off")  # of this session: the change is a write
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"ALTER DATABASE {database} {change}")
    end_sessions = (queries.SQL / "end_sessions.sql").read_text()
    for _ in range(2):
        await connection.fetch(end_sessions, list(SERVICE_ROLES))
        await asyncio.sleep(_SETTLE_SECONDS)
