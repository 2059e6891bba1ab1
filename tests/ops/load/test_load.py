"""Load tests send what is due, tell what they saw, and load nobody who did not ask for it."""

import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from ops.common.process import ROOT, Service
from ops.load import arrivals, compare, measured, report, target, verdict
from ops.load.measured import Measured, Second
from ops.load.scenarios import SCENARIOS
from svc.http.access import digest
from tests.conftest import Owner
from tests.svc.logs import lines
from tests.svc.telemetry import otlp

LATER_MS = 200  # no answer of a healthy service takes so long


@dataclass(frozen=True)
class Done:
    """A run that has ended."""

    status: int
    said: str
    folder: Path

    @property
    def measured(self) -> Measured:
        return measured.load(self.folder)


class Run:
    """`python -m ops.load`, in a process of its own: Locust patches all of the one that it is in."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self._output = output

    async def done(self) -> Done:
        _, said = await asyncio.wait_for(self.process.communicate(), 40)
        assert self.process.returncode is not None
        folder = next(self._output.glob("*"), self._output)
        return Done(self.process.returncode, said.decode(), folder)


async def start(tmp_path: Path, *words: str) -> Run:
    output = tmp_path / f"results-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "ops.load", *words, "--output", str(output)]
    return Run(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE), output)


@asynccontextmanager
async def locking(owner: Owner, *, seconds: float) -> AsyncIterator[None]:
    """Meanwhile, the table is locked for so long, set free for a moment, and locked again."""

    async def lock() -> None:
        while True:
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients IN ACCESS EXCLUSIVE MODE")
                await asyncio.sleep(seconds)

    locked = asyncio.create_task(lock())
    yield
    locked.cancel()
    await asyncio.gather(locked, return_exceptions=True)


async def load(tmp_path: Path, *words: str) -> Done:
    return await (await start(tmp_path, *words)).done()


async def test_a_run_from_end_to_end(
    serve: Callable[..., Service], owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A healthy service passes, if it wants a key too; results and page have what was seen; traces and lines tell."""
    monkeypatch.setenv("API_KEY", "a-key")
    with otlp.collecting("http/protobuf") as collector:
        service = serve(
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
            API_KEY_HASHES=digest("a-key").hex(),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_TRACES_SAMPLER="always_on",
        )
        done = await load(tmp_path, "mixed", "--host", service.url, "--rate", "150", "--duration", "3")
        service.stop()
    results, page = json.loads((done.folder / "results.json").read_text()), (done.folder / "report.html").read_text()
    requests = sum(second.requests for second in done.measured.seconds)
    run = results["run"]["id"]
    told = [line for line in lines.requests(service.output) if line["request_id"].startswith(f"load-{run}-")]
    agents = Counter(otlp.attributes(span.attributes).get("user_agent.original") for span in collector.spans)
    added = Counter(line["route"] for line in told)["/add"]
    removed = await owner.fetch(f"{report.statement(done.measured)} RETURNING id")

    assert done.status == 0, done.said
    assert "All objectives are met." in done.said
    assert results["verdict"]["passed"]
    assert 350 < requests < 550
    assert len(told) == requests + 20 == agents[f"clients-api-load/{run}"]
    assert {"get", "add"} <= set(done.measured.seconds[1].latency)
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)
    assert page.count("<picture>") == 5
    assert "All objectives are met." in page
    assert report.statement(done.measured) in page.replace("&#39;", "'")
    assert len(removed) == added > 20
    assert await owner.fetchval("SELECT count(*) FROM clients") == 4


async def test_several_processes_share_the_rate(serve: Callable[..., Service], tmp_path: Path) -> None:
    """Two of them send as much as one would, and add under keys of their own."""
    words = ["write", "--host", serve().url, "--rate", "100", "--duration", "2", "--processes", "2"]
    done = await load(tmp_path, *words)

    assert done.status == 0, done.said
    assert done.measured.run["sources"] == 2
    assert 150 < sum(second.requests for second in done.measured.seconds) < 250


class Stub:
    """Answers as the service would, with nothing behind it.

    Attributes:
        url: where it is.
        asked: how many requests it had.
        stalls_at: the request at which it does nothing at all for a second.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.stalls_at = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.asked == self.stalls_at:
            time.sleep(1)  # noqa: ASYNC251 - that is the point
        return web.json_response({"id": 1}, status=201 if request.method == "POST" else 200)


@pytest.fixture
async def stub(aiohttp_server: Callable[[web.Application], Awaitable[TestServer]]) -> Stub:
    made, application = Stub(), web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    made.url = f"http://127.0.0.1:{(await aiohttp_server(application)).port}"
    return made


async def test_a_stall_cannot_hide_who_waited(stub: Stub, tmp_path: Path) -> None:
    """While the server stalls, as many requests are due as ever, and each is as late as its turn made it."""
    stub.stalls_at = 100
    done = await load(tmp_path, "browse", "--host", stub.url, "--rate", "100", "--duration", "3")
    seconds = done.measured.seconds
    late = sum(
        count
        for second in seconds
        for histogram in second.latency.values()
        for place, count in histogram.items()
        if measured.in_ms(place) > LATER_MS
    )

    # Of 100 a second, those waited for more than 0.2 s that were due in the first 0.8 s of the stall. Who asks again
    # only once they are answered would have seen a single one.
    assert 50 < late < 120
    assert min(second.sent for second in seconds) > 60
    assert done.status == 1
    assert "MISSED  get p99" in done.said
    assert verdict.judge(done.measured).limits == []


async def asked(stub: Stub, times: int) -> None:
    """Waits until the stub was."""
    async with asyncio.timeout(20):
        while stub.asked < times:  # noqa: ASYNC110 - as simple as an event
            await asyncio.sleep(0.01)


async def test_a_generator_that_cannot_keep_up_blames_itself(stub: Stub, tmp_path: Path) -> None:
    """What is late since the generator had no time for it is no fault of the service's."""
    run = await start(tmp_path, "browse", "--host", stub.url, "--rate", "100", "--duration", "3")
    await asked(stub, 100)
    run.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    run.process.send_signal(signal.SIGCONT)
    done = await run.done()

    assert done.status == 1
    assert "No verdict on the service: the generator is the limit." in done.said
    assert "The service misses" not in done.said


async def test_a_run_that_is_cut_short_is_no_success(stub: Stub, tmp_path: Path) -> None:
    """Ctrl-C ends it with what was seen until then, and with no verdict."""
    run = await start(tmp_path, "browse", "--host", stub.url, "--rate", "100", "--duration", "30")
    await asked(stub, 250)
    run.process.send_signal(signal.SIGINT)
    done = await run.done()

    assert done.status == 1
    assert "No verdict on the service: the run was cut short." in done.said
    assert sum(second.requests for second in done.measured.seconds) > 50


async def test_two_runs_of_the_same_show_no_change_and_a_slower_one_does(
    serve: Callable[..., Service],
    owner: Owner,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs at the same time are alike; one while the table is locked again and again is slower, and misses."""
    words = ["browse", "--host", serve().url, "--rate", "100", "--duration", "4"]
    runs = [await start(tmp_path, *words) for _ in range(2)]
    one, other = [await run.done() for run in runs]
    async with locking(owner, seconds=0.05):
        slower = await load(tmp_path, *words)

    def compared(before: Done, after: Done) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["compare", str(before.folder), str(after.folder)])
        return compare.main(), capsys.readouterr().out

    status, said = compared(one, other)
    assert (status, set(re.findall(r"^(.*?)  ", said, re.MULTILINE)[1:])) == (0, {"no change"}), said
    status, said = compared(one, slower)
    assert status == 1
    assert re.search(r"^slower +get p50", said, re.MULTILINE), said
    status, said = compared(slower, one)
    assert status == 0
    assert re.search(r"^faster +get p50", said, re.MULTILINE), said
    assert slower.status == 1
    assert "MISSED  get p50" in slower.said


async def test_a_locked_table_fails_the_run(serve: Callable[..., Service], owner: Owner, tmp_path: Path) -> None:
    """Requests that the service gives up count as failed, by what it answered, and the verdict says so."""
    url = serve(DB_STATEMENT_SECONDS="0.5", DB_ACQUIRE_SECONDS="0.5").url
    run = await start(tmp_path, "mixed", "--host", url, "--rate", "50", "--duration", "3")
    async with asyncio.timeout(20):
        while await owner.fetchval("SELECT count(*) FROM clients") < 4 + 20:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)
    async with locking(owner, seconds=1.5):
        done = await run.done()

    assert done.status == 1
    assert re.search(r"MISSED  availability +[0-9.]+ %, at least 99.9 %", done.said), done.said
    assert re.search(r"failed  get: status 50[34], ", done.said), done.said
    assert "The service misses its objectives." in done.said


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listens on this machine, and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize(
    "module",
    [["ops.load", "mixed"], ["locust", "-f", "ops/load/locustfile.py", "--headless"]],
    ids=["ours", "Locust's"],
)
def test_no_other_machine_is_loaded(module: list[str], listener: socket.socket, tmp_path: Path) -> None:
    """A name may lead anywhere: our command line and Locust's refuse it, and make no connection."""
    url = f"http://localhost:{listener.getsockname()[1]}"
    words = [sys.executable, "-m", *module, "--host", url, "--output", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert "is not an address of loopback" in done.stderr
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8080",
        "http://[2001:db8::1]",
        "https://flask.olimac.link",
        "http://127.0.0.1.example",
        "http://127.0.0.1@192.0.2.1",
        "nonsense",
        "ftp://127.0.0.1",
    ],
)
def test_only_loopback_is_loaded_unasked(url: str) -> None:
    """All else is refused."""
    with pytest.raises(target.Refused):
        target.check(url, is_owned=False)


def test_who_owns_a_host_may_load_it() -> None:
    """The word of who asks for it is taken, if it is a URL at all."""
    target.check("https://flask.olimac.link", is_owned=True)
    target.check("http://[::1]:8080", is_owned=False)
    with pytest.raises(target.Refused):
        target.check("nonsense", is_owned=True)


def test_the_command_line_tells_its_scenarios() -> None:
    """--help says what each stands for, and leaves Locust out of it."""
    words = [sys.executable, "-m", "ops.load", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    told = " ".join(done.stdout.split())

    assert all(f"{name}: {scenario.means}" in told for name, scenario in SCENARIOS.items())


async def test_a_service_that_is_away_is_said(tmp_path: Path, unused_tcp_port: int) -> None:
    """Where nobody listens there is nothing to judge."""
    done = await load(tmp_path, "mixed", "--host", f"http://127.0.0.1:{unused_tcp_port}")

    assert done.status == 2
    assert "error: no answer: ConnectionRefusedError" in done.said


@pytest.mark.parametrize(
    ("shape", "shares"),
    [
        (arrivals.steady, [0.2, 0.2, 0.2, 0.2, 0.2]),
        (arrivals.ramp, [0.19, 0.37, 0.55, 0.73, 0.91]),
        (arrivals.spike, [0.25, 0.25, 1, 0.25, 0.25]),
    ],
    ids=["steady", "ramp", "spike"],
)
def test_requests_are_due_as_the_shape_says(shape: arrivals.Shape, shares: list[float]) -> None:
    """Each fifth of a run has its share of the requests, in order, and none is due beyond the end."""
    due = list(arrivals.due_times(1000, 50, shape, random.Random(1)))
    fifths = Counter(int(time // 10) for time in due)

    assert due == sorted(due)
    assert due[-1] < 50
    for fifth, share in enumerate(shares):
        assert fifths[fifth] / len(due) == pytest.approx(share / sum(shares), rel=0.05)


def test_sources_add_up_to_the_rate() -> None:
    """Four sources of a quarter each send as much as one, and no two the same."""
    sources = [list(arrivals.due_times(250, 20, arrivals.steady, random.Random(seed))) for seed in range(4)]

    assert sum(map(len, sources)) == pytest.approx(20_000, rel=0.05)
    assert len({due for source in sources for due in source}) == sum(map(len, sources))


@pytest.mark.parametrize("milliseconds", [0.02, 0.5, 1, 12.3, 999, 10_000])
def test_a_histogram_is_off_by_one_per_cent_at_most(milliseconds: float) -> None:
    """What is read from it is what was put in."""
    histogram = Counter([measured.bucket(milliseconds)])

    assert measured.percentile(histogram, 99) == pytest.approx(milliseconds, rel=0.01)
    assert measured.percentile({}, 99) is None


def made(
    *, latency_ms: float = 2, failed: int = 0, late_ms: float = 0.1, cpu: float = 0.3, unfinished: int = 0
) -> Measured:
    """Ten seconds of 1000 gets each."""
    found = Measured({"id": "made", "scenario": "browse", "rate": 1000.0, "unfinished": unfinished})
    for _ in range(10):
        second = Second(late=Counter({measured.bucket(late_ms): 1000}), cpu=cpu)
        second.latency["get"] = Counter({measured.bucket(latency_ms): 1000 - failed})
        second.failures["get"] = Counter({"status 503": failed})
        found.seconds.append(second)
    return found


@pytest.mark.parametrize(
    ("run", "passed"),
    [
        (made(), True),
        (made(latency_ms=9.8), True),
        (made(latency_ms=10.3), False),
        (made(failed=1), True),
        (made(failed=2), False),
        (made(failed=1000), False),
        (made(late_ms=12), False),
        (made(cpu=0.95), False),
        (made(unfinished=1), False),
        (Measured({}), False),
    ],
)
def test_the_verdict_turns_at_the_objective(run: Measured, passed: bool) -> None:
    """On either side of each bound; and where nothing was seen, nothing is met."""
    assert verdict.judge(run).passed is passed


def test_no_objective_is_weaker_than_what_calls_someone() -> None:
    """What passes here keeps to what callers are promised."""
    alarms = yaml.safe_load((ROOT / "ops/cloudwatch/alarms.yaml").read_text())
    promised = {objective["name"]: objective for objective in alarms["objectives"]}

    assert verdict.OBJECTIVES["availability"]["percent"] >= promised["availability"]["percent"]
    assert promised["latency"]["percent"] == 99
    assert promised["latency"]["metrics"]["within"]["statistic"] == "PR(:100)"
    assert all(wanted["p99"] <= 100 for wanted in verdict.OBJECTIVES["latency_ms"].values())


@pytest.mark.parametrize("other", [made(cpu=0.95), made(unfinished=1), Measured({"scenario": "write", "rate": 1000.0})])
def test_what_is_not_alike_is_not_compared(other: Measured) -> None:
    """Another load, or one that the generator could not send, says nothing of the service."""
    with pytest.raises(compare.Incomparable):
        compare.compare(made(), other)


def test_more_failures_are_a_change() -> None:
    """One in a hundred more is worse, and the other way round it is not."""
    assert [change.words for change in compare.compare(made(), made(failed=10))][-1] == "more failures"
    assert [change.words for change in compare.compare(made(failed=10), made())][-1] == "fewer failures"


def test_locust_stays_out_of_this_process() -> None:
    """It would patch sockets and threads for all tests."""
    assert not {"locust", "gevent"} & set(sys.modules)
