"""The life of the asyncpg pool, and driver errors turned into ours."""

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
    asyncpg.InternalClientError,  # the same, seen from inside asyncpg's state machine
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.OperatorInterventionError,  # starting up, shutting down, crashed
    asyncpg.ReadOnlySQLTransactionError,  # a former primary after a failover
)


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        # Nothing here changes a session, so a release owes the server no round trip.
        return ""


class Database:
    """A small pool of connections whose waiters are served in order of arrival, each wait bounded.

    Attributes:
        is_unavailable: whether the database did not answer when it was last asked.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", settings: DatabaseSettings) -> None:
        self._pool = pool
        self._acquire_seconds = settings.acquire_seconds
        # asyncpg serves its own waiters unfairly: a newcomer overtakes whoever was just woken.
        # So at most as many get to the pool as it has connections, and the rest queue here.
        self._turns = asyncio.Semaphore(settings.pool_size)
        self.is_unavailable = False

    @property
    def in_use(self) -> int:
        """Connections that are at work now."""
        return self._pool.get_size() - self._pool.get_idle_size()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows that the query gives.

        Raises:
            DatabaseBusy: no connection was free in time.
            DatabaseUnavailable: the database is away, or went away underway: then a write may have happened or not.
            QueryTimedOut: the statement took longer than it may.
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
                # What became of this connection may have become of all: one of them is enough to find it out.
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
        """The first column of the only row that the query gives."""
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
            # The connections lead to a server that will never write again: make new ones, to the new primary.
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
        # asyncpg would now ask the server to cancel, and wait for that. But a server that is there ends a statement in
        # time by itself; so there is none.
        connection.terminate()
        raise


@asynccontextmanager
async def connect(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The pool, from its first connection, made when it is first needed, to a bounded close."""
    pool = asyncpg.create_pool(
        settings.dsn,
        connection_class=_Connection,
        min_size=0,  # the service starts, and says 503, while the database is away
        max_size=settings.pool_size,
        max_queries=2**62,  # no reconnecting in the middle of traffic
        max_inactive_connection_lifetime=0,
        max_cached_statement_lifetime=0,  # prepared once, kept for the connection's life
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
