"""The benchmark compares services that respond alike, on this machine only. No test depends on how fast they are."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ops.bench import __main__ as bench
from ops.bench import contenders, dollars, measure, postgres, report, results, wrk
from ops.bench.contenders import CannotRun, Contender
from ops.bench.measure import Entry, Turn
from ops.common import cpu
from ops.common.collector import Collector
from ops.common.process import ROOT
from tests.missing import missing

pytestmark = pytest.mark.slow

ROWS = 50


@pytest.fixture(scope="module", name="bench_folder")
def make_bench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def database(bench_folder: Path) -> Iterator[postgres.Database]:
    with postgres.started(bench_folder) as server:
        yield server.database(ROWS)


@pytest.mark.parametrize(
    "contender", [contenders.OURS, bench.with_workers(2), *contenders.PEERS], ids=lambda contender: contender.name
)
def test_each_contender_implements_the_api(
    contender: Contender, database: postgres.Database, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lists, adds and gets clients, and its process has ended afterwards."""
    for option, value in (("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16")):
        monkeypatch.setenv(f"CARGO_PROFILE_RELEASE_{option}", value)  # an optimised build takes a minute of CPU
    try:
        with contenders.started(contender, database.environment, bench_folder) as service:
            process = psutil.Process(service.pid)
            measure.check(service.url, Entry(contender, ROWS))
    except CannotRun as error:
        missing(str(error))
    finally:
        database.restore()

    assert not process.is_running()


async def test_the_go_peer_with_telemetry_has_what_it_is_measured_for(
    database: postgres.Database, bench_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request has a line and counts in the histogram. Spans of 5 % of the traces arrive at a collector.

    Those of a trace that the caller records always do.
    """
    lines = bench_folder / "lines"
    monkeypatch.setattr(contenders, "_reader", lambda: _file(lines))
    (peer,) = [contender for contender in contenders.PEERS if contender.name == "go-pgx-telemetry"]
    recorded, others = 10, 400

    def use(port: int) -> str:
        """Sends requests, and returns the page of metrics."""
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        instead = replace(peer, environment=export, exports_traces=False)
        with contenders.started(instead, database.environment, bench_folder) as service:
            for number in range(recorded + others):
                headers = {"traceparent": f"00-{number + 1:032x}-{1:016x}-01"} if number < recorded else {}
                with urllib.request.urlopen(urllib.request.Request(f"{service.url}/get/2", headers=headers)):
                    pass
            with urllib.request.urlopen(f"{service.url}/metrics") as response:
                return str(response.read(), "utf-8")

    async with Collector().running() as collector:
        try:
            page = await asyncio.to_thread(use, collector.port)
        except CannotRun as error:
            missing(str(error))

    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["path"] for line in written].count("/get/2") == recorded + others
    assert {line["status"] for line in written} == {200}
    assert f'_count{{route="/get/{{id}}",status="200"}} {len(written)}' in page
    assert {f"{number + 1:032x}" for number in range(recorded)} <= {trace.hex() for trace in collector.traces}
    assert recorded < len(collector.traces) < recorded + 100  # 20 are expected
    assert collector.requests == len(collector.traces)
    assert collector.spans == 2 * collector.requests  # and one of a query
    assert collector.backwards == 0
    assert not (bench_folder / f"{peer.name}.log").read_text()  # where a failed export would be


@contextlib.contextmanager
def _file(path: Path) -> Iterator[int]:
    with path.open("wb") as file:
        yield file.fileno()


@pytest.mark.parametrize("floor", contenders.FLOORS, ids=lambda floor: floor.name)
def test_a_wrong_response_is_refused(floor: Contender, database: postgres.Database, bench_folder: Path) -> None:
    """A floor starts, but its fixed response is not that of the API."""
    with (
        contenders.started(floor, database.environment, bench_folder) as service,
        pytest.raises(measure.WrongResponse, match=floor.name),
    ):
        measure.check(service.url, Entry(floor, ROWS))


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8080",
        "http://[2001:db8::1]:8080",
        "http://flask.olimac.link",
        "http://localhost:8080",  # a name, which may lead anywhere
        "http://127.0.0.1.example:8080",
        "http://127.0.0.1@192.0.2.1:8080",
        "nonsense",
    ],
)
def test_no_other_machine_is_loaded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL whose host is not a loopback address is refused before wrk is started."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("wrk was started"))

    with pytest.raises(wrk.WrkError, match="loopback"):
        wrk.run(url, "get", 1, connections=1, seconds=1)


def test_cpu_time_counts_children_that_have_ended() -> None:
    """The CPU time of a child that has ended counts as that of its parent, which waited for it."""
    burn = "import time\nwhile time.process_time() < 0.55: pass"  # CPU time is counted in ticks of 10 ms, rounded down
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()

        assert cpu.seconds(process.pid) >= 0.5
    finally:
        process.communicate(b"\n", timeout=30)


def turn(contender: str, number: int, cpu_us: float, *, workload: str = "get", connections: int = 64) -> Turn:
    return Turn(contender, 10_000, workload, connections, number, 1000, 0, 500.0, 1.0, 2.0, cpu_us - 1, 1.0)


def test_ratios_are_of_turns_of_the_same_round() -> None:
    """Turns of one round are compared with each other, so that what slows a round slows both."""
    ours = [turn("clients-api", 1, 10), turn("clients-api", 2, 30), turn("clients-api", 3, 11)]
    theirs = [turn("aiohttp", 1, 100), turn("aiohttp", 2, 100), turn("aiohttp", 3, 100), turn("aiohttp", 4, 1)]

    assert results.ratio(ours, theirs, results.cpu_us) == results.Spread(0.11, 0.1, 0.3)
    assert results.ratio(ours, [], results.cpu_us) is None


def test_a_goal_is_missed_if_the_median_ratio_is_above_it() -> None:
    """A goal of 0.18 is met at 0.18 and missed above it."""
    theirs = [turn("aiohttp", number, 100) for number in (1, 2, 3)]
    met = [turn("clients-api", number, cost) for number, cost in enumerate((17, 18, 40), 1)]
    missed = [turn("clients-api", number, cost) for number, cost in enumerate((17, 18.1, 40), 1)]

    def meets_cpu_goal(turns: list[Turn]) -> bool:
        (found,) = [verdict.met for verdict in results.verdicts(turns) if verdict.goal.figure is results.cpu_us]
        return found

    assert meets_cpu_goal([*met, *theirs])
    assert not meets_cpu_goal([*missed, *theirs])


def test_dollars_have_cpu_and_telemetry_apart() -> None:
    """CPU costs in proportion to its time. Telemetry has a price where a contender has any."""
    with_telemetry = [contender.name for contender in contenders.PEERS if contender.telemetry]

    assert dollars.cpu(200) == pytest.approx(2 * dollars.cpu(100))
    assert [
        each.name for each in (contenders.OURS, *contenders.PEERS) if dollars.telemetry(each.name)
    ] == with_telemetry
    assert dollars.shown("flask", 100)[1] == "-"
    assert float(dollars.shown("aiohttp-telemetry", 644)[1]) > dollars.cpu(644)


def test_quick_runs_are_short_and_other_options_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """--quick changes only defaults, in any order of the options."""

    def plan(*options: str) -> tuple[list[str], list[str], int]:
        monkeypatch.setattr(sys, "argv", ["bench", *options])
        arguments = bench.parse_arguments()
        return arguments.peers, arguments.parts, arguments.rounds

    assert plan("--quick") == (["clients-api-telemetry", "aiohttp", "go-pgx"], ["comparison"], 3)
    assert plan("--peers", "flask", "--quick") == (["flask"], ["comparison"], 3)
    assert plan("--quick", "--rounds", "1")[2] == 1
    assert plan()[2] == results.FULL_ROUNDS


def test_a_run_without_wrk_ends_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--output", str(tmp_path)])

    assert bench.main() == 1
    assert capsys.readouterr().err == "error: wrk is missing; on Debian: apt install wrk\n"


@pytest.mark.usefixtures("needs_wrk")
def test_an_interrupted_run_stops_what_it_started(tmp_path: Path) -> None:
    """Ctrl-C ends the contenders and PostgreSQL, and gives the status that shells use."""
    command = [sys.executable, "-m", "ops.bench", "--quick", "--peers", "aiohttp", "--output", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "Started aiohttp" not in process.stderr.readline():
            assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        printed = process.stderr.read()

    assert process.returncode == 130, printed
    assert "Interrupted. All contenders have stopped.\n" in printed
    assert len(started) > 3
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left


@pytest.mark.usefixtures("needs_wrk")
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """A quick run measures each contender with each load, and writes a table, the results and the report."""
    short = "--quick --peers aiohttp --workloads get --connections 4 --rounds 1".split()
    command = [sys.executable, "-m", "ops.bench", *short, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = results.load(tmp_path / "results.json")

    assert [turn.contender for turn in found.comparison] == ["clients-api", "aiohttp"]
    for turn in found.comparison:
        assert turn.requests > 0
        assert turn.errors == 0
        assert turn.service_us > 0
        assert turn.postgres_us > 0
        assert 0 < turn.p50_ms <= turn.p99_ms
    assert re.search(r"^get, 4 connections\ncontender .*\nclients-api .*\naiohttp ", done.stderr, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "Rough figures, from a few short turns: no goal was measured."
    assert (tmp_path / "report.html").exists()


def test_the_sentence_says_whether_figures_are_rough() -> None:
    """It counts the goals that are met. Fewer rounds than those of a full run are rough."""

    def measured(rounds: int, cost: float) -> results.Results:
        numbers = range(1, rounds + 1)
        turns = [turn(name, n, us) for n in numbers for name, us in (("clients-api", cost), ("aiohttp", 100))]
        return results.Results({}, turns)

    # The p99 of both is the same, which meets the second goal.
    assert report.sentence(measured(5, 17)) == "2 of 2 goals are met."
    assert report.sentence(measured(5, 30)) == "1 of 2 goals are met."
    assert report.sentence(measured(3, 17)) == "Rough figures, from a few short turns: 2 of 2 goals are met."


def test_recorded_results_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published results give a table of goals, a page that loads no other files, and all pictures."""
    recorded = results.load(ROOT / "docs/performance/results.json")
    # A single workload, because most of the time goes to the pictures.
    gets = replace(recorded, comparison=[turn for turn in recorded.comparison if turn.workload == "get"])
    gets.save(tmp_path / "results.json")
    monkeypatch.setattr(sys, "argv", ["bench", "--results", str(tmp_path / "results.json"), "--output", str(tmp_path)])

    assert bench.main() == 0
    page = (tmp_path / "report.html").read_text()
    pictures = report.pictures(gets)
    assert re.search(r"^met +CPU per request +get +64 +aiohttp +0\.", capsys.readouterr().out, re.MULTILINE)
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)
    assert page.count("<picture>") == len(pictures)
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        f"{name}-{theme}.svg" for name in pictures for theme in ("light", "dark")
    }
