"""The connection pool: how its connections are opened, kept alive, and closed."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import asyncpg

from svc.errors import DatabaseBusy
from svc.postgres import dsn
from svc.postgres.passfile import PasswordFile
from svc.postgres.settings import DatabaseSettings

_CLOSE_SECONDS: Final = 5.0
_PROBES: Final = 3  # without a response, after which the kernel closes a connection
_CACHED_STATEMENTS: Final = 100  # far more than there are
_HUNG_SECONDS: Final = 30.0  # for this long after it hung, a host is tried last

# After these, the next host is tried, as in libpq. Any other error would be the same on each host, such as a wrong
# password.
_HOST_ERRORS: Final = (
    OSError,  # refused, reset, no route, no such host, and time-outs
    asyncpg.PostgresConnectionError,  # closed during the login
    asyncpg.CannotConnectNowError,  # starting up or shutting down
    asyncpg.TargetServerAttributeNotMatched,  # a standby where a primary is asked for, or the reverse
)


class Connection(asyncpg.Connection):
    """A connection to one host.

    Attributes:
        url: the URL with this host only.
        is_expired: whether it is closed once its query has ended.
    """

    url: str
    is_expired: bool = False

    # asyncpg's own attributes, which its type stubs leave out
    _transport: asyncio.Transport
    _protocol: Any

    _queries_before = -1  # the queries that it had run at the last check

    def _get_unique_id(self, prefix: str) -> str:
        # asyncpg counts them for each process. Behind a pooler that hides the server's connections, the name of one
        # process could then be another's statement, and the result a wrong one instead of an error.
        return f"{prefix}_{random.getrandbits(64):x}"

    def keep_alive(self, seconds: int) -> None:
        """Lets the kernel probe the server while the connection is silent.

        The probes keep the connection known to firewalls and NAT. Where neither a probe nor data is acknowledged, the
        kernel closes the connection after twice the time.

        Args:
            seconds: how long the connection is silent before the first probe.
        """
        kernel = self._transport.get_extra_info("socket")
        if kernel.family == socket.AF_UNIX:
            return
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", seconds),
            ("TCP_KEEPALIVE", seconds),  # macOS's name of it
            ("TCP_KEEPINTVL", max(1, seconds // _PROBES)),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", 2 * seconds * 1000),
        ):
            if hasattr(socket, name):
                kernel.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def close_if_unused(self) -> None:
        """Closes the connection if it has run no query since the last call."""
        if self.is_closed():
            return
        queries = self._protocol.queries_count
        if queries == self._queries_before:
            self.terminate()
        self._queries_before = queries


class _PoolerConnection(Connection):
    """A connection to a pooler, which gives it a connection to the server only for a transaction.

    So nothing may be left in a session: no statement stays prepared, and each transaction sets its own time-out. This
    takes four round trips instead of one.

    Attributes:
        statement_timeout: of each transaction, in milliseconds.
    """

    statement_timeout: str

    async def fetch(self, query: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:  # type: ignore[override]
        await self.execute(f"BEGIN; SET LOCAL statement_timeout = {self.statement_timeout}")
        try:
            rows: list[asyncpg.Record] = await super().fetch(query, *arguments, **options)
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")
        return rows


@dataclass(eq=False)
class _Host:
    """One of the hosts that the URL lists.

    Attributes:
        name: host and port, for errors.
        login: asyncpg's arguments: the URL with this host only and, where it has no password, what reads one.
        hung_at: when it last did not respond in time, by time.monotonic().
    """

    name: str
    login: Mapping[str, Any]
    hung_at: float = -_HUNG_SECONDS


class _Connector:
    """Opens connections: to the first host that responds and has the attributes that the URL asks for.

    asyncpg's own time-out is for all hosts together, so a first host that hangs would leave no time for the others.
    Here, as in libpq (https://www.postgresql.org/docs/current/libpq-connect.html), each host has its own.
    """

    def __init__(self, url: str, seconds: float, keepalive_seconds: int = 0, **arguments: Any) -> None:
        self._seconds = seconds
        self._keepalive_seconds = keepalive_seconds
        self._arguments = {"connection_class": Connection, **arguments}  # asyncpg's
        parsed = dsn.parse(url)
        file = None if "password" in parsed.parameters else PasswordFile(parsed)
        self._hosts = []
        for host, port in parsed.addresses:
            password = {"password": partial(file.password, host, port)} if file else {}
            self._hosts.append(_Host(f"{host}:{port}", {"dsn": str(parsed.at(host, port)), **password}))
        target = parsed.parameters.get("target_session_attrs", "any")
        self._targets = ("standby", "any") if target == "prefer-standby" else (target,)

    async def connect(self) -> Connection:
        """Opens a connection.

        Raises:
            Exception: the last host's error; rather that of a host that could not be reached than of one that is only
                a standby.
        """
        unreached: Exception | None = None
        now = time.monotonic()
        hosts: Sequence[_Host] = sorted(self._hosts, key=lambda host: now - host.hung_at < _HUNG_SECONDS)
        for target in self._targets:
            mismatched = []
            for host in hosts:
                try:
                    return await self._connect_to(host, target)
                except asyncpg.TargetServerAttributeNotMatched as error:
                    mismatched.append(host)
                    unreached = unreached or error
                except _HOST_ERRORS as error:
                    unreached = error
            hosts = mismatched
        assert unreached is not None  # there is at least one host
        raise unreached

    async def _connect_to(self, host: _Host, target: Any) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(
                timeout=self._seconds, target_session_attrs=target, **host.login, **self._arguments
            )
        except TimeoutError as error:
            host.hung_at = time.monotonic()
            raise TimeoutError(f"{host.name} did not respond within {self._seconds:g} s") from error
        if self._keepalive_seconds:
            connection.keep_alive(self._keepalive_seconds)
        connection.url = host.login["dsn"]
        return connection


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

    def __init__(self, connector: _Connector, size: int, acquire_seconds: float) -> None:
        self._connector = connector
        self._size = size
        self._acquire_seconds = acquire_seconds
        self._turns = asyncio.Semaphore(size)
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
            Exception: no connection could be opened; see _Connector.connect.
        """
        if self._turns.locked():
            try:
                async with asyncio.timeout(self._acquire_seconds):
                    await self._turns.acquire()
            except TimeoutError:
                raise DatabaseBusy from None
        else:
            await self._turns.acquire()
        try:
            connection = self._take_idle() or await self._connector.connect()
        except BaseException:
            self._turns.release()
            raise
        self._in_use.add(connection)
        return connection

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
        elif not connection.is_closed():
            self._idle.append(connection)
        self._turns.release()

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
                for _ in range(self._size):
                    await self._turns.acquire()
                for connection in self._idle:
                    await connection.close()
        except TimeoutError:
            for connection in (*self._in_use, *self._idle):
                connection.terminate()


async def connect(url: str, seconds: float) -> Connection:
    """Opens a connection that belongs to no pool, with so many seconds for each host."""
    return await _Connector(url, seconds).connect()


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[Pool]:
    """The pool, which connects at the first query."""
    timeout = f"{settings.statement_seconds * 1000:.0f}"
    has_pooler = settings.pooler != "none"

    class ToPooler(_PoolerConnection):
        statement_timeout = timeout

    connector = _Connector(
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
