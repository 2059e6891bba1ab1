"""Queries on the pool, with limited waits, and the mapping of driver errors to the service's own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog

from svc.errors import (
    DatabaseBusy,
    DatabaseNotMigrated,
    DatabaseRightsMissing,
    DatabaseUnavailable,
    NoFreeId,
    QueryTimedOut,
    RowRefused,
    TransactionRolledBack,
)
from svc.logs import names
from svc.logs.setup import shorten
from svc.postgres import dsn, pool
from svc.postgres.connector import Connection
from svc.postgres.pool import Pool
from svc.postgres.settings import DatabaseSettings

_log = structlog.get_logger()

# Errors of statements, by SQLSTATE or, where all of a class are alike, by its first two characters
# (https://www.postgresql.org/docs/current/errcodes-appendix.html). Any other is unexpected.
_ERRORS: Final[dict[str, type[Exception]]] = {
    "08": DatabaseUnavailable,  # the connection broke
    "22": RowRefused,  # a value that the database does not take
    "2200H": NoFreeId,  # the sequence is at its end
    "23": RowRefused,  # a constraint
    "26000": DatabaseUnavailable,  # no such prepared statement: a pooler has changed the server's connection
    "25006": DatabaseUnavailable,  # read-only: a former primary after a failover
    "25P04": QueryTimedOut,  # transaction_timeout
    "28": DatabaseUnavailable,  # the role may not log in
    "3D": DatabaseUnavailable,  # no such database
    "3F": DatabaseNotMigrated,  # no such schema
    "40": TransactionRolledBack,  # serialization failure, deadlock
    "40003": DatabaseUnavailable,  # it is not known whether it was rolled back
    "42501": DatabaseRightsMissing,
    "42703": DatabaseNotMigrated,  # no such column
    "42804": DatabaseNotMigrated,  # a column has another type
    "42883": DatabaseNotMigrated,  # no such function or operator, as for a column of another type
    "42P01": DatabaseNotMigrated,  # no such table
    "42P05": DatabaseUnavailable,  # the prepared statement exists: as 26000
    "42P10": DatabaseNotMigrated,  # no unique constraint for ON CONFLICT
    "53": DatabaseUnavailable,  # too many connections, disk full, out of memory
    "55P03": QueryTimedOut,  # lock_timeout
    "57": DatabaseUnavailable,  # starting, shutting down, crashed
    "57014": QueryTimedOut,  # statement_timeout
    "58": DatabaseUnavailable,  # an error of the server's operating system, or of a pooler
    "XX": DatabaseUnavailable,  # an internal error of the server or of a pooler
}
# Nothing was changed, and the same statement may succeed. (40003 is not among these.)
_ROLLED_BACK: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.TransactionIntegrityConstraintViolationError,
)
# A pooler refuses statement_timeout as the session's parameter, or has lost a prepared statement.
_POOLER_ERRORS: Final = (
    asyncpg.ProtocolViolationError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
_ID_CONSTRAINT: Final = "clients_pkey"

# What an operator has to do.
_REMEDIES: Final[dict[type[Exception], str]] = {
    DatabaseNotMigrated: "run python -m svc migrate",
    DatabaseRightsMissing: "run python -m svc migrate",
    NoFreeId: "the sequence clients_id_seq has no free id; "
    "run as the owner: SELECT setval('clients_id_seq', max(id)) FROM clients",
}


class Database:
    """Runs queries, each on a connection of the pool.

    Attributes:
        is_unavailable: whether the last query failed because the database did not answer.
    """

    def __init__(self, pool: Pool, settings: DatabaseSettings) -> None:
        self._pool = pool
        self._dsn = settings.dsn
        self.is_unavailable = False
        self._refused: dict[str, type[Exception]] = {}  # the queries that need an operator, and why

    @property
    def in_use(self) -> int:
        """The number of connections that run a query now."""
        return self._pool.in_use

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Runs the query and returns its rows.

        Raises:
            DatabaseBusy: no connection was free in time.
            DatabaseUnavailable: there is no connection, or it was lost during the query. In the second case, a write
                may have happened or not.
            QueryTimedOut: the statement took longer than its time-out.
            TransactionRolledBack: the statement conflicted with others twice.
            DatabaseNotMigrated, DatabaseRightsMissing, NoFreeId: an operator has to change the database.
            RowRefused: the database refused one of the statement's values.
            Exception: the driver's own error, where it is none of these.
        """
        try:
            connection = await self._pool.acquire()
        except DatabaseBusy:
            raise
        except Exception as error:
            raise self._record_unavailable(error) from error
        try:
            rows = await _fetch(connection, query, arguments)
        except Exception as error:
            raised = self._record(error, query)
            if raised is None:
                raise
            raise raised from error
        finally:
            self._pool.release(connection)
        if self.is_unavailable:
            self._record_recovered()
        if self._refused:
            self._refused.pop(query, None)
        return rows

    async def value(self, query: str, *arguments: object) -> Any:
        """Runs a query that gives one row, and returns its first column."""
        (row,) = await self.rows(query, *arguments)
        return row[0]

    def _record(self, error: Exception, query: str) -> Exception | None:
        """Records the error of a query on an open connection. Returns the service's own; None for an unexpected one."""
        if isinstance(error, TimeoutError):
            # The other connections may be stuck as well, so each is replaced before its next use.
            self._pool.expire()
            return QueryTimedOut()
        kind = error_type(error)
        if kind is DatabaseUnavailable:
            return self._record_unavailable(error)
        if self.is_unavailable:
            self._record_recovered()
        if kind in _REMEDIES and self._refused.get(query) is not kind:
            self._refused[query] = kind
            remedy = _REMEDIES[kind]
            _log.warning(names.STATEMENT_REFUSED, error=kind.__name__, detail=f"{shorten(error)}; {remedy}")
        return None if kind is None else kind()

    def _record_unavailable(self, error: Exception) -> DatabaseUnavailable:
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            # The connected server is no longer the primary, so new connections have to replace these.
            self._pool.expire()
        if not self.is_unavailable:
            self.is_unavailable = True
            remedy = "; behind a pooler, set DB_POOLER=transaction" if isinstance(error, _POOLER_ERRORS) else ""
            _log.warning(
                names.DATABASE_UNAVAILABLE,
                error=type(error).__name__,
                detail=shorten(error) + remedy,
                server=",".join(f"{host}:{port}" for host, port in dsn.parse(self._dsn).addresses),
            )
        return DatabaseUnavailable()

    def _record_recovered(self) -> None:
        self.is_unavailable = False
        _log.warning(names.DATABASE_RECOVERED)


def error_type(error: BaseException | None) -> type[Exception] | None:
    """The service's own type for a driver's error during a query; None where it is unexpected."""
    if isinstance(error, asyncpg.PostgresError):
        if error.constraint_name == _ID_CONSTRAINT:  # the sequence is behind the table
            return NoFreeId
        state = error.sqlstate or ""
        return _ERRORS.get(state) or _ERRORS.get(state[:2])
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # asyncpg cannot encode a value
        return RowRefused
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):  # the connection broke
        return DatabaseUnavailable
    return None


async def _fetch(connection: Connection, query: str, arguments: Sequence[object]) -> list[asyncpg.Record]:
    try:
        try:
            return await connection.fetch(query, *arguments)
        except _ROLLED_BACK:
            return await connection.fetch(query, *arguments)  # the other transactions may have ended
    except (TimeoutError, asyncio.CancelledError):
        # asyncpg would now send a cancel request and wait for it. But a server that can be reached would have ended the
        # statement at its statement_timeout, so this one cannot be reached.
        connection.terminate()
        raise


@asynccontextmanager
async def connect(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The database, on a pool that connects at the first query."""
    async with pool.opened(settings) as opened:
        yield Database(opened, settings)
