"""Queries on the pool, with limited waits, and the mapping of driver errors to the service's own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from svc.errors import DatabaseBusy, DatabaseUnavailable, QueryTimedOut
from svc.logs import names
from svc.logs.setup import shorten
from svc.postgres import pool
from svc.postgres.settings import DatabaseSettings

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_log = structlog.get_logger()

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
    """The database, on a pool that connects at the first query."""
    async with pool.opened(settings) as opened:
        yield Database(opened, settings)
