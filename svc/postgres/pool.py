"""The connection pool: connections are opened when needed, kept, replaced where they have expired, and closed."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from svc.errors import DatabaseBusy
from svc.postgres.connector import Connection, Connector, PoolerConnection
from svc.postgres.settings import DatabaseSettings

_CLOSE_SECONDS: Final = 5.0
_CACHED_STATEMENTS: Final = 100  # far more than there are


class Pool:
    """A few connections, each opened when it is first needed. Who waits for one gets it in order of arrival.

    asyncpg's own pool takes a sixth of the CPU time of a lone query: it releases each connection in a task, with a
    time-out, and resets it, though no query here changes its session. And in its queue, a new caller can overtake one
    that was just woken.

    Args:
        connector: opens the connections.
        size: how many may be in use at once.
        acquire_seconds: the longest that a caller waits until one is free.
    """

    def __init__(self, connector: Connector, size: int, acquire_seconds: float) -> None:
        self._connector = connector
        self._size = size
        self._acquire_seconds = acquire_seconds
        self._free = size  # turns that nobody has; who has one may use a connection
        self._waiting: deque[asyncio.Future[None]] = deque()  # of the callers that wait for a turn
        self._in_use: set[Connection] = set()
        self._idle: list[Connection] = []  # the one that was used last is the last, and the first to be used again

    @property
    def in_use(self) -> int:
        """The number of connections that were acquired and not released."""
        return len(self._in_use)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return sum(not connection.is_closed() for connection in (*self._in_use, *self._idle))

    async def acquire(self) -> Connection:
        """A connection for one query, after which it has to be released.

        Raises:
            DatabaseBusy: none was free in time.
            Exception: no connection could be opened; see Connector.connect.
        """
        if self._free > 0:
            self._free -= 1
        else:
            try:
                async with asyncio.timeout(self._acquire_seconds):
                    await self._wait_for_turn()
            except TimeoutError:
                raise DatabaseBusy from None
        try:
            connection = self._take_idle() or await self._connector.connect()
        except BaseException:
            self._give_turn()
            raise
        self._in_use.add(connection)
        return connection

    async def _wait_for_turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given, but too late
                self._give_turn()
            raise

    def _give_turn(self) -> None:
        """Gives the turn to the caller that has waited longest, or to the next one that comes."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def release(self, connection: Connection) -> None:
        """Keeps the connection for the next query, unless it is closed or expired."""
        self._in_use.remove(connection)
        if connection.is_expired:
            connection.terminate()
        else:
            self._idle.append(connection)
        self._give_turn()

    def expire(self) -> None:
        """Lets new connections replace all that are open: these at once, those in use once their query has ended."""
        while self._idle:
            self._idle.pop().terminate()
        for connection in self._in_use:
            connection.is_expired = True

    def close_unused(self) -> None:
        """Closes the connections that have run no query since the last call, and run none now."""
        for connection in self._idle:
            connection.close_if_unused()

    async def close_idle(self, seconds: float) -> None:
        """Closes each connection that is idle for so long, until cancelled.

        A firewall may have forgotten such a connection. The next query on it would wait for its time-out.
        """
        while True:
            await asyncio.sleep(seconds / 2)  # so that a connection is idle for half of it to all of it
            self.close_unused()

    async def close(self) -> None:
        """Closes all connections: those in use once their query has ended, but within a limited time."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                used, self._free = self._size - self._free, 0
                for _ in range(used):
                    await self._wait_for_turn()
                for connection in self._idle:
                    await connection.close()
        except TimeoutError:
            for connection in (*self._in_use, *self._idle):
                connection.terminate()


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Pool]:
    """The pool, which connects at the first query."""
    timeout = f"{settings.statement_seconds * 1000:.0f}"
    has_pooler = settings.pooler != "none"

    class ToPooler(PoolerConnection):
        statement_timeout = timeout

    connector = Connector(
        settings.dsn,
        settings.connect_seconds,
        settings.keepalive_seconds,
        connection_class=ToPooler if has_pooler else Connection,
        statement_cache_size=0 if has_pooler else _CACHED_STATEMENTS,
        max_cached_statement_lifetime=0,  # a statement is prepared once for each connection
        command_timeout=settings.command_seconds,
        server_settings={
            "application_name": "clients-api",
            **({} if has_pooler else {"statement_timeout": timeout}),
        },
    )
    pool = Pool(connector, settings.pool_size, settings.acquire_seconds)
    closing_idle = asyncio.create_task(pool.close_idle(settings.idle_seconds))
    try:
        yield pool
    finally:
        closing_idle.cancel()
        await pool.close()
