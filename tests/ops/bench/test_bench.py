"""The benchmark compares services that respond alike, on this machine only. No test depends on how fast they are."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import pytest

from ops.bench import __main__ as bench
from ops.bench import contenders, dollars, instructions, measure, postgres, report, results, wrk
from ops.bench.contenders import CannotRun, Contender
from ops.bench.measure import Entry, Turn
from ops.common import console
from ops.common.collector import Collector
from ops.common.process import ROOT
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS

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


def turn(contender: str, number: int, cpu_us: float, *, workload: str = "get", connections: int = 64) -> Turn:
    return Turn(contender, 10_000, workload, connections, number, 1000, 0, 500.0, 1.0, 2.0, cpu_us - 1, 1.0)


def test_ratios_are_of_turns_of_the_same_round() -> None:
    """Turns of one round are compared with each other, so that what slows a round slows both."""
    ours = [turn("clients-api", 1, 10), turn("clients-api", 2, 30), turn("clients-api", 3, 11)]
    theirs = [turn("aiohttp", 1, 100), turn("aiohttp", 2, 100), turn("aiohttp", 3, 100), turn("aiohttp", 4, 1)]

    assert results.ratio(ours, theirs, results.cpu_us) == results.Spread(0.11, 0.1, 0.3)
    assert results.ratio(ours, [], results.cpu_us) is None


def test_an_interval_leaves_out_what_chance_explains() -> None:
    """Of seven rounds, it does not reach the extremes. Of five or fewer it does. The same values give the same one."""
    values = [10.0, 11, 12, 13, 14, 15, 100]

    assert results.spread(values) == results.spread(values) == results.Spread(13, 11, 15)
    assert results.spread(values[:5]) == results.Spread(12, 10, 14)
    assert results.spread([3]) == results.Spread(3, 3, 3)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """With the noise of each turn and the load of open loops."""
    quiet, noisy = measure.Noise(0.6, 0.01, 0.0), measure.Noise(0.9, 0.2, 0.04)
    offered = measure.Offered(0.6, 6000.0, 0.4, 0.3)
    measured = [replace(turn("clients-api", 1, 10), offered=offered, before=quiet, noise=noisy, tries=3)]
    written = results.Results({"cores": "2"}, [turn("aiohttp", 1, 100)], latency=measured)
    written.save(tmp_path / "results.json")

    assert results.load(tmp_path / "results.json") == written


def test_doubtful_turns_are_marked() -> None:
    """Tables count turns with other programs or steal, and leave out percentiles that a late generator spoiled."""
    quiet, foreign, stolen = (measure.Noise(0.6, *shares) for shares in ((0.03, 0.03), (0.031, 0.0), (0.0, 0.031)))
    on_time, late = measure.Offered(0.6, 6000.0, 0.4, 0.3), measure.Offered(0.6, 6000.0, 4.0, 0.3)

    def printed(*turns: Turn) -> str:
        with console.out.capture() as capture:
            console.out.print(report.load_table(list(turns)))
        return capture.get().splitlines()[-1]

    one, two, three = (turn("aiohttp", number, 100) for number in (1, 2, 3))
    noisy = printed(replace(one, noise=quiet), replace(two, noise=foreign), replace(three, noise=stolen))
    assert noisy.rstrip().endswith("2 of 3 noisy")
    assert re.search(r" 500 +1 +2 +- +100\.0 ", printed(replace(one, offered=on_time)))
    assert re.search(
        r" 500 +- +- +- +100\.0 .* 1 of 1 no verdict: generator late *$", printed(replace(one, offered=late))
    )


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
    assert plan("--latency")[1:] == (["latency"], results.FULL_ROUNDS)
    assert plan("--latency", "--quick")[1:] == (["latency"], 3)


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
    _, left = psutil.wait_procs(started, timeout=PATIENCE_SECONDS)
    assert not left


@pytest.fixture
def other_programs() -> Iterator[None]:
    """Programs that keep all cores busy, and are not part of the benchmark."""
    busy = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen(busy))
            stack.callback(process.kill)
        yield


@pytest.mark.usefixtures("needs_wrk", "other_programs")
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """A quick run measures each contender with each load, and writes a table, the results and the report.

    Each turn is repeated twice and marked, since other programs use the machine.
    """
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
        assert turn.noise
        assert turn.noise.foreign > 0.03
        assert turn.is_noisy
        assert turn.tries == 3
    assert found.machine["PostgreSQL"].startswith("postgres (PostgreSQL) 18")
    assert re.search(r"--enable-optimizations.* library", found.machine["Python"])
    table = r"^get, 4 connections\ncontender .*\nclients-api .* 1 of 1 noisy *\naiohttp .* 1 of 1 noisy *\n"
    assert re.search(table, done.stderr, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "Rough figures, from a few short turns: no goal was measured."
    assert "marked as noisy" in (tmp_path / "report.html").read_text()


_FAKE_PERF: Final = """#!/bin/sh
# Counts a million instructions of whatever it is attached to, and runs the command.
while [ "$1" != -- ]; do [ "$1" = -o ] && output=$2; shift; done
shift
"$@" || exit
echo 1000000,,instructions:u,1000,100.00,, >"${output:-/dev/stderr}"
"""


@pytest.mark.usefixtures("needs_wrk")
def test_a_run_of_open_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed loops come first, then open loops at shares of what the first ones reached. perf is not the real one."""
    perf = tmp_path / "perf"
    perf.write_text(_FAKE_PERF)
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    short = "--quick --latency --peers --workloads get getall --rounds 1".split()
    command = [sys.executable, "-m", "ops.bench", *short, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    closed, single, *open_loops = results.load(tmp_path / "results.json").latency

    assert (closed.connections, closed.offered, single.connections) == (64, None, 1)
    offered = [turn.offered for turn in open_loops if turn.offered]
    assert [each.share for each in offered] == [0.3, 0.6, 0.9]
    assert [each.rate for each in offered] == pytest.approx([each.share * closed.per_second for each in offered])
    for turn in (closed, single, *open_loops):
        assert turn.requests > 0
        assert turn.p999_ms
        assert turn.p50_ms <= turn.p99_ms <= turn.p999_ms
        assert turn.service_instructions == turn.postgres_instructions == pytest.approx(1e6 / turn.requests)
    assert re.search(r"^get, open loop, 60 %\ncontender .* instructions ", done.stderr, re.MULTILINE)
    assert "GET /get/&lt;id&gt;, random ids, open loop, 60 %" in (tmp_path / "report.html").read_text()


def test_instructions_are_counted_only_where_perf_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is said otherwise. perf attaches to all processes of a tree."""
    perf, output = tmp_path / "perf", tmp_path / "count"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.unavailable() == "perf is missing"

    perf.write_text("#!/bin/sh\necho '<not supported>,,instructions:u,0,100.00,,' >&2\n")
    perf.chmod(0o755)
    assert instructions.unavailable() == "perf does not count instructions:u on this machine"

    perf.write_text(_FAKE_PERF)
    assert instructions.unavailable() == ""
    own = psutil.Process()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        command = instructions.counting(own.pid, output)
        child.communicate(b"\n")
    assert {own.pid, child.pid} <= set(map(int, command[command.index("-p") + 1].split(",")))
    subprocess.run([*command, "true"], check=True)
    assert instructions.count(output) == 1_000_000


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
