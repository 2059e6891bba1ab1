"""The database is slow, busy or lost: each request gets an error in limited time, and no acknowledged add is lost."""

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import asyncpg
import pytest
from aiohttp import ClientError, ClientSession

from svc.clients.model import NewClient
from svc.clients.store import Store
from svc.errors import DatabaseBusy, DatabaseUnavailable, QueryTimedOut
from svc.postgres import database
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Client, Owner
from tests.listening import listening
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.postgres.locks import wait_for_locks


async def test_a_stopped_database_loses_nothing(
    serve: Callable[..., Service], postgres: EmbeddedPostgres, test_database: str
) -> None:
    """While it is stopped, callers get 503; afterwards they are served; each acknowledged add is stored, once."""
    service = serve()
    acknowledged: dict[str, int] = {}
    statuses: Counter[int] = Counter()
    stopping = asyncio.Event()

    async def add_and_get(session: ClientSession, caller: int) -> None:
        for number in itertools.count():
            name = f"{caller}-{number}"
            fields, key = {"name": name, "money": "1"}, {"Idempotency-Key": name}
            async with session.post(f"{service.url}/add", params=fields, headers=key) as response:
                statuses[response.status] += 1
                if response.status == 201:
                    acknowledged[name] = (await response.json())["id"]
            async with session.get(f"{service.url}/get/1") as response:
                statuses[response.status] += 1
            if stopping.is_set():
                return
            await asyncio.sleep(0.005)

    async def wait_for(status: int, responses: int) -> None:
        wanted = statuses[status] + responses
        async with asyncio.timeout(PATIENCE_SECONDS):
            while statuses[status] < wanted:  # noqa: ASYNC110 - callers count without an event
                await asyncio.sleep(0.01)

    async with ClientSession() as session:
        callers = [asyncio.create_task(add_and_get(session, caller)) for caller in range(8)]
        await wait_for(201, 100)
        await asyncio.to_thread(postgres.stop)
        await wait_for(503, 100)
        postgres.start()  # not in a thread: the server ends with the thread that started it
        await wait_for(201, 100)
        stopping.set()
        await asyncio.gather(*callers)

    connection = await asyncpg.connect(postgres.dsn(database=test_database))
    stored = await connection.fetch("SELECT name, id FROM clients WHERE id > 4")
    await connection.close()

    assert set(statuses) == {200, 201, 503}
    assert acknowledged.items() <= {row["name"]: row["id"] for row in stored}.items()
    assert len({row["name"] for row in stored}) == len(stored)


async def test_a_statement_that_takes_too_long_is_504(serve: Callable[..., Service], owner: Owner) -> None:
    """The server ends a statement that waits for a lock longer than DB_STATEMENT_SECONDS; the response is a 504."""
    service = serve(DB_STATEMENT_SECONDS="0.5")
    async with owner.transaction(), ClientSession() as session:
        await owner.execute("LOCK TABLE clients")
        async with session.get(f"{service.url}/get/1") as response:
            assert response.status == 504
            assert (await response.json(content_type=None))["title"] == "Query timed out"
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
        assert response.status == 200


async def test_a_query_is_one_round_trip(database_settings: DatabaseSettings, owner: Owner) -> None:
    """The server's last statement is the query itself, not a reset of the session, and one connection sends all."""
    backends = "SELECT pid, query FROM pg_stat_activity WHERE application_name = 'clients-api'"
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        await connected.value("SELECT 1")
        first = await owner.fetch(backends)
        for _ in range(100):
            await connected.value("SELECT 2")
        last = await owner.fetch(backends)

    assert [(row["pid"], row["query"]) for row in last] == [(first[0]["pid"], "SELECT 2")]


async def test_a_new_connection_looks_up_no_types(
    database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No query has a type that asyncpg would look up on each new connection, as all are after an outage."""
    monkeypatch.delattr(asyncpg.Connection, "_introspect_types")
    async with database.connect(database_settings) as connected:
        store = Store(connected, database_settings, 64)
        client_id = (await store.add(NewClient("Ann", Decimal(1)), "key")).id
        assert b'"Ann"' in await store.get(client_id)
        assert (await store.page(0)).last_id == client_id
        await store.check()


async def test_callers_get_connections_in_order_of_arrival(database_settings: DatabaseSettings) -> None:
    """The caller that has waited longest gets the next free connection."""
    settings = replace(database_settings, pool_size=1)
    order: list[int] = []
    async with database.connect(settings) as connected:

        async def query(number: int) -> None:
            await connected.value("SELECT pg_sleep(0.01)")
            order.append(number)

        await asyncio.gather(*(query(number) for number in range(20)))

    assert order == list(range(20))


async def test_the_wait_for_a_connection_is_limited(database_settings: DatabaseSettings, owner: Owner) -> None:
    """A caller that waits for a connection longer than DB_ACQUIRE_SECONDS gets DatabaseBusy."""
    settings = replace(database_settings, pool_size=1, acquire_seconds=0.1)
    async with database.connect(settings) as connected:
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            slow = asyncio.create_task(connected.value("SELECT count(*) FROM clients"))
            await wait_for_locks(owner, 1)
            with pytest.raises(DatabaseBusy):
                await connected.value("SELECT 1")
            assert not slow.done()
        assert await slow == 4


async def test_a_silent_server_counts_as_unavailable(database_settings: DatabaseSettings) -> None:
    """A server that accepts the connection but sends nothing is unavailable after DB_CONNECT_SECONDS."""

    async def send_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client closes the connection

    async with listening(send_nothing) as port:
        dsn = f"postgresql:///x?host=127.0.0.1&port={port}&user=x"
        async with database.connect(replace(database_settings, dsn=dsn, connect_seconds=0.3)) as connected:
            with pytest.raises(DatabaseUnavailable):
                await connected.value("SELECT 1")


async def test_a_statement_that_the_server_does_not_end_times_out(database_settings: DatabaseSettings) -> None:
    """Where no result arrives at all, the service's own time-out ends the wait."""
    settings = replace(database_settings, statement_seconds=0.5)
    async with database.connect(settings) as connected:
        await connected.value("SELECT set_config('statement_timeout', '0', false)")
        with pytest.raises(QueryTimedOut):
            await connected.value("SELECT pg_sleep(30)")


async def test_one_time_out_replaces_all_connections(database_settings: DatabaseSettings) -> None:
    """Where the connections are dead, the first caller that times out has all of them replaced."""
    settings = replace(database_settings, pool_size=3, statement_seconds=0.5)
    async with database.connect(settings) as connected:
        backends = set(await asyncio.gather(*(connected.value("SELECT pg_backend_pid()") for _ in range(3))))
        assert len(backends) == 3
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(QueryTimedOut):
                await connected.value("SELECT 1")
            assert await asyncio.gather(*(connected.value("SELECT 2") for _ in range(3))) == [2, 2, 2]
        finally:
            for backend in backends:
                os.kill(backend, signal.SIGCONT)


async def test_connections_to_a_former_primary_are_replaced(database_settings: DatabaseSettings) -> None:
    """Connections to a server that is now read-only are replaced, so that a failover needs no restart."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        await connected.value("SELECT set_config('default_transaction_read_only', 'on', false)")
        with pytest.raises(DatabaseUnavailable):
            await connected.value("INSERT INTO clients (name, money) VALUES ('A', 1) RETURNING id")
        assert await connected.value("INSERT INTO clients (name, money) VALUES ('A', 1) RETURNING id") > 4


async def test_a_stream_that_fails_ends_in_a_closed_connection(api: Client, owner: Owner) -> None:
    """A list that fails half-way does not end like a complete one."""
    await owner.execute("INSERT INTO clients (name, money) SELECT repeat('x', 150), 1 FROM generate_series(1, 200000)")
    response = await api.get("/getall")
    await response.content.readany()
    await owner.execute("ALTER TABLE clients RENAME TO others")

    with pytest.raises(ClientError):
        await response.read()
