"""The connection pool: who waits gets a connection in order, and no connection outlives its use."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from svc.errors import DatabaseBusy, DatabaseUnavailable, RowRefused
from svc.postgres import database, pool
from svc.postgres.settings import DatabaseSettings
from tests.patience import PATIENCE_SECONDS


async def test_connections_are_opened_when_needed_and_used_again(database_settings: DatabaseSettings) -> None:
    """Two queries after each other share a connection; two at the same time do not."""
    async with database.connect(database_settings) as connected:
        assert connected._pool.open == 0
        first = await connected.value("SELECT pg_backend_pid()")
        assert await connected.value("SELECT pg_backend_pid()") == first
        query = "SELECT pg_backend_pid() FROM pg_sleep(0.05)"
        pids = await asyncio.gather(connected.value(query), connected.value(query))
        assert len(set(pids)) == 2
        assert connected._pool.open == 2
        assert connected.in_use == 0


async def test_waiting_callers_get_a_connection_in_order_of_arrival(database_settings: DatabaseSettings) -> None:
    """A new caller does not overtake one that was just woken."""
    order: list[int] = []

    async def use(number: int, opened: pool.Pool) -> None:
        connection = await opened.acquire()
        order.append(number)
        await asyncio.sleep(0)
        opened.release(connection)
        if number < 3:
            await use(number + 10, opened)  # arrives as a waiting one is woken

    async with pool.opened(replace(database_settings, pool_size=1)) as opened:
        await asyncio.gather(*(use(number, opened) for number in range(4)))
        assert order == [0, 1, 2, 3, 10, 11, 12]
        assert opened.in_use == 0


async def test_a_caller_waits_for_a_limited_time(database_settings: DatabaseSettings) -> None:
    """Where no connection becomes free in time, it gets an error, and the next caller a connection."""
    settings = replace(database_settings, pool_size=1, acquire_seconds=0.05)
    async with pool.opened(settings) as opened:
        connection = await opened.acquire()
        with pytest.raises(DatabaseBusy):
            await opened.acquire()
        opened.release(connection)
        assert await opened.acquire() is connection
        opened.release(connection)


async def test_a_closed_connection_is_replaced(database_settings: DatabaseSettings) -> None:
    """One that was closed while idle, or by the server in use, is not used again."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        first = await connected.value("SELECT pg_backend_pid()")
        connected._pool._idle[0].terminate()
        second = await connected.value("SELECT pg_backend_pid()")
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT pg_terminate_backend(pg_backend_pid())")
        third = await connected.value("SELECT pg_backend_pid()")
        assert len({first, second, third}) == 3
        assert connected._pool.open == 1


async def test_a_statement_is_prepared_anew_where_the_schema_has_changed(database_settings: DatabaseSettings) -> None:
    """A new column of its result, which PostgreSQL refuses for a prepared statement, costs no error."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        await connected.rows("CREATE TEMPORARY TABLE changing AS SELECT 1 AS first")
        for columns in ({"first"}, {"first", "second"}, {"first", "second", "third"}):
            for _ in range(2):
                (row,) = await connected.rows("SELECT * FROM changing")
                assert set(row.keys()) == columns
            name = "second" if len(columns) == 1 else "third"
            await connected.rows(f"ALTER TABLE changing ADD COLUMN IF NOT EXISTS {name} int")


@pytest.mark.parametrize("pooler", ["none", "transaction"])
async def test_a_refused_value_leaves_no_transaction_open(database_settings: DatabaseSettings, pooler: str) -> None:
    """Whether the driver cannot encode it or the server refuses it."""
    async with database.connect(replace(database_settings, pool_size=1, pooler=pooler)) as connected:
        for query in ("SELECT $1::int", "SELECT $1::text::int"):
            with pytest.raises(RowRefused):
                await connected.value(query, "no number")
            (connection,) = connected._pool._idle
            assert not connection.is_in_transaction()


async def test_expired_connections_are_replaced(database_settings: DatabaseSettings) -> None:
    """Idle ones at once, and those in use once they are released."""
    async with pool.opened(replace(database_settings, pool_size=2)) as opened:
        idle, used = await opened.acquire(), await opened.acquire()
        opened.release(idle)
        opened.expire()
        assert idle.is_closed()
        assert not used.is_closed()
        opened.release(used)
        assert used.is_closed()
        assert opened.open == 0


async def test_a_connection_that_cannot_be_opened_leaves_its_place_to_others(
    database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After errors and cancelled callers, as many connections can be opened as before."""
    async with pool.opened(replace(database_settings, pool_size=1)) as opened:
        with monkeypatch.context() as patched:

            async def fail(*_: object, **__: object) -> None:
                await asyncio.sleep(0)
                raise ConnectionRefusedError

            patched.setattr(asyncpg, "connect", fail)
            with pytest.raises(ConnectionRefusedError):
                await opened.acquire()
            cancelled = asyncio.create_task(opened.acquire())
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        async with asyncio.timeout(PATIENCE_SECONDS):
            opened.release(await opened.acquire())


async def test_closing_waits_for_queries_but_not_for_ever(
    database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that ends in time has its result; one that does not is ended with its connection."""
    async with database.connect(database_settings) as connected:
        query = asyncio.create_task(connected.value("SELECT 1 FROM pg_sleep(0.1)"))
        while not connected.in_use:  # noqa: ASYNC110 - a condition without an event
            await asyncio.sleep(0.001)
    assert await query == 1

    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 0.05)
    async with database.connect(database_settings) as connected:
        query = asyncio.create_task(connected.value("SELECT 1 FROM pg_sleep(1.5)"))
        while not connected.in_use:  # noqa: ASYNC110 - a condition without an event
            await asyncio.sleep(0.001)
    with pytest.raises(DatabaseUnavailable):
        await query
