"""The benchmark measures what it says, and only this machine. How fast anything is, no test asks."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.bench import contenders, cpu, measure, postgres, report, results, wrk
from ops.bench.contenders import CannotRun, Contender
from ops.bench.measure import Entry, Turn
from ops.common.process import ROOT
from tests.missing import missing

ROWS = 50


@pytest.fixture(scope="module", name="bench_folder")
def make_bench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def database(bench_folder: Path) -> Iterator[postgres.Database]:
    with postgres.started(bench_folder) as server:
        yield server.database(ROWS)


@pytest.mark.parametrize("contender", [contenders.OURS, *contenders.PEERS], ids=lambda contender: contender.name)
def test_each_contender_does_what_it_is_compared_for(
    contender: Contender, database: postgres.Database, bench_folder: Path
) -> None:
    """Each lists, adds and finds clients, and is gone afterwards."""
    try:
        with contenders.started(contender, database.environment, bench_folder) as service:
            process = psutil.Process(service.pid)
            measure.check(service.url, Entry(contender, ROWS))
    except CannotRun as error:
        missing(str(error))
    finally:
        database.restore()

    assert not process.is_running()


def test_who_answers_something_else_is_no_contender(database: postgres.Database, bench_folder: Path) -> None:
    """A fixed answer is fast, and refused."""
    floor = contenders.FLOORS[0]
    with (
        contenders.started(floor, database.environment, bench_folder) as service,
        pytest.raises(measure.WrongAnswer, match=floor.name),
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
    """An address that is not of loopback is refused before anything is started."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was started"))

    with pytest.raises(wrk.WrkError, match="loopback"):
        wrk.run(url, "get", 1, connections=1, seconds=1)


def test_cpu_time_counts_children_that_have_ended() -> None:
    """A child burns half a second and ends; the parent that waited for it has it on its account."""
    burn = "import time\nwhile time.process_time() < 0.55: pass"  # accounts are kept in ticks of 10 ms, rounded down
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


def test_ratios_are_of_pairs() -> None:
    """Each round's turns are compared with each other, so that what slows a round slows both."""
    ours = [turn("clients-api", 1, 10), turn("clients-api", 2, 30), turn("clients-api", 3, 11)]
    theirs = [turn("aiohttp", 1, 100), turn("aiohttp", 2, 100), turn("aiohttp", 3, 100), turn("aiohttp", 4, 1)]

    assert results.ratio(ours, theirs, results.cpu_us) == results.Spread(0.11, 0.1, 0.3)
    assert results.ratio(ours, [], results.cpu_us) is None


def test_a_goal_is_missed_where_the_median_is_beyond_it() -> None:
    """0.18 of the textbook is met at 0.18 and missed above."""
    theirs = [turn("aiohttp", number, 100) for number in (1, 2, 3)]
    met = [turn("clients-api", number, cost) for number, cost in enumerate((17, 18, 40), 1)]
    missed = [turn("clients-api", number, cost) for number, cost in enumerate((17, 18.1, 40), 1)]

    def cpu_verdict(turns: list[Turn]) -> bool:
        (found,) = [verdict.met for verdict in results.verdicts(turns) if verdict.goal.figure is results.cpu_us]
        return found

    assert cpu_verdict([*met, *theirs])
    assert not cpu_verdict([*missed, *theirs])


@pytest.mark.usefixtures("needs_wrk")
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """A short run counts every load, its page needs nothing else, and it can be drawn again from its numbers."""
    short = "--peers aiohttp --connections 4 --scaling-rows 100 --rounds 1 --seconds 1".split()
    subprocess.run(
        [sys.executable, "-m", "ops.bench", *short, "--output", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    measured = results.load(tmp_path / "results.json")
    page = (tmp_path / "report.html").read_text()

    loads = [(turn.workload, turn.contender) for turn in measured.comparison]
    assert loads == [(workload, name) for workload in ("get", "add", "getall") for name in ("clients-api", "aiohttp")]
    assert [turn.contender for turn in measured.scaling] == ["1 worker", "2 workers"]
    for turn in (*measured.comparison, *measured.anatomy, *measured.scaling):
        assert turn.requests > 0
        assert turn.errors == 0
        assert turn.service_us > 0
        assert 0 < turn.p50_ms <= turn.p99_ms
        # A floor asks no database; whoever does pays for it.
        assert turn.contender.startswith("floor") or turn.workload == "healthz" or turn.postgres_us > 0
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)

    report.write_pictures(measured, tmp_path / "pictures")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        f"{name}-{look}.svg" for name in report.pictures(measured) for look in ("light", "dark")
    }
