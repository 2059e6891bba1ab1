"""Connections that the network may forget: TCP keeps them alive, and idle ones are closed before a query needs one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import uvloop
from aiohttp import ClientSession

from ops.drills.proxy import FaultProxy
from svc.postgres import database, dsn
from svc.postgres.connector import Connection
from svc.postgres.database import Database
from svc.postgres.settings import DatabaseSettings
from tests.patience import PATIENCE_SECONDS
from tests.service import Service


@contextlib.asynccontextmanager
async def proxied(settings: DatabaseSettings) -> AsyncIterator[tuple[FaultProxy, DatabaseSettings]]:
    """A proxy before the database, and the settings that lead through it."""
    real = dsn.parse(settings.dsn)
    ((folder, port),) = real.addresses
    async with forwarding(f"{folder}/.s.PGSQL.{port}") as target, FaultProxy(target).running() as proxy:
        yield proxy, replace(settings, dsn=str(real.at("127.0.0.1", str(proxy.port))))


@contextlib.asynccontextmanager
async def forwarding(path: str) -> AsyncIterator[int]:
    """A TCP port that leads to the Unix socket at the path."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(pipe(reader, server_writer), pipe(server_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname()[1]


def only_connection(connected: Database) -> Connection:
    (connection,) = connected._pool._idle
    return connection


def options_of(connection: Connection) -> dict[str, int]:
    """The TCP options that the kernel has for the connection."""
    kernel: Any = connection._transport.get_extra_info("socket")
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    options = {name: kernel.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
    return {"SO_KEEPALIVE": kernel.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), **options}


async def options(settings: DatabaseSettings) -> dict[str, int]:
    async with proxied(settings) as (_, through), database.connect(through) as connected:
        await connected.value("SELECT 1")
        return options_of(only_connection(connected))


KEPT_ALIVE = {
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


async def test_tcp_keeps_connections_alive(database_settings: DatabaseSettings) -> None:
    """A dead server is noticed after 60 s: 30 s of silence, and three probes in 30 s."""
    assert await options(database_settings) == KEPT_ALIVE


def test_tcp_keeps_connections_alive_under_uvloop(database_settings: DatabaseSettings) -> None:
    """The service's own event loop sets the same options."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(options(database_settings)) == KEPT_ALIVE


async def test_tcp_probes_can_be_turned_off(database_settings: DatabaseSettings) -> None:
    """With DB_KEEPALIVE_SECONDS=0, the kernel's defaults stay as they are."""
    assert (await options(replace(database_settings, keepalive_seconds=0)))["SO_KEEPALIVE"] == 0


async def wait_until_closed(connected: Database) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while connected._pool.open:  # noqa: ASYNC110 - a condition without an event
            await asyncio.sleep(0.02)


async def test_a_connection_that_the_network_forgot_is_replaced(database_settings: DatabaseSettings) -> None:
    """After the idle time, queries run at once on new connections, though the old ones swallow all data."""
    settings = replace(database_settings, idle_seconds=0.2)
    async with proxied(settings) as (proxy, through), database.connect(through) as connected:
        await asyncio.gather(*(connected.value("SELECT pg_sleep(0.05)") for _ in range(4)))
        proxy.forget(resets=False)
        await wait_until_closed(connected)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await connected.value("SELECT 1") == 1


async def test_a_connection_in_use_stays_open(database_settings: DatabaseSettings) -> None:
    """Between two checks, a connection that ran a query stays open, and so does one that runs one now."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        pool = connected._pool
        connection = await pool.acquire()
        pool.close_unused()
        pool.close_unused()
        assert not connection.is_closed()
        pool.release(connection)
        for _ in range(3):
            await connected.value("SELECT 1")
            pool.close_unused()
            assert not connection.is_closed()
        pool.close_unused()
        assert connection.is_closed()
        pool.close_unused()  # which passes over closed ones
        assert await connected.value("SELECT 1") == 1


async def test_the_service_serves_after_the_network_forgot_its_connections(
    serve: Callable[..., Service], database_settings: DatabaseSettings
) -> None:
    """The first request after the idle time is 200."""
    async with proxied(database_settings) as (proxy, through), ClientSession() as session:
        service = serve(DATABASE_URL=through.dsn, DB_IDLE_SECONDS="1")

        async def get() -> int:
            async with session.get(f"{service.url}/get/1") as response:
                return response.status

        assert await get() == 200
        proxy.forget(resets=False)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while proxy._writers:  # noqa: ASYNC110 - until the service has closed its connection
                await asyncio.sleep(0.05)
        assert await get() == 200
