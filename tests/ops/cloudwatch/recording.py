"""Recordings of real runs: a quiet one, a busy one with faults, and an outage. All test processes share them."""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg
import orjson
import psutil
import pytest
from aiohttp import ClientError, ClientSession

from ops.oncall.metrics import MetricStore
from ops.oncall.recorder import FILE, PROBE_SECONDS
from svc.logs import names
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

Moments: TypeAlias = dict[str, float]
Scenario: TypeAlias = Callable[["Recorded"], Coroutine[Any, Any, Moments]]

METRICS_SECONDS: Final = 1  # the shortest interval that the service allows
# More than a tenth of a minute, so that the outage breaches the threshold of the alarm database-unavailable.
OUTAGE_SECONDS: Final = 7
FAILED_REQUESTS: Final = 1000  # in the longer outage
# After a recovery, until each later document covers only the time since, and a check of the name has seen it: one that
# began before it may fail yet.
SETTLE_SECONDS: Final = 2 * PROBE_SECONDS + METRICS_SECONDS


@dataclass(frozen=True)
class Run:
    """The recording of a run.

    Attributes:
        path: of the recording.
        moments: when each phase of the run started, in seconds since 1970; and how many requests failed, where that was
            counted.
    """

    path: Path
    moments: Moments

    def lines(self) -> list[bytes]:
        """The lines of the recording."""
        return self.path.read_bytes().splitlines()

    def documents(self) -> list[dict[str, Any]]:
        """The metric documents, in order."""
        return [orjson.loads(line) for line in self.lines() if b'"_aws"' in line]

    def metrics(self) -> MetricStore:
        """The metrics in these documents."""
        store = MetricStore()
        for document in self.documents():
            store.add(document)
        return store


@dataclass(frozen=True)
class Recorded:
    """A service that is being recorded.

    Attributes:
        service: the recorder, which has the service as its child process.
        path: of the recording.
        postgres: the server of the service's database.
        database: the name of the database.
    """

    service: Service
    path: Path
    postgres: EmbeddedPostgres
    database: str

    def count(self, event: str) -> int:
        """How often the service has logged an event."""
        return self.path.read_bytes().count(f'"event":"{event}"'.encode())

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110 - the recording is written by another process
                await asyncio.sleep(0.1)

    async def request(self, session: ClientSession, path: str) -> int:
        """Sends a request and returns its status, or 0: a worker that is killed sends no response."""
        method = "POST" if path.startswith("add") else "GET"
        with contextlib.suppress(ClientError):
            async with session.request(method, f"{self.service.url}/{path}") as response:
                await response.read()
                return response.status
        return 0


@pytest.fixture(scope="session", name="busy_run")
def record_busy_run(postgres: EmbeddedPostgres, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run under load: a worker is killed, a table is locked and renamed, the database is stopped for a while."""
    environment = {
        "DRAIN_SECONDS": "0.2",
        "MAX_CONCURRENT": "8",
        "MAX_QUEUE": "8",
        "DB_STATEMENT_SECONDS": "1",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1,k8s.node.name=node-1",
    }
    return _once(tmp_path_factory, "busy-run", lambda folder: _record(folder, postgres, databases, environment, _busy))


@pytest.fixture(scope="session", name="outage_run")
def record_outage(postgres: EmbeddedPostgres, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which the database is stopped until more than a thousand requests have failed."""
    environment = {"DRAIN_SECONDS": "0.2"}
    return _once(
        tmp_path_factory, "outage-run", lambda folder: _record(folder, postgres, databases, environment, _outage)
    )


@pytest.fixture(scope="session")
def recording(postgres: EmbeddedPostgres, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a quiet run: seven requests."""
    environment = {"DRAIN_SECONDS": "0"}
    return _once(
        tmp_path_factory, "quiet-run", lambda folder: _record(folder, postgres, databases, environment, _quiet)
    ).path


def _once(factory: pytest.TempPathFactory, name: str, record: Callable[[Path], Moments]) -> Run:
    """Records a run, unless another process of this test run has done so.

    https://pytest-xdist.readthedocs.io/en/stable/how-to.html#making-session-scoped-fixtures-execute-only-once
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    finished = folder / "moments.json"
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            finished.write_bytes(orjson.dumps(record(folder)))
    return Run(folder / FILE, orjson.loads(finished.read_bytes()))


def _record(
    folder: Path, postgres: EmbeddedPostgres, databases: Databases, environment: Mapping[str, str], scenario: Scenario
) -> Moments:
    database = asyncio.run(databases.new())
    own = {
        "DATABASE_URL": postgres.dsn(SERVICE_ROLE, database),
        "LOCAL_FOLDER": str(folder),
        "METRICS_INTERVAL": str(METRICS_SECONDS),
    }
    service = Service({**own, **environment}, module=["ops.oncall.recorder"])
    try:
        service.wait_until_listening()
        moments = asyncio.run(scenario(Recorded(service, folder / FILE, postgres, database)))
        service.stop()
    finally:
        service.end()
        asyncio.run(databases.drop(database))
    return moments


async def _quiet(recorded: Recorded) -> Moments:
    async with ClientSession() as session:
        for path in (*["get/1"] * 5, "add?name=Valentina&money=1", "getall"):
            await recorded.request(session, path)
    return {}


async def _busy(recorded: Recorded) -> Moments:
    moments = {}
    async with _load(recorded), ClientSession() as session:
        await recorded.wait_until(lambda: recorded.count(names.STARTED) == 2)
        moments["worker_killed"] = time.time()
        (parent,) = psutil.Process(recorded.service.process.pid).children()
        parent.children()[0].kill()
        await recorded.wait_until(lambda: recorded.count(names.STARTED) == 3)  # the new one too

        moments["locked"] = time.time()
        owner = await asyncpg.connect(recorded.postgres.dsn(database=recorded.database))
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            await asyncio.gather(*(recorded.request(session, "get/1") for _ in range(60)))

        moments["broken"] = time.time()
        await owner.execute("ALTER TABLE clients RENAME TO others")
        await owner.execute("CREATE VIEW clients AS SELECT id, name, money / 0 AS money FROM others")
        await owner.execute("GRANT SELECT ON clients TO clients_service")
        await recorded.request(session, "get/1")
        await owner.execute("DROP VIEW clients")
        for path in ("get/1", "add?name=A&money=1", "readyz"):
            await recorded.request(session, path)
        await owner.execute("ALTER TABLE others RENAME TO clients")
        await owner.close()

        moments["unavailable"] = time.time()
        await _stop_database(recorded)

        moments["recovered"] = time.time()
        await asyncio.sleep(SETTLE_SECONDS + 2 * METRICS_SECONDS)
    moments["over"] = time.time()
    return moments


async def _outage(recorded: Recorded) -> Moments:
    moments = {}
    statuses: list[int] = []

    def failed() -> int:
        return sum(status >= 500 for status in statuses)

    async def call(session: ClientSession) -> None:
        statuses.append(await recorded.request(session, "get/1"))

    async def call_regularly(session: ClientSession) -> None:
        async with asyncio.TaskGroup() as calls:
            while "over" not in moments:
                calls.create_task(call(session))
                await asyncio.sleep(1 / 60)

    async with ClientSession() as session, asyncio.TaskGroup() as callers:
        callers.create_task(call_regularly(session))
        await asyncio.sleep(SETTLE_SECONDS)
        moments["unavailable"] = time.time()
        await _stop_database(recorded, lambda: failed() > FAILED_REQUESTS)
        moments["recovered"] = time.time()
        await asyncio.sleep(SETTLE_SECONDS + 2 * METRICS_SECONDS)
        moments["over"] = time.time()
    return {**moments, "failed": failed()}


async def _stop_database(recorded: Recorded, is_enough: Callable[[], bool] = lambda: True) -> None:
    """Stops the database for OUTAGE_SECONDS and until a condition, and waits until the service has recovered."""
    await asyncio.to_thread(recorded.postgres.stop)
    await asyncio.sleep(OUTAGE_SECONDS)
    await recorded.wait_until(is_enough)
    recorded.postgres.start()  # not in a thread: the server exits with the thread that started it
    await recorded.wait_until(
        lambda: recorded.count(names.DATABASE_RECOVERED) == recorded.count(names.DATABASE_UNAVAILABLE) > 0
    )


@contextlib.asynccontextmanager
async def _load(recorded: Recorded) -> AsyncIterator[None]:
    """Sends some hundred requests per second."""
    stopping = asyncio.Event()

    async def call(session: ClientSession, number: int) -> None:
        paths = ["get/1", "get/2", f"add?name=caller-{number}&money=1", "get/999999", "getall?limit=10", "get/x"]
        while not stopping.is_set():
            for path in paths:
                await recorded.request(session, path)
                await asyncio.sleep(0.02)

    async with ClientSession() as session:
        callers = [asyncio.create_task(call(session, number)) for number in range(8)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*callers)
