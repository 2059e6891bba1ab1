"""A real PostgreSQL for all tests, a database of its own for each, and the service on it."""

import asyncio
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient

from ops.common.process import Service
from svc import app
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres import maintenance
from svc.postgres.embedded import LocalPostgres
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from tests.missing import missing

Client: TypeAlias = TestClient[Request, None]
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SERVICE_ROLE = "clients_service"

pytest_plugins = [
    "tests.ops.deploy.cloud",
    "tests.ops.cloudwatch.recording",
]  # fixtures of AWS's mock and of a cluster; of a run that is recorded

# A developer's own settings are not the tests'.
OWN = (
    *("DATABASE_URL", "HOST", "PORT", "WORKERS", "TELEMETRY", "LOG_FORMAT", "METRICS_INTERVAL", "TRUSTED_PROXIES"),
    *("API_KEY", "API_KEY_HASHES", "MAX_CONNECTIONS"),
)
for name in [n for n in os.environ if n.startswith(("DB_", "OTEL_", "PG")) or n in OWN]:
    del os.environ[name]


class ServedApp(BaseTestServer):
    """The service's own server on a real socket."""

    def __init__(self, server: web.Server) -> None:
        super().__init__()
        self._served = server

    async def _make_runner(self, **_: Any) -> web.ServerRunner:
        return web.ServerRunner(self._served)


class Databases:
    """Makes databases that are migrated and seeded, from a template."""

    TEMPLATE = "migrated"

    def __init__(self, postgres: LocalPostgres) -> None:
        self.postgres = postgres
        self._numbers = itertools.count(1)
        asyncio.run(self._create(self.TEMPLATE, "template1"))
        template = postgres.dsn(database=self.TEMPLATE)
        asyncio.run(maintenance.migrate(template))
        asyncio.run(maintenance.seed(template))
        asyncio.run(self._close(self.TEMPLATE))

    async def new(self, template: str = TEMPLATE) -> str:
        """A new database's name."""
        name = f"test_{next(self._numbers)}"
        await self._create(name, template)
        return name

    async def drop(self, name: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn())
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()

    async def _close(self, name: str) -> None:
        """Nobody may connect: what one test did to it, all the others would find."""
        connection = await asyncpg.connect(self.postgres.dsn())
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.close()

    async def _create(self, name: str, template: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn())
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await connection.close()


@pytest.fixture
def needs_wrk() -> None:
    if not shutil.which("wrk"):
        missing("wrk is missing (on Debian: apt install wrk)")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a Unix socket's name, which pytest's own may not."""
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    """The server that the tests share; who stops it starts it again."""
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    server = LocalPostgres(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def databases(postgres: LocalPostgres) -> Databases:
    return Databases(postgres)


@pytest.fixture(name="test_database")
async def make_test_database(databases: Databases) -> AsyncIterator[str]:
    """The name of a database with the four first clients in it."""
    name = await databases.new()
    yield name
    await databases.drop(name)


@pytest.fixture
async def owner(postgres: LocalPostgres, test_database: str) -> AsyncIterator[Owner]:
    """A connection of the database's owner, who may look and do what the service may not."""
    connection = await asyncpg.connect(postgres.dsn(database=test_database))
    yield connection
    await connection.close()


@pytest.fixture
def database_settings(postgres: LocalPostgres, test_database: str) -> DatabaseSettings:
    """The database as the service reaches it: in its least-privilege role."""
    return DatabaseSettings(postgres.dsn(SERVICE_ROLE, test_database))


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle()


class Log:
    """Where the service logs that runs in the tests' own process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.writer = LineWriter(self._file.fileno())
        self._read_to = 0
        self.take()

    def take(self) -> None:
        """Logging goes here from now on."""
        logs.configure(self.writer, readable=False)

    def read(self) -> list[dict[str, Any]]:
        """The lines since the last look."""
        text = os.pread(self._file.fileno(), 2**30, self._read_to)
        self._read_to += len(text)
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="session", name="session_log")
def make_session_log() -> Iterator[Log]:
    """One for all: a logger keeps the one that it first had."""
    with tempfile.TemporaryFile() as file:
        yield Log(file)


@pytest.fixture
def log(session_log: Log) -> Iterator[Log]:
    """The log of this process, from here on; also for those who take it away for a while."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    session_log.take()
    session_log.read()
    yield session_log
    session_log.take()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def api_key_hashes() -> tuple[bytes, ...]:
    """None, so that the API is open; who tests one that is not has others."""
    return ()


@pytest.fixture
async def api(
    database_settings: DatabaseSettings,
    api_key_hashes: tuple[bytes, ...],
    lifecycle: Lifecycle,
    log: Log,
    aiohttp_client: Callable[[BaseTestServer], Awaitable[Client]],
) -> AsyncIterator[Client]:
    """A client of the whole service, which runs in this process on a real socket."""
    settings = Settings(build="tests", api_key_hashes=api_key_hashes, database=database_settings)
    async with app.build(settings, lifecycle, log.writer) as server:
        client = await aiohttp_client(ServedApp(server))
        yield client
        await client.close()


@pytest.fixture
def serve(database_settings: DatabaseSettings) -> Iterator[Callable[..., Service]]:
    """Starts the service as a process of its own, on the test's database; all are ended with the test."""
    services: list[Service] = []

    def start(**environment: str) -> Service:
        service = Service({"DATABASE_URL": database_settings.dsn, **environment})
        services.append(service)
        service.wait_until_listening()
        return service

    yield start
    for service in services:
        service.end()
