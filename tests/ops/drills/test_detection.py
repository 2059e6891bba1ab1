"""A drill passes with a correct service, and detects each kind of wrong one."""

import asyncio
import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiohttp import web

from ops.drills import callers, drill
from ops.drills.callers import Callers
from ops.drills.drill import Drill
from ops.drills.harness import Harness
from ops.drills.ledger import Ledger
from ops.drills.proxy import FaultProxy
from ops.drills.run import Run, State
from ops.drills.timeline import Timeline
from svc.postgres.embedded import EmbeddedPostgres
from tests.patience import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

FAULT_EVERY = 10  # clients, or gets
SLOW_SECONDS = 0.3
ADDS = 60


class FaultyService:
    """A service on a real table. It is correct except for one fault, if any.

    Args:
        fault: one of those in this class, or any other text for none.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", fault: str) -> None:
        self._pool = pool
        self._fault = fault
        self._clients = itertools.count(1)
        self._gets = itertools.count(1)
        self._ids: dict[str, int] = {}
        self.adds = 0
        self.tries: dict[str, list[str]] = defaultdict(list)

    async def add(self, request: web.Request) -> web.Response:
        key, name, money = request.headers["Idempotency-Key"], request.query["name"], request.query["money"]
        self.adds += 1
        self.tries[name].append(key)
        if self._fault == "refuses everything" or (self._fault == "refuses twice" and len(self.tries[name]) < 3):
            return web.json_response({}, status=503)
        if key in self._ids and self._fault != "forgets keys":
            return web.json_response({"id": self._ids[key]}, status=201)
        is_faulty = next(self._clients) % FAULT_EVERY == 0
        stored_money = "1.00" if is_faulty and self._fault == "changes amounts" else money
        times = {"drops adds": 0, "stores twice": 2}.get(self._fault, 1) if is_faulty else 1
        self._ids[key] = await self._store(name, stored_money, times)
        if is_faulty and self._fault == "is slow":
            await asyncio.sleep(SLOW_SECONDS)
        return web.json_response({"id": self._ids[key]}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        if self._fault == "returns an old read" and next(self._gets) % FAULT_EVERY == 0:
            return web.json_response({}, status=404)
        query = "SELECT id, name, money::text AS money FROM clients WHERE id = $1"
        row = await self._pool.fetchrow(query, int(request.match_info["id"]))
        return web.json_response(dict(row) if row else {}, status=200 if row else 404)

    async def _store(self, name: str, money: str, times: int) -> int:
        insert = "INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id"
        if not times:
            return int(await self._pool.fetchval("SELECT nextval('clients_id_seq')"))
        return min([int(await self._pool.fetchval(insert, name, money)) for _ in range(times)])


@asynccontextmanager
async def serving(database: str, fault: str) -> AsyncIterator[tuple[FaultyService, int]]:
    """Runs a service with this fault. Yields it and its port."""
    async with asyncpg.create_pool(database, min_size=4, max_size=4) as pool:
        service = FaultyService(pool, fault)
        app = web.Application()
        app.add_routes([web.post("/add", service.add), web.get("/get/{id}", service.get)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield service, runner.addresses[0][1]
        finally:
            await runner.cleanup()


@pytest.fixture
def fast_harness(
    postgres: EmbeddedPostgres, test_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lets drills use the PostgreSQL that tests share, which does not have to start first."""

    class Shared(EmbeddedPostgres):
        def dsn(self, user: str = "postgres", database: str = test_database) -> str:
            return postgres.dsn(user, database)

    @asynccontextmanager
    async def set_up(_: str, folder: Path, collector_port: int, *, is_quick: bool) -> AsyncIterator[Harness]:
        async with FaultProxy(0).running() as database, FaultProxy(0).running() as service:
            yield Harness(folder, is_quick, Shared(tmp_path), database, service, Ledger("drill"), collector_port)

    monkeypatch.setattr(drill, "set_up", set_up)
    monkeypatch.setattr(drill, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(callers, "_SETTLE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(callers, "_REPEATED", 0.5)


async def run(body: drill.Body, tmp_path: Path) -> Run:
    """Runs a drill that is not registered."""
    chosen = Drill("test", "what a test breaks", body, str)
    return await drill.run(chosen, tmp_path, 0, is_quick=True, on_mark=lambda *_: None)


@pytest.mark.usefixtures("fast_harness")
@pytest.mark.parametrize(
    ("fault", "not_met"),
    [
        ("none", set()),
        ("refuses twice", set()),
        ("drops adds", {"lost adds", "stale gets"}),
        ("stores twice", {"duplicated adds"}),
        ("changes amounts", {"lost adds", "unexpected adds", "stale gets"}),
        ("returns an old read", {"stale gets"}),
        ("forgets keys", {"duplicated adds", "contradicted adds"}),
        ("is slow", {"longest wait of a caller"}),
        ("refuses everything", {"adds acknowledged"}),
    ],
)
async def test_a_drill_detects_a_faulty_service(
    fault: str, not_met: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fault in 10 clients or gets is enough. A correct service passes, even if it refuses requests at first."""
    if fault == "is slow":
        monkeypatch.setattr(drill, "DEADLINE_SECONDS", SLOW_SECONDS / 2)
    if fault == "refuses everything":
        monkeypatch.setattr(callers, "_SETTLE_SECONDS", 0.1)

    async def call(harness: Harness) -> None:
        async with serving(harness.postgres.dsn(), fault) as (service, port):
            harness.service_proxy.target = port
            async with harness.callers(pause_seconds=0.01):
                await wait_until(lambda: service.adds >= ADDS)

    result = await run(call, tmp_path)

    assert not result.error
    assert {claim.description for claim in result.claims if not claim.is_met} == not_met
    assert result.state == (State.FAILED if not_met else State.PASSED)
    assert result.audit
    assert result.audit.acknowledged > 10 or fault == "refuses everything"


async def test_callers_retry_with_the_same_key(postgres: EmbeddedPostgres, test_database: str) -> None:
    """An add that is refused twice is acknowledged once, at its third try, under one key."""
    ledger, timeline = Ledger("drill"), Timeline()
    async with serving(postgres.dsn(database=test_database), "refuses twice") as (service, port):
        url = f"http://127.0.0.1:{port}"
        async with Callers(url, ledger, timeline, 4, pause_seconds=0.005).running():
            await wait_until(lambda: len(service.tries) > 5)
    tries = list(service.tries.values())

    assert all(len(set(keys)) == 1 and len(keys) >= 3 for keys in tries)
    assert len({keys[0] for keys in tries}) == len(tries) == ledger.audit([]).acknowledged
    assert timeline.outcomes()["503"] == 2 * len(tries)


@pytest.mark.usefixtures("fast_harness")
async def test_an_exception_fails_a_drill_and_its_processes_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result has the traceback, the claims so far, and a claim about the process that was left running."""
    monkeypatch.setattr(drill, "_EXIT_SECONDS", 0.1)
    started: list[asyncio.subprocess.Process] = []

    async def leave_process(harness: Harness) -> None:
        harness.claim("so far", 1, at_most=1)
        started.append(await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE))
        raise RuntimeError("the drill did not end")

    result = await run(leave_process, tmp_path)
    (process,) = started
    await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)

    assert result.state == State.FAILED
    assert result.error.endswith("RuntimeError: the drill did not end\n")
    assert [(claim.description, claim.measured) for claim in result.claims] == [
        ("so far", 1),
        ("processes left running", 1),
    ]
    assert not psutil.pid_exists(process.pid)
