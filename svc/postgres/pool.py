"""The asyncpg pool: how its connections are opened, kept alive, and closed."""

import asyncio
import random
import socket
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from svc.postgres import dsn
from svc.postgres.passfile import PasswordFile
from svc.postgres.settings import DatabaseSettings

if TYPE_CHECKING:
    from asyncpg.pool import Pool

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
    """

    url: str

    # asyncpg's own attributes, which its type stubs leave out
    _transport: asyncio.Transport
    _protocol: Any
    _proxy: object | None

    _queries_before = -1  # the queries that it had run at the last check

    def get_reset_query(self) -> str:
        # No query changes the session, so a release needs no round trip to reset it.
        return ""

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

    def close_if_idle(self) -> None:
        """Closes the connection if it has run no query since the last call, and runs none now."""
        if self.is_closed() or self._proxy is not None:  # the latter where it is acquired
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

    def __init__(self, url: str, seconds: float, keepalive_seconds: int = 0) -> None:
        self._seconds = seconds
        self._keepalive_seconds = keepalive_seconds
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        parsed = dsn.parse(url)
        file = None if "password" in parsed.parameters else PasswordFile(parsed)
        self._hosts = []
        for host, port in parsed.addresses:
            password = {"password": partial(file.password, host, port)} if file else {}
            self._hosts.append(_Host(f"{host}:{port}", {"dsn": str(parsed.at(host, port)), **password}))
        target = parsed.parameters.get("target_session_attrs", "any")
        self._targets = ("standby", "any") if target == "prefer-standby" else (target,)

    async def connect(self, *_: object, **arguments: Any) -> Connection:
        """Opens a connection; asyncpg's pool calls this.

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
                    return await self._connect_to(host, target_session_attrs=target, **arguments)
                except asyncpg.TargetServerAttributeNotMatched as error:
                    mismatched.append(host)
                    unreached = unreached or error
                except _HOST_ERRORS as error:
                    unreached = error
            hosts = mismatched
        assert unreached is not None  # there is at least one host
        raise unreached

    async def _connect_to(self, host: _Host, **arguments: Any) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(timeout=self._seconds, **host.login, **arguments)
        except TimeoutError as error:
            host.hung_at = time.monotonic()
            raise TimeoutError(f"{host.name} did not respond within {self._seconds:g} s") from error
        if self._keepalive_seconds:
            connection.keep_alive(self._keepalive_seconds)
        connection.url = host.login["dsn"]
        self._connections.add(connection)
        return connection

    async def close_idle(self, seconds: float) -> None:
        """Closes each connection that is idle for so long, until cancelled.

        A firewall may have forgotten such a connection. The next query on it would wait for its time-out. asyncpg's
        pool can do the same, but with a timer per query; one check of all connections costs a query nothing.
        """
        while True:
            await asyncio.sleep(seconds / 2)  # so that a connection is idle for half of it to all of it
            for connection in list(self._connections):
                connection.close_if_idle()


async def connect(url: str, seconds: float) -> Connection:
    """Opens a connection that belongs to no pool, with so many seconds for each host."""
    return await _Connector(url, seconds).connect(connection_class=Connection)


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator["Pool[asyncpg.Record]"]:
    """The pool, which connects at the first query. At the end, it is closed within a limited time."""
    connector = _Connector(settings.dsn, settings.connect_seconds, settings.keepalive_seconds)
    timeout = f"{settings.statement_seconds * 1000:.0f}"
    has_pooler = settings.pooler != "none"

    class ToPooler(_PoolerConnection):
        statement_timeout = timeout

    pool = asyncpg.create_pool(
        connect=connector.connect,
        connection_class=ToPooler if has_pooler else Connection,
        min_size=0,  # the service also starts while the database is unavailable, and answers 503
        max_size=settings.pool_size,
        max_queries=2**62,  # no reconnect during traffic
        max_inactive_connection_lifetime=0,  # see close_idle()
        statement_cache_size=0 if has_pooler else _CACHED_STATEMENTS,
        max_cached_statement_lifetime=0,  # a statement is prepared once for each connection
        command_timeout=settings.command_seconds,
        server_settings={
            "application_name": "clients-api",
            **({} if has_pooler else {"statement_timeout": timeout}),
        },
    )
    await pool
    closing_idle = asyncio.create_task(connector.close_idle(settings.idle_seconds))
    try:
        yield pool
    finally:
        closing_idle.cancel()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()
