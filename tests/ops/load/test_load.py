"""Load tests send requests on schedule, report what they measured, and load only services that they may."""

import asyncio
import json
import math
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ops.common.process import ROOT
from ops.load import arrivals, compare, measurements, report, target, verdict
from ops.load.measurements import Measurements, Second
from ops.load.scenarios import SCENARIOS
from ops.load.verdict import Result
from svc.http.access import digest
from tests.conftest import Owner
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.telemetry import otlp

PREPARED = 20  # clients that a run adds before it starts
STATUSES = {Result.MET: 0, Result.MISSED: 1, Result.UNKNOWN: 3}


@dataclass(frozen=True)
class Done:
    """A run that has ended."""

    status: int
    output: str
    folder: Path

    @property
    def measurements(self) -> Measurements:
        return measurements.load(self.folder)


class Run:
    """`python -m ops.load` in a separate process, because Locust patches the whole process that it runs in."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        self._results = tmp_path / "results"
        self._log = tmp_path / "log"
        command = [sys.executable, "-m", "ops.load", *arguments, "--output", str(self._results)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log)

    async def printed(self, pattern: str) -> None:
        """Waits until the run has printed this."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not re.search(pattern, self._log.read_text(), re.MULTILINE):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.02)

    async def done(self) -> Done:
        status = await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)
        return Done(status, self._log.read_text(), next(self._results.glob("*"), self._results))

    def end(self) -> None:
        """Kills what still runs."""
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()


@pytest.fixture(name="start_load")
def make_start_load(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts load tests, each of which ends with the test."""
    runs: list[Run] = []

    def start(*arguments: str) -> Run:
        runs.append(Run(tmp_path, *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


async def test_a_run_from_end_to_end(
    serve: Callable[..., Service], owner: Owner, start_load: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share the rate and send the API key. Results, page, log lines and traces all have each request."""
    monkeypatch.setenv("API_KEY", "a-key")
    with otlp.collecting("http/protobuf") as collector:
        service = serve(
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
            API_KEY_HASHES=digest("a-key").hex(),
            **collector.variables,
            LOG_LINES_PER_SECOND="0",
            OTEL_TRACES_SAMPLER="always_on",
            TRACES_PER_SECOND="0",
        )
        load = ("--rate", "100", "--duration", "2", "--processes", "2")
        done = await start_load("mixed", "--host", service.url, *load).done()
        sent = sum(second.requests for second in done.measurements.seconds) + 2 * PREPARED
        await wait_until(lambda: len(served_spans(collector)) >= sent)
        service.stop()
    results, page = json.loads((done.folder / "results.json").read_text()), (done.folder / "report.html").read_text()
    found = verdict.evaluate(done.measurements)
    requests = sum(second.requests for second in done.measurements.seconds)
    run = results["run"]["id"]
    logged = [line for line in lines.requests(service.output) if line["request_id"].startswith(f"load-{run}-")]
    sources = {line["request_id"].removeprefix(f"load-{run}-").partition("-")[0] for line in logged}
    agents = Counter(otlp.attributes(span.attributes).get("user_agent.original") for span in served_spans(collector))
    added = Counter(line["route"] for line in logged)["/add"]
    removed = await owner.fetch(f"{report.statement(done.measurements)} RETURNING id")

    # How fast the service and the generator are depends on the machine, so any verdict will do.
    assert done.status == STATUSES[found.result], done.output
    assert found.sentence in done.output
    assert results["verdict"]["result"] == found.result
    assert found.failures == {}
    assert 0 < requests < 280
    assert len(logged) == sent == agents[f"clients-api-load/{run}"]
    assert len(sources) == results["run"]["sources"] == 2
    assert all(measurements.total(done.measurements.seconds, endpoint) for endpoint in ("get", "add"))
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)
    assert page.count("<picture>") == 6
    assert found.sentence in page
    assert report.statement(done.measurements) in page.replace("&#39;", "'")
    assert len(removed) == added - PREPARED > PREPARED
    assert await owner.fetchval("SELECT count(*) FROM clients") == 4


def served_spans(collector: otlp.Collector) -> list[Span]:
    """The spans of requests, without those of batches."""
    return [span for span in list(collector.spans) if span.kind == Span.SPAN_KIND_SERVER]


class FakeService:
    """Answers as the service would, without a database.

    Attributes:
        url: its address.
        requests: the number of requests so far.
        stalls_at: the number of the request at which it stalls for a second.
        fails_from: the number of the first request that gets a 503.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.stalls_at = sys.maxsize
        self.fails_from = sys.maxsize

    async def respond(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.requests == self.stalls_at:
            time.sleep(1)  # noqa: ASYNC251 - blocks all requests on purpose
        if self.requests >= self.fails_from:
            return web.Response(status=503)
        return web.json_response({"id": 1}, status=201 if request.method == "POST" else 200)


@pytest.fixture
async def fake(aiohttp_server: Callable[[web.Application], Awaitable[TestServer]]) -> FakeService:
    service, application = FakeService(), web.Application()
    application.router.add_route("*", "/{path:.*}", service.respond)
    service.url = f"http://127.0.0.1:{(await aiohttp_server(application)).port}"
    return service


async def test_a_stall_delays_all_requests_scheduled_in_it_and_failures_are_counted(
    fake: FakeService, start_load: Callable[..., Run]
) -> None:
    """Requests scheduled during a stall count as slow, those with another status as failed."""
    fake.stalls_at = PREPARED + 130
    fake.fails_from = PREPARED + 700
    done = await start_load("browse", "--host", fake.url, "--rate", "450", "--duration", "5").done()
    slow = sum(
        count
        for second in done.measurements.seconds
        for histogram in second.latency.values()
        for place, count in histogram.items()
        if measurements.in_ms(place) > 200
    )

    # At 450/s, some 360 requests are scheduled in the first 0.8 s of the stall. A closed loop would see a single one.
    assert slow > 200
    assert done.status == 1
    # On a busy machine the generator is late too, which excuses the latency, but not the wrong responses.
    found = {objective.what: objective for objective in verdict.evaluate(done.measurements).objectives}
    assert not found["get p99"].shortage
    assert found["get p99"].result is (Result.UNKNOWN if found["get p99"].excuse else Result.MISSED)
    assert re.search(r"^MISSED +availability +[0-9.]+ % +at least 99.9 %", done.output, re.MULTILINE), done.output
    assert re.search(r"^failed  get: status 503, [0-9,]+ times$", done.output, re.MULTILINE), done.output


async def test_an_interrupted_run_and_a_stopped_generator_give_no_verdict(
    fake: FakeService, start_load: Callable[..., Run]
) -> None:
    """Ctrl-C ends a run with what it measured until then. Requests that the generator sent late are blamed on it."""
    run = start_load("browse", "--host", fake.url, "--rate", "100", "--duration", "600")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while fake.requests < PREPARED + 10:  # noqa: ASYNC110 - as simple as an event
            await asyncio.sleep(0.01)
    run.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    run.process.send_signal(signal.SIGCONT)
    await run.printed(r"^ +1 s  [0-9]+ sent, p50 ")
    run.process.send_signal(signal.SIGINT)
    done = await run.done()

    assert done.status == 3
    assert "No verdict on the service: the run was cut short." in done.output
    assert re.search(r"^1 % of the requests were sent [0-9,]+ ms late or later", done.output, re.MULTILINE), done.output
    assert sum(second.requests for second in done.measurements.seconds) > 0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listens on this machine, and accepts no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [["ops.load", "mixed"], ["locust", "-f", "ops/load/locustfile.py", "--headless"]],
    ids=["ops.load", "locust"],
)
def test_a_host_name_is_refused_without_a_connection(
    module: list[str], listener: socket.socket, tmp_path: Path
) -> None:
    """A name may resolve to any address, so both command lines refuse it."""
    url = f"http://localhost:{listener.getsockname()[1]}"
    command = [sys.executable, "-m", *module, "--host", url, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)

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
def test_only_addresses_of_loopback_are_loaded_by_default(url: str) -> None:
    """All other hosts are refused."""
    with pytest.raises(target.Refused):
        target.check(url, is_owned=False)


def test_an_owned_host_may_be_loaded() -> None:
    """The user may confirm that they own a host; it still has to be a URL."""
    target.check("https://flask.olimac.link", is_owned=True)
    target.check("http://[::1]:8080", is_owned=False)
    with pytest.raises(target.Refused):
        target.check("nonsense", is_owned=True)


def test_help_describes_the_scenarios_and_exit_statuses() -> None:
    """--help has each scenario's description, and what each exit status means."""
    command = [sys.executable, "-m", "ops.load", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    text = " ".join(done.stdout.split())

    assert all(f"{name}: {scenario.description}" in text for name, scenario in SCENARIOS.items())
    assert "1 if the service misses one" in text
    assert "3 if there is no verdict, because the load generator could not keep up or the run was cut short" in text


async def test_a_service_that_is_down_is_an_error(start_load: Callable[..., Run], unused_tcp_port: int) -> None:
    """A run whose first request is refused ends with the status 2."""
    done = await start_load("mixed", "--host", f"http://127.0.0.1:{unused_tcp_port}").done()

    assert done.status == 2
    assert "error: no response: ConnectionRefusedError" in done.output


async def test_a_run_without_measurements_is_an_error(listener: socket.socket, start_load: Callable[..., Run]) -> None:
    """Ctrl-C before the first response gives the status 2 and no report."""
    run = start_load("mixed", "--host", f"http://127.0.0.1:{listener.getsockname()[1]}")
    async with asyncio.timeout(PATIENCE_SECONDS):
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    with connection:
        run.process.send_signal(signal.SIGINT)
        done = await run.done()

    assert done.status == 2, done.output
    assert "error: the run was interrupted before it measured anything" in done.output
    assert not done.folder.exists()


@pytest.mark.parametrize(
    ("shape", "shares"),
    [
        (arrivals.steady, [0.2, 0.2, 0.2, 0.2, 0.2]),
        (arrivals.ramp, [0.19, 0.37, 0.55, 0.73, 0.91]),
        (arrivals.spike, [0.25, 0.25, 1, 0.25, 0.25]),
    ],
    ids=["steady", "ramp", "spike"],
)
def test_requests_are_scheduled_in_the_shape_of_the_scenario(shape: arrivals.Shape, shares: list[float]) -> None:
    """Each fifth of a run has its share of the requests, in order, and none is scheduled after the end."""
    times = list(arrivals.scheduled_times(1000, 50, shape, random.Random(1)))
    fifths = Counter(int(time // 10) for time in times)

    assert times == sorted(times)
    assert times[-1] < 50
    for fifth, share in enumerate(shares):
        assert fifths[fifth] / len(times) == pytest.approx(share / sum(shares), rel=0.05)


def test_sources_add_up_to_the_rate() -> None:
    """Four sources with a quarter of the rate each send as much as one, at different times."""
    sources = [list(arrivals.scheduled_times(250, 20, arrivals.steady, random.Random(seed))) for seed in range(4)]

    assert sum(map(len, sources)) == pytest.approx(20_000, rel=0.05)
    assert len({time for source in sources for time in source}) == sum(map(len, sources))


@pytest.mark.parametrize("milliseconds", [0.02, 0.5, 1, 12.3, 999, 10_000])
def test_percentiles_are_off_by_one_per_cent_at_most(milliseconds: float) -> None:
    """A percentile of a single latency is that latency, within 1 %; an empty histogram has none."""
    histogram = Counter([measurements.bucket(milliseconds)])

    assert measurements.percentile(histogram, 99) == pytest.approx(milliseconds, rel=0.01)
    assert measurements.percentile({}, 99) is None


def made(
    *,
    latency_ms: float = 2,
    failed: int = 0,
    reason: str = "status 503",
    late_ms: float = 0.1,
    cpu: float = 0.3,
    unfinished: int = 0,
    gets: int = 1000,
) -> Measurements:
    """Ten seconds with that many gets each."""
    parameters = {"id": "made", "scenario": "browse", "means": "gets", "rate": 1000.0, "duration": 10}
    run = Measurements({**parameters, "unfinished": unfinished})
    for _ in range(10):
        second = Second(late=Counter({measurements.bucket(late_ms): gets}), cpu=cpu)
        second.latency["get"] = Counter({measurements.bucket(latency_ms): gets - failed})
        second.failures["get"] = Counter({reason: failed} if failed else {})
        run.seconds.append(second)
    return run


@pytest.mark.parametrize(
    ("run", "result"),
    [
        (made(), Result.MET),
        (made(latency_ms=9.8), Result.MET),
        (made(latency_ms=10.3), Result.MISSED),
        (made(failed=1), Result.MET),
        (made(failed=2), Result.MISSED),
        (made(failed=1000), Result.MISSED),
        (made(late_ms=12), Result.UNKNOWN),
        (made(cpu=0.95), Result.UNKNOWN),
        (made(unfinished=1), Result.UNKNOWN),
        (Measurements({}), Result.UNKNOWN),
        # A late generator makes latencies longer and requests time out, but it does not change responses.
        (made(late_ms=12, latency_ms=200), Result.UNKNOWN),
        (made(late_ms=12, failed=2, reason=measurements.TIMED_OUT), Result.UNKNOWN),
        (made(failed=2, reason=measurements.TIMED_OUT), Result.MISSED),
        (made(late_ms=12, failed=2), Result.MISSED),
        (made(unfinished=1, latency_ms=200), Result.MISSED),
    ],
)
def test_a_run_passes_within_the_objectives_only(run: Measurements, result: Result) -> None:
    """Checks both sides of each bound. A missed objective counts before the reasons for having no verdict."""
    assert verdict.evaluate(run).result is result


@pytest.mark.parametrize(
    ("percent", "needed"), [(50, 10), (90, 50), (99, 500), (99.9, 5000)], ids=["p50", "p90", "p99", "p99.9"]
)
def test_a_percentile_needs_five_samples_beyond_it(percent: float, needed: int) -> None:
    """With one sample less there is no verdict."""
    assert measurements.samples_needed(percent) == needed
    assert verdict.shortage(needed, percent) == ""
    assert verdict.shortage(needed - 1, percent) == f"not enough samples ({needed - 1:,} of {needed:,})"


def test_too_few_samples_are_neither_met_nor_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A p99 of 490 samples has no verdict, however slow they are; one of 500 has. Terminal and page say so."""
    few, enough = made(gets=49, latency_ms=2), made(gets=50, latency_ms=2)
    for run in (few, enough):
        run.seconds[0].latency["get"] = Counter({measurements.bucket(900): 20})
    few.seconds[1].latency["get"][measurements.bucket(2)] += 29
    enough.seconds[1].latency["get"][measurements.bucket(2)] += 30
    found = verdict.evaluate(few)
    report.show(few, found)
    report.write(few, found, tmp_path / "report.html")
    printed, page = capsys.readouterr().err, (tmp_path / "report.html").read_text()

    assert [each.result for each in found.objectives] == [Result.MET, Result.MET, Result.UNKNOWN]
    assert found.result is Result.MET
    assert found.sentence == "All objectives with enough samples are met; 1 of 3 have too few."
    assert re.search(r"^no verdict +get p99 .* not enough samples \(490 of 500\)", printed, re.MULTILINE), printed
    assert re.search(r'class="result unknown">not enough samples \(490 of 500\)<', page)
    assert verdict.evaluate(enough).objectives[-1].result is Result.MISSED


def test_a_late_generator_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Terminal and page have the advice, and the page marks the verdict as neither good nor bad."""
    run = made(late_ms=12, latency_ms=200)
    found = verdict.evaluate(run)
    report.show(run, found)
    report.write(run, found, tmp_path / "report.html")
    printed, page = capsys.readouterr().err, (tmp_path / "report.html").read_text()

    assert "MISSED" not in printed
    assert verdict.ADVICE in printed
    assert verdict.ADVICE in page
    assert f'<p class="verdict unknown">{found.sentence}</p>' in page


def test_no_objective_is_weaker_than_those_of_the_alarms() -> None:
    """A service that passes here meets the objectives that callers are promised."""
    alarms = yaml.safe_load((ROOT / "ops/cloudwatch/alarms.yaml").read_text())
    promised = {objective["name"]: objective for objective in alarms["objectives"]}

    assert verdict.OBJECTIVES["availability"]["percent"] >= promised["availability"]["percent"]
    assert promised["latency"]["percent"] == 99
    assert promised["latency"]["metrics"]["within"]["statistic"] == "PR(:100)"
    assert all(bounds["p99"] <= 100 for bounds in verdict.OBJECTIVES["latency_ms"].values())


def save_sample(folder: Path, seed: int, slowdown: float) -> Path:
    """Saves a run of 30 s with random latencies, whose median is 2 ms (and 8 ms now and then) times the slowdown."""
    rng = random.Random(seed)
    run = Measurements({"id": folder.name, "scenario": "browse", "rate": 100.0})
    for number in range(30):
        median = slowdown * (8 if number % 10 == 9 else 2)  # as if a checkpoint slowed each tenth second
        places = [measurements.bucket(rng.lognormvariate(math.log(median), 0.5)) for _ in range(100)]
        run.seconds.append(Second({"get": Counter(places)}, late=Counter({measurements.bucket(0.1): 100}), cpu=0.3))
    folder.mkdir()
    run.save(folder / measurements.FILE)
    return folder


def test_a_slower_run_is_told_from_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two samples of the same latencies show no change; a third with four times the latency is slower than both."""
    one, other = save_sample(tmp_path / "one", 1, 1), save_sample(tmp_path / "other", 2, 1)
    slower = save_sample(tmp_path / "slower", 3, 4)

    def compared(before: Path, after: Path) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["compare", str(before), str(after)])
        status = compare.main()
        printed = capsys.readouterr().out
        return status, re.findall(r"^(.*?) +(?:get p50|get p99|failed) ", printed, re.MULTILINE), printed

    status, names, printed = compared(one, other)
    assert (status, names) == (0, ["no change", "no change", "no change"])
    assert re.search(
        r"get p50 .* 3,000; 3,000  between -[0-9.]+ and \+[0-9.]+ %; includes 0: no difference shown", printed
    )
    assert "difference, with 99 % confidence" in printed
    assert "comes from resampling the seconds of both runs 2,000 times" in printed

    status, names, printed = compared(one, slower)
    assert (status, names) == (1, ["slower", "slower", "no change"])
    assert re.search(r"get p50 .* between \+[0-9.]+ and \+[0-9.]+ %; beyond the margin of [0-9.]+ %", printed)

    assert compared(slower, one)[:2] == (0, ["faster", "faster", "no change"])


@pytest.mark.parametrize(
    "other", [made(cpu=0.95), made(unfinished=1), Measurements({"scenario": "write", "rate": 1000.0})]
)
def test_only_complete_runs_of_the_same_load_are_compared(other: Measurements) -> None:
    """A run with another load, and one that its generator could not send, are refused."""
    with pytest.raises(compare.NotComparable):
        compare.compare(made(), other)


def test_a_difference_within_the_margin_is_too_small_to_count() -> None:
    """Latencies that rise by 5 %, without any noise, exclude 0 and are still no change."""
    p50, *_ = compare.compare(made(latency_ms=100), made(latency_ms=105))

    assert p50.name == "no change"
    assert re.fullmatch(
        r"between (\+[0-9.]+) and \1 %; not wholly beyond the margin of 10 %: too small to count", p50.words
    )


def test_a_percentile_of_too_few_samples_is_not_compared() -> None:
    """However much slower it is: the p99 of 490 requests of one run has no verdict, the p50 has."""
    changes = {change.what: change for change in compare.compare(made(), made(latency_ms=50, gets=49))}

    assert changes["get p50"].name == "slower"
    assert changes["get p99"].name == "no verdict"
    assert changes["get p99"].words == "not enough samples (490 of 500)"
    assert not changes["get p99"].is_worse


def test_more_failures_are_a_change() -> None:
    """1 % more failures are worse, 1 % fewer are better."""
    assert [change.name for change in compare.compare(made(), made(failed=10))][-1] == "more failures"
    assert [change.name for change in compare.compare(made(failed=10), made())][-1] == "fewer failures"


def test_locust_is_not_imported_in_this_process() -> None:
    """It would patch sockets and threads for all tests."""
    assert not {"locust", "gevent"} & set(sys.modules)
