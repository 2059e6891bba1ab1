"""Fixtures of most tests: a real PostgreSQL per test process, a database per test, and the service on it."""

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
import hypothesis
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient

from svc import app
from svc.http.access import ApiKey
from svc.http.lifecycle import Lifecycle
from svc.http.protocol import Server
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS
from tests.service import Service, show

Client: TypeAlias = TestClient[web.BaseRequest, None]
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SERVICE_ROLE = "clients_service"

pytest_plugins = ["tests.ops.cloudwatch.recording"]  # fixtures of a recorded run

# Fixtures that start a browser, a load or a further process. `make check` leaves out the tests that use them.
SLOW_FIXTURES = frozenset(
    (
        *("serve", "needs_wrk", "chrome", "busy_run", "recording", "mock_aws", "mock_ec2", "start_load"),
        *("fast_harness", "osv", "service", "command", "real_server"),
    )
)

# These take a minute or more.
LONGEST_FILES = frozenset(("test_browser.py", "test_openapi.py", "test_oncall.py", "test_bench.py"))

# A developer's own settings must not reach the tests.
SERVICE_VARIABLES = (
    *("DATABASE_URL", "HOST", "PORT", "WORKERS", "TELEMETRY", "LOG_FORMAT", "METRICS_INTERVAL", "TRUSTED_PROXIES"),
    *("API_KEY", "API_KEY_HASHES", "MAX_CONNECTIONS", "CORS_ORIGINS"),
)
for name in [n for n in os.environ if n.startswith(("DB_", "OTEL_", "PG")) or n in SERVICE_VARIABLES]:
    del os.environ[name]


# No time limit for one example of a property: a busy machine would fail it.
hypothesis.settings.register_profile(
    "any-speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-speed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that `make check` leaves out, and puts their files first, the longest before all others.

    Each test process takes one file at a time: the short ones at the end let all processes end together.
    """
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in LONGEST_FILES, item.path not in slow_files))


class ServedApp(BaseTestServer):
    """The service's own server on a real socket."""

    def __init__(self, served: Server) -> None:
        super().__init__()
        self.served = served

    async def _make_runner(self, **_: Any) -> web.ServerRunner:
        return web.ServerRunner(self.served)


class Databases:
    """Creates migrated and seeded databases from a template."""

    TEMPLATE = "migrated"

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._numbers = itertools.count(1)
        asyncio.run(self._create(self.TEMPLATE, "template1"))
        template = postgres.dsn(database=self.TEMPLATE)
        asyncio.run(maintenance.migrate(template))
        asyncio.run(maintenance.seed(template))
        asyncio.run(self._close(self.TEMPLATE))

    async def new(self, template: str = TEMPLATE) -> str:
        """Creates a database and returns its name."""
        name = f"test_{next(self._numbers)}"
        await self._create(name, template)
        return name

    async def drop(self, name: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn())
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()

    async def _close(self, name: str) -> None:
        """Lets nobody connect to the template: a change by one test would reach all others."""
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
    """A folder with a path short enough for a Unix socket; the path of pytest's own may be too long."""
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server that the tests of one process share; a test that stops it starts it again.

    It need not survive a crash of the machine, so it skips fsync; that a killed server loses nothing holds without it.
    """
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    server = EmbeddedPostgres(folder, {"fsync": "off"})
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    return Databases(postgres)


@pytest.fixture(name="test_database")
async def make_test_database(databases: Databases) -> AsyncIterator[str]:
    """The name of a database with the four first clients in it."""
    name = await databases.new()
    yield name
    await databases.drop(name)


@pytest.fixture
async def owner(postgres: EmbeddedPostgres, test_database: str) -> AsyncIterator[Owner]:
    """A connection as the database's owner, which may do what the service's role may not."""
    connection = await asyncpg.connect(postgres.dsn(database=test_database))
    yield connection
    await connection.close()


@pytest.fixture
def database_settings(postgres: EmbeddedPostgres, test_database: str) -> DatabaseSettings:
    """How the service reaches the database: with its least-privilege role, and patiently."""
    return DatabaseSettings(
        postgres.dsn(SERVICE_ROLE, test_database),
        connect_seconds=PATIENCE_SECONDS,
        acquire_seconds=PATIENCE_SECONDS,
        statement_seconds=PATIENCE_SECONDS,
    )


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle()


class Log:
    """The log of a service that runs in the tests' own process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.writer = LineWriter(self._file.fileno())
        self._test_from = self._read_to = 0
        self.take()

    def take(self) -> None:
        """Sends all logging here from now on."""
        logs.configure(self.writer, readable=False)

    def start_test(self) -> None:
        """Leaves the lines so far to the tests before."""
        self._test_from = self._read_to = os.fstat(self._file.fileno()).st_size

    def read(self) -> list[dict[str, Any]]:
        """The lines since the last read."""
        text = self._text_from(self._read_to)
        self._read_to += len(text)
        return [json.loads(line) for line in text.splitlines()]

    def text_of_test(self) -> str:
        """The lines of this test."""
        return self._text_from(self._test_from).decode()

    def _text_from(self, position: int) -> bytes:
        return os.pread(self._file.fileno(), 2**30, position)


@pytest.fixture(scope="session", name="session_log")
def make_session_log() -> Iterator[Log]:
    """One log for all tests, since a logger keeps the output that it had first."""
    with tempfile.TemporaryFile() as file:
        yield Log(file)


@pytest.fixture
def log(session_log: Log) -> Iterator[Log]:
    """The log of this process from here on, which is in the report of a test that fails.

    Afterwards, logging is as it was before.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    session_log.take()
    session_log.start_test()
    yield session_log
    show("Log of the service", session_log.text_of_test())
    session_log.take()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def api_keys() -> tuple[ApiKey, ...]:
    """No keys, so that the API is open; tests of access control override this."""
    return ()


@pytest.fixture
async def api(
    database_settings: DatabaseSettings,
    api_keys: tuple[ApiKey, ...],
    lifecycle: Lifecycle,
    log: Log,
    aiohttp_client: Callable[[BaseTestServer], Awaitable[Client]],
) -> AsyncIterator[Client]:
    """An HTTP client of the whole service, which runs in this process on a real socket."""
    # On any address, so that tests may send any Host; see svc/http/hosts.py.
    listen = ServerSettings(host="0.0.0.0")
    settings = Settings(listen, build="tests", api_key_hashes=api_keys, database=database_settings)
    async with app.build(settings, lifecycle, log.writer) as server:
        client = await aiohttp_client(ServedApp(server))
        yield client
        await client.close()


@pytest.fixture
def serve(database_settings: DatabaseSettings) -> Iterator[Callable[..., Service]]:
    """Starts the service as a process on the test's database; each process ends with the test."""
    services: list[Service] = []

    def start(**environment: str) -> Service:
        service = Service({"DATABASE_URL": database_settings.dsn, **environment})
        services.append(service)
        service.wait_until_listening()
        return service

    yield start
    for service in services:
        service.end()
