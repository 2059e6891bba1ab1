"""The database slow, full, or gone: bounded, honest answers, and nothing acknowledged is lost."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import asyncpg
import pytest
from aiohttp import ClientError, ClientSession

from ops.common.process import Service
from svc.clients.model import NewClient
from svc.clients.store import Store
from svc.errors import DatabaseBusy, DatabaseUnavailable, QueryTimedOut
from svc.postgres import database
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Client, Owner

AWAY_SECONDS = 10


async def test_the_database_stopped_under_requests(
    serve: Callable[..., Service], postgres: EmbeddedPostgres, test_database: str
) -> None:
    """Stopped for 10 s: 503s meanwhile, served within 1 s of its return, nothing acknowledged lost or doubled."""
    service = serve()
    acknowledged: dict[str, int] = {}
    statuses: Counter[int] = Counter()
    served_at: list[float] = []
    stopping = asyncio.Event()

    async def add_and_get(session: ClientSession, worker: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            name = f"{worker}-{number}"
            fields, key = {"name": name, "money": "1"}, {"Idempotency-Key": name}
            async with session.post(f"{service.url}/add", params=fields, headers=key) as answer:
                statuses[answer.status] += 1
                if answer.status == 201:
                    acknowledged[name] = (await answer.json())["id"]
                    served_at.append(time.monotonic())
            async with session.get(f"{service.url}/get/1") as answer:
                statuses[answer.status] += 1
            await asyncio.sleep(0.005)

    async with ClientSession() as session:
        workers = [asyncio.create_task(add_and_get(session, worker)) for worker in range(8)]
        await asyncio.sleep(1)
        await asyncio.to_thread(postgres.stop)
        away_from = time.monotonic()
        await asyncio.sleep(AWAY_SECONDS)
        postgres.start()  # here, not in a thread: the server ends with the thread that started it
        back = time.monotonic()
        await asyncio.sleep(2)
        stopping.set()
        await asyncio.gather(*workers)

    first_again = min(moment for moment in served_at if moment > away_from)
    connection = await asyncpg.connect(postgres.dsn(database=test_database))
    stored = await connection.fetch("SELECT name, id FROM clients WHERE id > 4")
    await connection.close()
    print(f"statuses {dict(statuses)}; served again after {first_again - back:.3f} s; {len(acknowledged)} acknowledged")

    assert set(statuses) == {200, 201, 503}
    assert statuses[503] > 100
    assert first_again - back < 1
    assert acknowledged.items() <= {row["name"]: row["id"] for row in stored}.items()
    assert len({row["name"] for row in stored}) == len(stored)


async def test_a_statement_over_its_time_is_504(serve: Callable[..., Service], owner: Owner) -> None:
    """A query that waits for a lock beyond DB_STATEMENT_SECONDS is ended by the server, and says so."""
    service = serve(DB_STATEMENT_SECONDS="0.2")
    async with owner.transaction(), ClientSession() as session:
        await owner.execute("LOCK TABLE clients")
        async with session.get(f"{service.url}/get/1") as answer:
            assert answer.status == 504
            assert (await answer.json(content_type=None))["title"] == "Query timed out"
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as answer:
        assert answer.status == 200


async def test_a_question_is_one_round_trip(database_settings: DatabaseSettings, owner: Owner) -> None:
    """The last that the server heard is the question itself, and not a reset; and all came over one connection."""
    backends = "SELECT pid, query FROM pg_stat_activity WHERE application_name = 'clients-api'"
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        await connected.value("SELECT 1")
        first = await owner.fetch(backends)
        for _ in range(100):
            await connected.value("SELECT 2")
        last = await owner.fetch(backends)

    assert [(row["pid"], row["query"]) for row in last] == [(first[0]["pid"], "SELECT 2")]


async def test_a_new_connection_asks_nothing_of_its_own(
    database_settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No question has a type that asyncpg would look up first: after an outage, all connections are new."""
    monkeypatch.delattr(asyncpg.Connection, "_introspect_types")
    async with database.connect(database_settings) as connected:
        store = Store(connected, database_settings)
        client_id = await store.add(NewClient("Ann", Decimal(1)), "key")
        assert b'"Ann"' in await store.get(client_id)
        assert (await store.page(0)).last_id == client_id
        await store.check()


async def test_waiting_for_a_connection_is_bounded_and_in_order(database_settings: DatabaseSettings) -> None:
    """Waiters get their turn in order of arrival, and beyond DB_ACQUIRE_SECONDS a clear refusal."""
    settings = replace(database_settings, pool_size=1, acquire_seconds=0.5)
    order: list[int] = []
    async with database.connect(settings) as connected:

        async def ask(number: int, seconds: float) -> None:
            await connected.value("SELECT pg_sleep($1)", seconds)
            order.append(number)

        await asyncio.gather(*(ask(number, 0.01) for number in range(20)))
        assert order == list(range(20))

        slow = asyncio.create_task(ask(20, 1.0))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        with pytest.raises(DatabaseBusy):
            await ask(21, 0)
        assert 0.4 < time.monotonic() - started < 0.9
        await slow


async def test_a_black_hole_is_given_up_on(database_settings: DatabaseSettings) -> None:
    """A host that takes the connection and never speaks is away after DB_CONNECT_SECONDS."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the caller is gone
        writer.close()

    hole = await asyncio.start_server(silence, "127.0.0.1")
    port = hole.sockets[0].getsockname()[1]
    dsn = f"postgresql:///x?host=127.0.0.1&port={port}&user=x"
    async with hole, database.connect(replace(database_settings, dsn=dsn, connect_seconds=0.3)) as connected:
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")
        assert time.monotonic() - started < 1


async def test_a_statement_that_the_server_does_not_end_is_given_up_on(database_settings: DatabaseSettings) -> None:
    """Where no answer comes at all, the service's own time-out ends the wait."""
    settings = replace(database_settings, statement_seconds=0.1)
    async with database.connect(settings) as connected:
        await connected.value("SELECT set_config('statement_timeout', '0', false)")
        with pytest.raises(QueryTimedOut):
            await connected.value("SELECT pg_sleep(30)")


async def test_connections_that_died_cost_one_wait(database_settings: DatabaseSettings) -> None:
    """Where connections answer no more, the first who finds it out has all of them made anew."""
    settings = replace(database_settings, pool_size=3, statement_seconds=0.1)
    async with database.connect(settings) as connected:
        who = "SELECT pg_backend_pid() FROM pg_sleep(0.05)"
        backends = set(await asyncio.gather(*(connected.value(who) for _ in range(3))))
        assert len(backends) == 3
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(QueryTimedOut):
                await connected.value("SELECT 1")
            async with asyncio.timeout(1):
                assert await asyncio.gather(*(connected.value("SELECT 2") for _ in range(3))) == [2, 2, 2]
        finally:
            for backend in backends:
                os.kill(backend, signal.SIGCONT)


async def test_a_former_primary_is_left(database_settings: DatabaseSettings) -> None:
    """Connections to a server that went read-only are made anew, so that a failover heals without a restart."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        await connected.value("SELECT set_config('default_transaction_read_only', 'on', false)")
        with pytest.raises(DatabaseUnavailable):
            await connected.value("INSERT INTO clients (name, money) VALUES ('A', 1) RETURNING id")
        assert await connected.value("INSERT INTO clients (name, money) VALUES ('A', 1) RETURNING id") > 4


async def test_a_stream_that_cannot_be_finished_is_cut(api: Client, owner: Owner) -> None:
    """A list that breaks off half-way ends in a broken connection, not in what looks like the whole."""
    await owner.execute("INSERT INTO clients (name, money) SELECT repeat('x', 150), 1 FROM generate_series(1, 200000)")
    response = await api.get("/getall")
    await response.content.readany()
    await owner.execute("ALTER TABLE clients RENAME TO others")

    with pytest.raises(ClientError):
        await response.read()
