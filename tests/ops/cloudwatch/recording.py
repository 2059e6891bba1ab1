"""Recordings of real runs: a quiet one, and one under load in which what goes wrong once in a while goes wrong."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import psutil
import pytest
from aiohttp import ClientError, ClientSession

from ops.common.process import Service
from ops.oncall.metrics import MetricStore
from ops.oncall.recorder import FILE
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases

AWAY_SECONDS = 15


@dataclass(frozen=True)
class Run:
    """A real run.

    Attributes:
        path: of the recording.
        moments: when what began, in seconds since 1970: calm, worker_killed, locked, broken, away, back, over.
    """

    path: Path
    moments: dict[str, float]

    def lines(self) -> list[bytes]:
        """All of it."""
        return self.path.read_bytes().splitlines()

    def documents(self) -> list[dict[str, Any]]:
        """Its metrics' documents, in order."""
        return [orjson.loads(line) for line in self.lines() if b'"_aws"' in line]

    def metrics(self) -> MetricStore:
        """What they tell."""
        store = MetricStore()
        for document in self.documents():
            store.add(document)
        return store


@pytest.fixture(scope="session")
def recorded(postgres: EmbeddedPostgres, databases: Databases) -> Iterator[Run]:
    """The run, which all tests share: it takes a minute."""
    database = asyncio.run(databases.new())
    folder = Path(tempfile.mkdtemp(prefix="clients-"))
    service = Service(
        {
            "DATABASE_URL": postgres.dsn(SERVICE_ROLE, database),
            "LOCAL_FOLDER": str(folder),
            "METRICS_INTERVAL": "1",
            "DRAIN_SECONDS": "0.2",
            "MAX_QUEUE": "8",
            "DB_STATEMENT_SECONDS": "1",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1,k8s.node.name=node-1",
        },
        module=["ops.oncall.recorder"],
    )
    try:
        service.wait_until_listening()
        moments = asyncio.run(_happen(service, postgres, database))
        service.stop()
        yield Run(folder / FILE, moments)
    finally:
        service.end()
        asyncio.run(databases.drop(database))
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def recording(postgres: EmbeddedPostgres, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a quiet run: seven requests."""
    database = asyncio.run(databases.new())
    folder = tmp_path_factory.mktemp("recording")
    environment = {"DATABASE_URL": postgres.dsn(SERVICE_ROLE, database), "LOCAL_FOLDER": str(folder)}
    service = Service({**environment, "METRICS_INTERVAL": "1", "DRAIN_SECONDS": "0"}, module=["ops.oncall.recorder"])
    try:
        service.wait_until_listening()
        asyncio.run(_ask_a_little(service))
        service.stop()
    finally:
        service.end()
        asyncio.run(databases.drop(database))
    return folder / FILE


async def _ask_a_little(service: Service) -> None:
    async with ClientSession() as session:
        for path in (*["get/1"] * 5, "add?name=Valentina&money=1", "getall"):
            await _ask(session, service, path)


async def _happen(service: Service, postgres: EmbeddedPostgres, database: str) -> dict[str, float]:
    moments = {}
    async with _load(service), ClientSession() as session:
        moments["calm"] = time.time()
        await asyncio.sleep(12)

        moments["worker_killed"] = time.time()
        (serving,) = psutil.Process(service.process.pid).children()
        serving.children()[0].kill()
        await asyncio.sleep(3)

        moments["locked"] = time.time()
        owner = await asyncpg.connect(postgres.dsn(database=database))
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            await asyncio.gather(*(_ask(session, service, "get/1") for _ in range(60)))

        moments["broken"] = time.time()
        await owner.execute("ALTER TABLE clients RENAME TO others")
        for path in ("get/1", "add?name=A&money=1", "readyz"):
            await _ask(session, service, path)
        await owner.execute("ALTER TABLE others RENAME TO clients")
        await owner.close()

        moments["away"] = time.time()
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(AWAY_SECONDS)
        postgres.start()  # here, not in a thread: the server ends with the thread that started it
        moments["back"] = time.time()
        await asyncio.sleep(12)
    moments["over"] = time.time()
    return moments


@contextlib.asynccontextmanager
async def _load(service: Service) -> AsyncIterator[None]:
    """Callers meanwhile, some hundred requests a second."""
    stopping = asyncio.Event()

    async def call(session: ClientSession, number: int) -> None:
        paths = ["get/1", "get/2", f"add?name=caller-{number}&money=1", "get/999999", "getall?limit=10", "get/x"]
        while not stopping.is_set():
            for path in paths:
                await _ask(session, service, path)
                await asyncio.sleep(0.02)

    async with ClientSession() as session:
        callers = [asyncio.create_task(call(session, number)) for number in range(8)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*callers)


async def _ask(session: ClientSession, service: Service, path: str) -> None:
    method = "POST" if path.startswith("add") else "GET"
    # A worker that is killed answers nobody; there is no connection to it afterwards.
    with contextlib.suppress(ClientError):
        async with session.request(method, f"{service.url}/{path}") as answer:
            await answer.read()
