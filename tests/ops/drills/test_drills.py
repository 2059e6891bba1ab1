"""Drills detect what they claim to: no claim that cannot be broken, no fault that is none, nothing left behind."""

import asyncio
import itertools
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import pytest
from aiohttp import web

from ops.common.process import ROOT
from ops.drills import __main__ as command
from ops.drills import callers, drill, flood, report, stage
from ops.drills.callers import Callers
from ops.drills.drill import DRILLS, Drill
from ops.drills.ledger import Add, Ledger, Row
from ops.drills.played import Played, State
from ops.drills.proxy import FaultProxy
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED, SERVED, Seen, Timeline
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import Owner

# --- The ledger


def acknowledged(ledger: Ledger, client_id: int) -> Add:
    """An add that was sent once and acknowledged."""
    add = ledger.new()
    add.tries = 1
    ledger.acknowledge(add, client_id)
    return add


def test_nothing_is_wrong_where_all_is_there() -> None:
    """What was acknowledged is there; what was not, may be there once or not at all."""
    ledger = Ledger("drill")
    add, stored, absent, unsent = acknowledged(ledger, 5), ledger.new(), ledger.new(), ledger.new()
    stored.tries = absent.tries = 1
    ledger.check(add, {"id": 5, "name": add.name, "money": add.money})

    audit = ledger.audit([(5, add.name, add.money), (6, stored.name, stored.money)])

    assert not any(audit.wrongs.values())
    assert (audit.acknowledged, audit.unanswered) == (1, 2)
    assert unsent.tries == 0


@pytest.mark.parametrize(
    ("stored", "wrong"),
    [
        ([], {"lost"}),
        ([(7, "drill 2", "{}")], {"lost"}),
        ([(6, "drill 2", "{}"), (7, "drill 2", "{}")], {"doubled"}),
        ([(6, "drill 2", "{}"), (7, "nobody's", "1.00")], {"strange"}),
        ([(6, "drill 2", "{}0")], {"lost", "strange"}),
    ],
    ids=["lost", "another id", "doubled", "strange", "another amount"],
)
def test_the_audit_finds_what_is_wrong(stored: list[Row], wrong: set[str]) -> None:
    """Each that the table has otherwise than it was acknowledged."""
    ledger = Ledger("drill")
    good, bad = acknowledged(ledger, 5), acknowledged(ledger, 6)

    rows = [(client_id, name, money.format(bad.money)) for client_id, name, money in stored]
    audit = ledger.audit([(5, good.name, good.money), *rows])

    assert {kind for kind, count in audit.wrongs.items() if count} == wrong
    assert all(len(getattr(audit, kind)) == 1 for kind in wrong)


@pytest.mark.parametrize("found", [None, {"id": 5, "name": "another", "money": "1.00"}])
def test_a_look_up_that_misses_what_was_acknowledged_is_stale(found: object) -> None:
    """Whether it finds nothing or something else."""
    ledger = Ledger("drill")
    add = acknowledged(ledger, 5)
    ledger.check(add, found)

    assert ledger.audit([(5, add.name, add.money)]).wrongs == dict.fromkeys(
        ("lost", "doubled", "strange", "contradicted"), 0
    ) | {"stale": 1}


def test_two_ids_for_an_add_contradict_each_other() -> None:
    """And the same one twice does not."""
    ledger = Ledger("drill")
    first, second = acknowledged(ledger, 5), acknowledged(ledger, 6)
    ledger.acknowledge(first, 5)
    ledger.acknowledge(second, 7)

    audit = ledger.audit([(5, first.name, first.money), (6, second.name, second.money)])

    assert audit.contradicted == [second.name]
    assert audit.acknowledged == 2


async def test_the_audit_reads_the_table_as_the_api_writes_it(owner: Owner) -> None:
    """Amounts of a real PostgreSQL are those that were sent, and a row that is taken away is missed."""
    ledger = Ledger("drill")
    insert = "INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id"
    for _ in range(50):
        add = ledger.new()
        add.tries = 1
        ledger.acknowledge(add, await owner.fetchval(insert, add.name, add.money))

    async def rows() -> list[Any]:
        found = await owner.fetch(stage._ROWS, stage.SEEDED, flood.NAME)
        return [(row["id"], row["name"], row["money"]) for row in found]

    assert not any(ledger.audit(await rows()).wrongs.values())
    await owner.execute("DELETE FROM clients WHERE name = 'drill 7'")
    await owner.execute("INSERT INTO clients (name, money) SELECT name, money FROM clients WHERE name = 'drill 8'")
    audit = ledger.audit(await rows())
    assert (audit.lost, audit.doubled, audit.strange) == (["drill 7"], ["drill 8"], [])


# --- The timeline

SEEN: Final = [
    Seen(0.0, 0.1, "get", "200"),
    Seen(1.0, 0.3, "add", "201"),
    Seen(1.0, 2.0, "get", "503"),
    Seen(2.0, 1.5, "get", "ServerDisconnectedError"),
    Seen(3.0, 1.0, "get", "504"),
    Seen(4.5, 0.5, "get", "200"),
]


def test_the_figures_of_a_timeline() -> None:
    """By example: when callers were served again, were turned away last, and how long they waited."""
    seen = Timeline(SEEN)

    assert [seen.count(kind) for kind in (SERVED, REFUSED, FAILED)] == [3, 2, 1]
    assert seen.count(REFUSED, 0, 3) == 1
    assert seen.counts() == {"200": 2, "201": 1, "503": 1, "504": 1, "ServerDisconnectedError": 1}
    assert seen.served_again_after(2) == 3
    assert seen.served_again_after(6) == float("inf")
    assert seen.last_turned_away_after(2) == 2
    assert seen.last_turned_away_after(4) == 0
    assert seen.longest() == 2
    assert seen.longest(3) == 1
    assert seen.longest_without_service() == pytest.approx(5 - 1.3)
    assert seen.percentile(50, 0, 5) == 1
    assert seen.percentile(100, 0, 5) == 2
    assert seen.percentile(50, 0, 5, lambda each: each.kind == SERVED) == 0.3
    assert seen.percentile(50, 9, 10) == 0
    assert [len(each) for each in seen.bins(1)] == [1, 1, 0, 2, 1, 1]


def test_a_time_in_which_nobody_asks_is_no_time_without_service() -> None:
    """It counts from when someone asked."""
    assert Timeline([Seen(0, 0.1, "get", "200"), Seen(9, 0.2, "get", "200")]).longest_without_service() == (
        pytest.approx(0.2)
    )
    assert Timeline([Seen(0, 0.1, "get", "503"), Seen(9, 0.2, "get", "503")]).longest_without_service() == (
        pytest.approx(9.2)
    )
    assert Timeline().longest_without_service() == 0


def test_who_hears_of_marks() -> None:
    """Each is told when it is made, and kept."""
    told: list[tuple[float, str]] = []
    seen = Timeline(tell=lambda at, words: told.append((at, words)))
    at = seen.mark("done")

    assert told == seen.marks == [(at, "done")]


# --- The proxy


@asynccontextmanager
async def proxied(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[FaultProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection by way of a proxy to such a server."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, FaultProxy(server.sockets[0].getsockname()[1]).running() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        yield proxy, reader, writer
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what it is sent, until either end is closed."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def test_the_proxy_resets() -> None:
    """The caller sees ECONNRESET; a new connection is served."""
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()

        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"b")
        assert await new_reader.readexactly(1) == b"b"
        new_writer.close()


async def test_a_black_hole_lets_nothing_pass_and_loses_nothing() -> None:
    """No byte comes while it is one; healed, all come in order, and new connections are served."""
    sent = bytes(range(256)) * 1024
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.black_hole()
        writer.write(sent)
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"new")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(new_reader.read(1), 0.1)
        proxy.heal()
        assert await asyncio.wait_for(reader.readexactly(len(sent)), 5) == sent
        assert await asyncio.wait_for(new_reader.readexactly(3), 5) == b"new"
        new_writer.close()


@pytest.mark.parametrize("resets", [True, False])
async def test_a_host_that_was_replaced_knows_no_old_connection(*, resets: bool) -> None:
    """What is sent on one is answered by a reset, or by nothing; a new one is served."""
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.forget(resets=resets)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        writer.write(b"b")
        with pytest.raises(ConnectionResetError if resets else TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)

        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"new")
        assert await asyncio.wait_for(new_reader.readexactly(3), 5) == b"new"
        new_writer.close()


@pytest.mark.parametrize(
    ("fault", "value", "least", "most"),
    [("bytes_per_second", 2000.0, 0.4, 2.0), ("latency_seconds", 0.2, 0.4, 1.5), ("latency_seconds", 0.0, 0.0, 0.3)],
    ids=["drip", "delay", "neither"],
)
async def test_the_proxy_drips_and_delays(fault: str, value: float, least: float, most: float) -> None:
    """1000 bytes there and back at 2000 a second, or 0.2 s late in each direction."""
    async with proxied(echo) as (proxy, reader, writer):
        setattr(proxy, fault, value)
        began = time.monotonic()
        writer.write(b"x" * 1000)
        await asyncio.wait_for(reader.readexactly(1000), 5)

        assert least < time.monotonic() - began < most


async def test_the_proxy_half_closes() -> None:
    """The caller reads the end, and what it sends still arrives; what is sent to it does not."""
    heard = asyncio.Queue[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            heard.put_nowait(data)
            writer.write(b"heard")
        writer.close()

    async with proxied(answer) as (proxy, reader, writer):
        writer.write(b"first")
        assert await reader.readexactly(5) == b"heard"
        proxy.half_close()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        for words in (b"second", b"third"):
            writer.write(words)
            await asyncio.sleep(0.05)

    assert [heard.get_nowait() for _ in range(heard.qsize())] == [b"first", b"second", b"third"]


# --- Services that lie


class Liar:
    """Answers as the service does, out of a real table, and in one thing not.

    Args:
        lie: which; none of those that it knows is the truth.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", lie: str) -> None:
        self._pool = pool
        self._lie = lie
        self._numbers = itertools.count(1)
        self._known: dict[str, int] = {}
        self.tries: dict[str, list[str]] = defaultdict(list)

    async def add(self, request: web.Request) -> web.Response:
        key, name, money = request.headers["Idempotency-Key"], request.query["name"], request.query["money"]
        self.tries[name].append(key)
        is_odd = next(self._numbers) % 50 == 0
        if self._lie == "serves nobody" or (self._lie == "refuses twice" and len(self.tries[name]) < 3):
            return web.json_response({}, status=503)
        if key not in self._known or self._lie == "forgets keys":
            stored_money = "1.00" if is_odd and self._lie == "changes amounts" else money
            times = {"drops adds": 0, "stores twice": 2}.get(self._lie, 1) if is_odd else 1
            self._known[key] = await self._store(name, stored_money, times)
        if is_odd and self._lie == "is slow":
            await asyncio.sleep(1.2)
        return web.json_response({"id": self._known[key]}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        if self._lie == "answers an old read" and next(self._numbers) % 50 == 0:
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
async def serving(database: str, lie: str) -> AsyncIterator[tuple[Liar, int]]:
    """One that lies so, on a port."""
    async with asyncpg.create_pool(database, min_size=4, max_size=4) as pool:
        liar = Liar(pool, lie)
        app = web.Application()
        app.add_routes([web.post("/add", liar.add), web.get("/get/{id}", liar.get)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield liar, runner.addresses[0][1]
        finally:
            await runner.cleanup()


@pytest.fixture
def fast_stage(postgres: EmbeddedPostgres, test_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Drills are played on the PostgreSQL that tests share, which takes no time to start."""

    class Shared(EmbeddedPostgres):
        def dsn(self, user: str = "postgres", database: str = test_database) -> str:
            return postgres.dsn(user, database)

    @asynccontextmanager
    async def set_up(name: str, folder: Path, collector_port: int, *, is_quick: bool) -> AsyncIterator[Stage]:
        async with FaultProxy(0).running() as database, FaultProxy(0).running() as service:
            yield Stage(name, folder, is_quick, Shared(tmp_path), database, service, Ledger("drill"), collector_port)

    monkeypatch.setattr(drill, "set_up", set_up)
    monkeypatch.setattr(drill, "DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(callers, "_SETTLE_SECONDS", 1.5)


async def play(break_it: drill.Play, tmp_path: Path) -> Played:
    """A drill that nothing else knows."""
    chosen = Drill("ours", "what a test breaks", break_it, str)
    return await drill.run(chosen, tmp_path, 0, is_quick=True, tell=lambda *_: None)


@pytest.mark.usefixtures("fast_stage")
@pytest.mark.parametrize(
    ("lie", "broken"),
    [
        ("nothing", set()),
        ("refuses twice", set()),
        ("drops adds", {"lost", "stale"}),
        ("stores twice", {"doubled"}),
        ("changes amounts", {"lost", "strange", "stale"}),
        ("answers an old read", {"stale"}),
        ("forgets keys", {"doubled", "contradicted"}),
        ("is slow", {"longest wait for an answer"}),
        ("serves nobody", {"adds acknowledged"}),
    ],
)
async def test_a_service_that_lies_is_found_out(lie: str, broken: set[str], tmp_path: Path) -> None:
    """Once in 50 answers is enough; and one that does not lie passes, also where it refuses at first."""

    async def call(on: Stage) -> None:
        async with serving(on.postgres.dsn(), lie) as (_, on.to_service.target), on.calling(pause_seconds=0.01):
            await asyncio.sleep(0.7)

    played = await play(call, tmp_path)

    assert not played.error
    assert {claim.words for claim in played.claims if not claim.holds} == broken
    assert played.state == (State.FAILED if broken else State.PASSED)
    assert played.audit
    assert played.audit.acknowledged > 50 or lie == "serves nobody"


async def test_callers_try_again_with_the_same_key(postgres: EmbeddedPostgres, test_database: str) -> None:
    """Whoever is refused twice is acknowledged once, at the third try, under one key."""
    ledger, seen = Ledger("drill"), Timeline()
    async with (
        serving(postgres.dsn(database=test_database), "refuses twice") as (liar, port),
        Callers(f"http://127.0.0.1:{port}", ledger, seen, 4, pause_seconds=0.005).calling(),
    ):
        await asyncio.sleep(0.5)
    tries = list(liar.tries.values())

    assert len(tries) > 5
    assert all(len(set(keys)) == 1 and len(keys) >= 3 for keys in tries)
    assert len({keys[0] for keys in tries}) == len(tries) == ledger.audit([]).acknowledged
    assert seen.counts()["503"] == 2 * len(tries)


@pytest.mark.usefixtures("fast_stage")
async def test_an_exception_fails_a_drill_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its traceback is kept, with what was claimed before; a process that it forgot is ended, and held against it."""
    started: list[asyncio.subprocess.Process] = []

    async def forget(on: Stage) -> None:
        on.claim("so far", 1, most=1)
        started.append(await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE))
        raise RuntimeError("it did not come to that")

    played = await play(forget, tmp_path)
    (process,) = started
    await asyncio.wait_for(process.wait(), 5)

    assert played.state == State.FAILED
    assert played.error.endswith("RuntimeError: it did not come to that\n")
    assert [(claim.words, claim.found) for claim in played.claims] == [("so far", 1), ("processes left behind", 1)]
    assert not psutil.pid_exists(process.pid)


# --- The command line


@pytest.fixture
def our_drills(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one of each end, instead of all that there are."""

    async def black_hole(on: Stage) -> None:
        async with on.served(DB_STATEMENT_SECONDS="0.3"), on.calling():
            await asyncio.sleep(0.5)
            on.timeline.mark("black hole")
            on.to_database.black_hole()
            await asyncio.sleep(1.5)
            back = on.timeline.mark("healed")
            on.to_database.heal()
            await asyncio.sleep(1)
        on.claim("served again", on.timeline.served_again_after(back), most=2, unit="s")
        on.claim_least("refused meanwhile", on.timeline.count(REFUSED), least=1)

    async def fail(on: Stage) -> None:
        async with on.served(), on.calling():
            raise RuntimeError("it did not come to that")

    async def skip(_: Stage) -> None:
        raise AssertionError

    for each in (
        Drill("small-hole", "the database's network, for a moment", black_hole, str),
        Drill("small-failure", "itself", fail, str),
        Drill("small-lack", "nothing", skip, lambda: "there is no such thing as <this> here"),
    ):
        monkeypatch.setitem(DRILLS, each.name, each)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The command line, in this process, which keeps its own way of ending."""
    monkeypatch.setattr(sys, "argv", ["drills", *words])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return command.main()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("our_drills")
def test_a_run_from_end_to_end(
    monkeypatch: pytest.MonkeyPatch, short_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One passes, one fails and stops no other, one is skipped; terminal, results and page say so."""
    before = psutil.Process().children(recursive=True)
    status = run(monkeypatch, "small-failure", "small-lack", "small-hole", "--quick", "--output", str(short_folder))
    said = capsys.readouterr().err
    (folder,) = short_folder.iterdir()
    page, results = (folder / "report.html").read_text(), report.load(folder)
    failed, _, passed = results.drills

    assert status == 1
    assert said.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert "RuntimeError: it did not come to that" in said
    assert re.search(r"^     \d s  black hole\n     \d s  healed$", said, re.MULTILINE)
    assert "holds" not in said
    assert set(psutil.Process().children(recursive=True)) <= set(before)

    assert [each["state"] for each in results.drills] == ["failed", "skipped", "passed"]
    assert failed["error"].endswith("RuntimeError: it did not come to that\n")
    assert {outcome["kind"] for outcome in passed["outcomes"]} == {"served", "refused"}
    assert sum(passed["over_time"]["served"]) == passed["kinds"]["served"] > 50
    assert 1 < passed["without_service_seconds"] < 5

    assert "1 of 2 drills failed: small-failure. 1 could not be played on this machine." in page
    assert "there is no such thing as &lt;this&gt; here" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href|srcset)="(?!data:|#)', page)
    assert page.count("<picture>") == 1
    results.draw(short_folder)
    assert (short_folder / "report.html").read_text() == page


def test_what_is_missing_of_a_run_is_said(tmp_path: Path) -> None:
    """Cut short is no success, and a claim that never came true is told as that."""
    seen = Timeline(SEEN)
    played = Played("one", "a thing", timeline=seen, claims=[stage.Claim("served again", float("inf"), 1, "s")])
    cut_short = report.Report({"chosen": 3}, {}, [played.summary()])
    cut_short.save(tmp_path)
    whole = report.Report({"chosen": 1}, {}, [Played("one", "a thing").summary()])

    assert cut_short.verdict == "Cut short after 1 of 3 drills. 1 of 1 drill failed: one."
    assert not cut_short.passed
    assert report.load(tmp_path) == cut_short
    assert "BROKEN  served again: never (at most 1 s)" in list(report.told(cut_short.drills[0], is_verbose=False))
    assert whole.verdict == "All that is claimed holds: 1 drill passed."
    assert whole.passed


def test_only_drills_that_there_are_can_be_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another name is refused, with those that there are."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "database-bored")

    assert ended.value.code == 2
    assert "there is no drill database-bored; there is database-killed" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_finds_all_ended_and_the_report(how: signal.Signals, short_folder: Path) -> None:
    """Service, PostgreSQL and collector are gone with it, and what was played until then is told."""
    words = [sys.executable, "-m", "ops.drills", "database-black-hole", "--output", str(short_folder)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "black hole" not in process.stderr.readline():
            assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        said = process.stderr.read()
    (page,) = short_folder.glob("*/report.html")

    assert process.returncode == 130
    assert f"Report  {page}\n0 passed, 0 failed, 0 skipped\n" in said
    assert ">Cut short after 0 of 1 drill.<" in page.read_text()
    assert len(started) > 5
    assert not [each for each in started if each.is_running()]


# --- docs/resilience.md

DOCUMENTED: Final = set(
    re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "resilience.md").read_text(encoding="utf-8"), re.MULTILINE)
)


def test_every_drill_is_documented_and_no_other() -> None:
    """Each has its row."""
    assert set(DRILLS) == DOCUMENTED
