"""How connections are opened: to the first host that responds, with what keeps them alive."""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import asyncpg

from svc.postgres import dsn
from svc.postgres.passfile import PasswordFile

_PROBES: Final = 3  # without a response, after which the kernel closes a connection
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
    _get_statement: Callable[[str, float | None], Awaitable[Any]]

    _queries_before = -1  # the queries that it had run at the last check

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._prepared: dict[str, Any] = {}  # the state of each query's prepared statement

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:  # type: ignore[override]
        """Runs the query and returns its rows, as asyncpg's fetch does.

        That has six more calls in between, which ran a twelfth of the bytecodes of a lone get.
        """
        statement = self._prepared.get(query)
        if statement is None:
            statement = self._prepared[query] = await self._get_statement(query, None)
            statement.attach()  # so that asyncpg does not close it
        try:
            rows: list[asyncpg.Record] = await self._protocol.bind_execute(statement, arguments, "", 0, False, None)
        except asyncpg.InvalidCachedStatementError:  # the schema has changed; nothing was executed
            self._prepared.clear()
            return await super().fetch(query, *arguments)  # prepares it anew
        return rows

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


class PoolerConnection(Connection):
    """A connection to a pooler, which gives it a connection to the server only for a transaction.

    So nothing may be left in a session: no statement stays prepared, and each transaction sets its own time-out. This
    takes four round trips instead of one.

    Attributes:
        statement_timeout: of each transaction, in milliseconds.
    """

    statement_timeout: str

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:  # type: ignore[override]
        """Runs the query in a transaction of its own, and returns its rows."""
        await self.execute(f"BEGIN; SET LOCAL statement_timeout = {self.statement_timeout}")
        try:
            rows = await asyncpg.Connection.fetch(self, query, *arguments)
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


class Connector:
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


async def connect(url: str, seconds: float) -> Connection:
    """Opens a connection that belongs to no pool, with so many seconds for each host."""
    return await Connector(url, seconds).connect()
