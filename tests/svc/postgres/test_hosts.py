"""A list of hosts: each has its own time to respond, and one that cannot serve is passed over, as in libpq."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psycopg2
import pytest
from aiohttp import ClientSession

from ops.common.ports import free_port
from svc.clients.store import Store
from svc.errors import DatabaseUnavailable
from svc.postgres import connector, database, dsn, embedded, maintenance
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import SERVICE_ROLE, Databases, Log
from tests.listening import listening
from tests.service import Service

HUNG_SECONDS = 0.3  # for a host that hangs, in the tests' own process; the others have as long as they need


class FakeHost:
    """A port that counts connections, and holds each without a word, or closes it at once."""

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs
        self.accepted = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FakeHost"]:
        async with listening(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._hangs:
            await reader.read()  # until the client closes the connection


@pytest.fixture
async def hung(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeHost]:
    """A host that hangs, which is given up soon: in production, all hosts have the same time."""
    connect = asyncpg.connect
    async with FakeHost(hangs=True).running() as host:

        def give_up_soon(*arguments: str, **options: Any) -> Awaitable[Any]:
            is_hung = f"port={host.port}&" in options.get("dsn", "")
            return connect(*arguments, **options | ({"timeout": HUNG_SECONDS} if is_hung else {}))

        monkeypatch.setattr(asyncpg, "connect", give_up_soon)
        yield host


@pytest.fixture
async def closing() -> AsyncIterator[FakeHost]:
    async with FakeHost(hangs=False).running() as host:
        yield host


def before(settings: DatabaseSettings, *ports: int, **parameters: str) -> DatabaseSettings:
    """The settings with hosts on these ports before the real one."""
    real = dsn.parse(settings.dsn)
    ((host, port),) = real.addresses
    hosts = {
        "host": ",".join([*("127.0.0.1" for _ in ports), host]),
        "port": ",".join([*map(str, ports), port]),
    }
    return replace(settings, dsn=str(replace(real, parameters={**real.parameters, **hosts, **parameters})))


async def test_a_host_that_hangs_is_passed_over(database_settings: DatabaseSettings, hung: FakeHost) -> None:
    """The host after it serves the same request. The next connections try it last, so they do not wait for it."""
    settings = before(database_settings, hung.port)
    async with database.connect(settings) as connected:
        assert b'"id":1' in await Store(connected, settings, 64).get(1)
        assert hung.accepted == 1
        for _ in range(3):
            connected._pool.expire()
            assert await connected.value("SELECT 1") == 1

    assert hung.accepted == 1


async def test_a_host_that_hung_is_tried_first_again_after_a_while(
    database_settings: DatabaseSettings, hung: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that has recovered is used again without a restart."""
    monkeypatch.setattr(connector, "_HUNG_SECONDS", 0.0)
    async with database.connect(before(database_settings, hung.port)) as connected:
        await connected.value("SELECT 1")
        connected._pool.expire()
        await connected.value("SELECT 1")

    assert hung.accepted == 2


async def test_each_host_has_its_own_time(database_settings: DatabaseSettings, hung: FakeHost) -> None:
    """With two hosts that hang, the deadline of a request still leaves the third its time."""
    settings = before(database_settings, hung.port, hung.port)
    async with database.connect(settings) as connected:
        assert b'"id":1' in await Store(connected, settings, 64).get(1)

    assert hung.accepted == 2
    assert settings.deadline_seconds - database_settings.deadline_seconds == 2 * settings.connect_seconds


async def test_a_host_that_is_closed_is_passed_over(database_settings: DatabaseSettings, closing: FakeHost) -> None:
    """A host that refuses connections, or closes them during the login, costs no request its response."""
    async with database.connect(before(database_settings, free_port(), closing.port)) as connected:
        assert await connected.value("SELECT 1") == 1

    assert closing.accepted == 1


async def test_where_all_hosts_hang_the_database_is_unavailable(
    database_settings: DatabaseSettings, hung: FakeHost, log: Log
) -> None:
    """Each is tried once, and the log names the last."""
    hosts = f"host=127.0.0.1,127.0.0.1&port={hung.port}&user=x"
    settings = replace(database_settings, dsn=f"postgresql:///x?{hosts}", connect_seconds=0.3)
    async with database.connect(settings) as connected:
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")

    assert hung.accepted == 2
    assert f"127.0.0.1:{hung.port} did not respond within 0.3 s" in str(log.read())


async def test_a_login_that_is_refused_is_not_tried_on_the_next_host(
    database_settings: DatabaseSettings, hung: FakeHost
) -> None:
    """As in libpq: the role is the same on each host."""
    real = dsn.parse(database_settings.dsn)
    ((host, port),) = real.addresses
    parameters = {"host": f"{host},127.0.0.1", "port": f"{port},{hung.port}", "user": "no_such_role"}
    url = str(replace(real, parameters={**real.parameters, **parameters}))
    async with database.connect(replace(database_settings, dsn=url)) as connected:
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")

    assert hung.accepted == 0


@pytest.fixture(name="standby", scope="module")
def make_standby(postgres: EmbeddedPostgres, databases: Databases) -> Iterator[EmbeddedPostgres]:
    """A standby that replicates the tests' server."""
    del databases  # so that the role of the service is replicated
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    server = EmbeddedPostgres(folder, {"port": "5433"})  # the copied data folder has the lock file of port 5432
    embedded.run("pg_basebackup", "--dbname", postgres.dsn(), "--pgdata", server.data, "--write-recovery-conf")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["primary", "standby"])
@pytest.mark.parametrize("target", ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"])
async def test_the_host_is_chosen_as_libpq_chooses_it(
    postgres: EmbeddedPostgres,
    standby: EmbeddedPostgres,
    database_settings: DatabaseSettings,
    target: str,
    first: str,
) -> None:
    """Of a primary and a standby, in either order, the service connects to the same one as libpq."""
    order = [postgres, standby] if first == "primary" else [standby, postgres]
    addresses = [address for server in order for address in dsn.parse(server.dsn(SERVICE_ROLE)).addresses]
    hosts, ports = (",".join(part) for part in zip(*addresses, strict=True))
    url = f"postgresql:///postgres?host={hosts}&port={ports}&user={SERVICE_ROLE}&target_session_attrs={target}"
    with contextlib.closing(psycopg2.connect(url)) as libpq:
        cursor = libpq.cursor()
        cursor.execute("SELECT pg_is_in_recovery()")
        ((expected,),) = cursor.fetchall()

    async with database.connect(replace(database_settings, dsn=url)) as connected:
        assert await connected.value("SELECT pg_is_in_recovery()") == expected


async def test_without_a_standby_prefer_standby_takes_the_primary(database_settings: DatabaseSettings) -> None:
    """Where no host is a standby, a second pass takes any of them; without a primary, read-write finds no host."""
    settings = before(database_settings, free_port(), target_session_attrs="prefer-standby")
    async with database.connect(settings) as connected:
        assert await connected.value("SELECT 1") == 1
    settings = before(database_settings, free_port(), target_session_attrs="standby")
    async with database.connect(settings) as connected:
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")


async def test_the_service_serves_while_the_first_host_hangs(
    serve: Callable[..., Service], database_settings: DatabaseSettings, hung: FakeHost
) -> None:
    """The first request is already served."""
    # This is how long the test takes, and also the longest that the host after it may take.
    service = serve(DATABASE_URL=before(database_settings, hung.port).dsn, DB_CONNECT_SECONDS="5")
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
        assert response.status == 200
    assert hung.accepted >= 1  # by the check at the start, by the request, or by both


@pytest.mark.slow
async def test_maintenance_passes_over_a_host_that_cannot_be_reached(
    postgres: EmbeddedPostgres, test_database: str
) -> None:
    """Migrations, which another driver runs, go to the same host as everything else."""
    ((host, port),) = dsn.parse(postgres.dsn()).addresses
    url = f"postgresql:///{test_database}?host=127.0.0.1,{host}&port={free_port()},{port}&user=postgres"

    assert "up to date" in await maintenance.migrate(url)
    assert await maintenance.seed(url) == 0


@pytest.mark.slow
async def test_maintenance_passes_over_a_host_that_hangs(
    postgres: EmbeddedPostgres, test_database: str, hung: FakeHost
) -> None:
    """Each host has its own time there, too."""
    ((host, port),) = dsn.parse(postgres.dsn()).addresses
    url = f"postgresql:///{test_database}?host=127.0.0.1,{host}&port={hung.port},{port}&user=postgres"

    assert await maintenance.prune(url) == 0
