"""The asyncpg pool, from its creation to its close, and the mapping of driver errors to the service's own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from svc.errors import DatabaseBusy, DatabaseUnavailable, QueryTimedOut
from svc.logs import names
from svc.logs.setup import shorten
from svc.postgres.settings import DatabaseSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_log = structlog.get_logger()

_CLOSE_SECONDS: Final = 5.0

_UNAVAILABLE_ERRORS: Final = (
    OSError,  # refused, reset, no route, no such host
    asyncpg.InterfaceError,  # the connection closed under the query
    asyncpg.InternalClientError,  # the same, raised by asyncpg's state machine
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.OperatorInterventionError,  # starting up, shutting down, crashed
    asyncpg.ReadOnlySQLTransactionError,  # a former primary after a failover
)


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        # No query changes the session, so a release needs no round trip to reset it.
        return ""


class Database:
    """A small pool of connections. Callers wait for one in order of arrival, and for a limited time.

    Attributes:
        is_unavailable: whether the last query failed because the database did not answer.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: DatabaseSettings) -> None:
        self._pool = pool
        self._acquire_seconds = settings.acquire_seconds
        # asyncpg's own queue is not fair: a new caller can overtake one that was just woken. So only as many callers
        # reach the pool as it has connections, and all others wait here.
        self._turns = asyncio.Semaphore(settings.pool_size)
        self.is_unavailable = False

    @property
    def in_use(self) -> int:
        """The number of connections that run a query now."""
        return self._pool.get_size() - self._pool.get_idle_size()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Runs the query and returns its rows.

        Raises:
            DatabaseBusy: no connection was free in time.
            DatabaseUnavailable: the database does not answer, or the connection was lost during the query. In the
                second case, a write may have happened or not.
            QueryTimedOut: the statement took longer than its time-out.
        """
        await self._acquire_turn()
        connected = False
        try:
            async with self._pool.acquire() as connection:
                connected = True
                rows = await _fetch(connection, query, arguments)
        except asyncpg.QueryCanceledError as error:
            raise QueryTimedOut from error
        except _UNAVAILABLE_ERRORS as error:
            if connected and isinstance(error, TimeoutError):
                # The other connections may be stuck as well, so each is replaced before its next use.
                await self._pool.expire_connections()
                raise QueryTimedOut from error
            await self._record_unavailable(error)
            raise DatabaseUnavailable from error
        finally:
            self._turns.release()
        if self.is_unavailable:
            self.is_unavailable = False
            _log.warning(names.DATABASE_RECOVERED)
        return rows

    async def value(self, query: str, *arguments: object) -> Any:
        """Runs a query that gives one row, and returns its first column."""
        (row,) = await self.rows(query, *arguments)
        return row[0]

    async def _acquire_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self._acquire_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise DatabaseBusy from None

    async def _record_unavailable(self, error: Exception) -> None:
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            # The connected server is no longer the primary, so new connections have to replace these.
            await self._pool.expire_connections()
        if not self.is_unavailable:
            self.is_unavailable = True
            _log.warning(names.DATABASE_UNAVAILABLE, error=type(error).__name__, detail=shorten(error))


async def _fetch(
    connection: "PoolConnectionProxy[asyncpg.Record]", query: str, arguments: Sequence[object]
) -> list[asyncpg.Record]:
    try:
        return await connection.fetch(query, *arguments)
    except (TimeoutError, asyncio.CancelledError):
        # asyncpg would now send a cancel request and wait for it. But a server that can be reached would have ended the
        # statement at its statement_timeout, so this one cannot be reached.
        connection.terminate()
        raise


@asynccontextmanager
async def connect(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Creates the pool, which connects at the first query, and closes it at the end within a limited time."""
    pool = asyncpg.create_pool(
        settings.dsn,
        connection_class=_Connection,
        min_size=0,  # the service also starts while the database is unavailable, and answers 503
        max_size=settings.pool_size,
        max_queries=2**62,  # no reconnect during traffic
        max_inactive_connection_lifetime=0,
        max_cached_statement_lifetime=0,  # a statement is prepared once for each connection
        timeout=settings.connect_seconds,
        command_timeout=settings.command_seconds,
        server_settings={
            "application_name": "clients-api",
            "statement_timeout": f"{settings.statement_seconds * 1000:.0f}",
        },
    )
    await pool
    try:
        yield Database(pool, settings)
    finally:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()
