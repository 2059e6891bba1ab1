"""The database behind PgBouncer, which gives a connection to the server only for a transaction."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from svc.clients.model import NewClient
from svc.clients.store import Store
from svc.errors import DatabaseUnavailable, QueryTimedOut, RowRefused
from svc.logs import names
from svc.postgres import database, dsn, embedded
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import SERVICE_ROLE, Log, Owner
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS
from tests.svc.postgres.locks import wait_for_locks

pytestmark = pytest.mark.slow

_CONFIGURATION = """\
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = 2
{more}
"""


@asynccontextmanager
async def pooler(
    server: EmbeddedPostgres, folder: Path, port: int, more: str = "", mode: str = "transaction"
) -> AsyncIterator[None]:
    """Runs PgBouncer in front of the server."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        missing("pgbouncer is missing (on Debian: apt install pgbouncer)")
    address = dsn.parse(server.dsn()).parameters
    file = folder / "pgbouncer.ini"
    users = folder / "users.txt"
    users.write_text(f'"{SERVICE_ROLE}" ""\n')
    places = {"host": address["host"], "port": address["port"], "listen_port": port, "users": users}
    file.write_text(_CONFIGURATION.format(**places, mode=mode, more=more))
    process = await asyncio.create_subprocess_exec(*embedded._as_unprivileged_user(), program, file)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
def settings(database_settings: DatabaseSettings, test_database: str, unused_tcp_port: int) -> DatabaseSettings:
    """How the service reaches the pooler."""
    url = f"postgres://{SERVICE_ROLE}@127.0.0.1:{unused_tcp_port}/{test_database}?sslmode=disable"
    return replace(database_settings, dsn=url, pooler="transaction")


@pytest.fixture
async def behind_pooler(
    postgres: EmbeddedPostgres, settings: DatabaseSettings, tmp_path: Path
) -> AsyncIterator[DatabaseSettings]:
    """The same, while the pooler runs."""
    async with pooler(postgres, tmp_path, port_of(settings)):
        yield settings


def port_of(settings: DatabaseSettings) -> int:
    return int(dsn.parse(settings.dsn).parameters["port"])


async def use(settings: DatabaseSettings, requests: int = 100) -> Counter[str]:
    """Adds clients and gets them, at once. Returns how often each error was raised; a wrong result is `wrong`."""
    outcomes: Counter[str] = Counter()

    async def add_and_get(store: Store, number: int) -> None:
        client = NewClient(f"Client {number}", Decimal(number))
        try:
            added = await store.add(client, f"key {number}" if number % 2 else None)
            found = json.loads(await store.get(added.id))
            await store.page(0, 1)
        except Exception as error:  # noqa: BLE001 - the errors are what is counted
            outcomes[type(error).__name__] += 1
        else:
            outcomes["right" if found["name"] == client.name else "wrong"] += 1

    # Two pools, as of two workers, whose connections share those of the pooler.
    async with database.connect(settings) as one, database.connect(settings) as other:
        stores = Store(one, settings, 64), Store(other, settings, 64)
        await asyncio.gather(*(add_and_get(stores[number % 2], number) for number in range(requests)))
    return outcomes


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_the_store_works_behind_a_pooler(
    postgres: EmbeddedPostgres, settings: DatabaseSettings, tmp_path: Path, owner: Owner, mode: str
) -> None:
    more = "default_pool_size = 8" if mode == "session" else ""  # each client keeps one
    async with pooler(postgres, tmp_path, port_of(settings), more, mode):
        assert await use(settings) == {"right": 100}
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE id > 4") == 100


async def test_a_refused_row_and_a_time_out_leave_nothing_behind(behind_pooler: DatabaseSettings, owner: Owner) -> None:
    """After an error, the pooler's connections are free, and outside of any transaction."""
    await owner.execute("ALTER TABLE clients ADD CONSTRAINT no_bob CHECK (name <> 'Bob')")
    settings = replace(behind_pooler, statement_seconds=0.3, pool_size=2)
    async with database.connect(settings) as connected:
        store = Store(connected, settings, 64)
        with pytest.raises(RowRefused):
            await store.add(NewClient("Bob", Decimal(1)))
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients IN SHARE MODE")
            stuck = asyncio.create_task(store.add(NewClient("Ann", Decimal(1))))
            await wait_for_locks(owner, 1)
            with pytest.raises(QueryTimedOut):
                await stuck
        added = await store.add(NewClient("Ann", Decimal(1)))
        assert json.loads(await store.get(added.id))["name"] == "Ann"
    open_transactions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state LIKE 'idle in%'"
    assert await owner.fetchval(open_transactions, SERVICE_ROLE) == 0


async def test_a_pooler_that_restarts_is_used_again(
    postgres: EmbeddedPostgres, settings: DatabaseSettings, tmp_path: Path
) -> None:
    async with database.connect(settings) as connected:
        store = Store(connected, settings, 64)
        for _ in range(2):
            async with pooler(postgres, tmp_path, port_of(settings)):
                assert json.loads(await store.get(1))["id"] == 1
            with pytest.raises(DatabaseUnavailable):
                await store.get(1)


async def test_without_the_setting_the_log_names_it(behind_pooler: DatabaseSettings, log: Log) -> None:
    outcomes = await use(replace(behind_pooler, pooler="none"), 10)
    assert outcomes == {"DatabaseUnavailable": 10}
    details = [line[names.DETAIL] for line in log.read() if line[names.EVENT] == names.DATABASE_UNAVAILABLE]
    assert details
    assert all(detail.endswith("; behind a pooler, set DB_POOLER=transaction") for detail in details)


async def test_a_pooler_that_hides_itself_gives_no_wrong_result(
    postgres: EmbeddedPostgres, settings: DatabaseSettings, tmp_path: Path, log: Log
) -> None:
    """It ignores the session's parameters, and gives a prepared statement's query to another connection."""
    hidden = replace(settings, pooler="none", pool_size=1)
    async with (
        pooler(postgres, tmp_path, port_of(settings), "ignore_startup_parameters = statement_timeout"),
        database.connect(hidden) as connected,
    ):
        store = Store(connected, hidden, 64)
        assert json.loads(await store.get(1))["id"] == 1
        other = await asyncpg.connect(settings.dsn)
        try:
            await other.execute("BEGIN")  # takes the connection where the statement is prepared
            with pytest.raises(DatabaseUnavailable):
                await store.get(1)
        finally:
            await other.close()
    (line,) = (line for line in log.read() if line[names.EVENT] == names.DATABASE_UNAVAILABLE)
    assert line[names.DETAIL].endswith("; behind a pooler, set DB_POOLER=transaction")
