"""`python -m ops.drills` runs drills and reports each result on the terminal, in results.json and on the page."""

import math
import re
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from ops.common.process import ROOT
from ops.drills import __main__ as command
from ops.drills import drill, report
from ops.drills.claim import Claim
from ops.drills.drill import DRILLS, Drill
from ops.drills.harness import Harness, set_up
from ops.drills.run import Run
from ops.drills.timeline import REFUSED, SERVED, Request, Timeline
from tests.patience import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

DOCUMENTED: Final = re.findall(
    r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "resilience.md").read_text("utf-8"), re.MULTILINE
)


async def black_hole(harness: Harness) -> None:
    """Breaks the database's network until a request is refused, and heals it until one is served."""
    timeline = harness.timeline
    async with harness.service(DB_STATEMENT_SECONDS="0.3"), harness.callers():
        await wait_until(lambda: timeline.count(SERVED) >= 60)
        timeline.mark("black hole")
        harness.database_proxy.black_hole()
        await wait_until(lambda: timeline.count(REFUSED) > 0)
        recovered_at = timeline.mark("recovered")
        harness.database_proxy.heal()
        await wait_until(lambda: math.isfinite(timeline.first_served_after(recovered_at)))
    harness.claim("refused in the black hole", timeline.count(REFUSED), at_least=1)


async def never(_: Harness) -> None:
    """The body of a drill that does not run."""
    raise AssertionError


@pytest.fixture
def small_drills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers a drill that passes, one that fails before its PostgreSQL starts, and one that is skipped."""

    def fail_small_failure(name: str, *arguments: Any, **options: Any) -> AbstractAsyncContextManager[Harness]:
        if name == "small-failure":
            raise RuntimeError("the drill did not end")
        return set_up(name, *arguments, **options)

    for each in (
        Drill("small-hole", "the database's network, for a moment", black_hole, str),
        Drill("small-failure", "itself", never, str),
        Drill("small-skip", "nothing", never, lambda: "this machine has no <such thing>"),
    ):
        monkeypatch.setitem(DRILLS, each.name, each)
    monkeypatch.setattr(drill, "set_up", fail_small_failure)
    monkeypatch.setattr(drill, "DEADLINE_SECONDS", PATIENCE_SECONDS)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the command in this process and restores its signal handler."""
    monkeypatch.setattr(sys, "argv", ["drills", *arguments])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return command.main()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("small_drills")
def test_terminal_results_and_page_agree(
    monkeypatch: pytest.MonkeyPatch, short_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One drill fails and does not stop the others, one is skipped, one passes. No process is left running."""
    before = psutil.Process().children()
    status = run(monkeypatch, "small-failure", "small-skip", "small-hole", "--quick", "--output", str(short_folder))
    printed = capsys.readouterr().err
    (folder,) = short_folder.iterdir()
    page, results = (folder / "report.html").read_text(), report.load(folder)
    failed, _, passed = results.drills

    assert status == 1
    assert printed.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert re.search(
        r"^small-failure: itself\n +failed (.*\n)+? +RuntimeError: the drill did not end\nReport ",
        printed,
        re.MULTILINE,
    )
    assert re.search(r"^ +\d+ s  black hole\n +\d+ s  recovered$", printed, re.MULTILINE)
    assert "met  " not in printed
    assert set(psutil.Process().children()) <= set(before)

    assert [each["state"] for each in results.drills] == ["failed", "skipped", "passed"]
    assert failed["error"].endswith("RuntimeError: the drill did not end\n")
    assert {outcome["kind"] for outcome in passed["outcomes"]} == {"served", "refused"}
    assert sum(passed["over_time"]["served"]) == passed["kinds"]["served"] >= 60
    assert passed["longest_outage_seconds"] > 0.5

    assert "1 of 2 drills failed: small-failure. Skipped, because this machine cannot run them: 1 drill." in page
    assert "this machine has no &lt;such thing&gt;" in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href|srcset)="(?!data:|#)', page)
    assert page.count("<picture>") == 1
    results.draw(short_folder)
    assert (short_folder / "report.html").read_text() == page


def test_an_interrupted_run_has_not_passed(tmp_path: Path) -> None:
    """The report counts the drills that ran. A time that is infinite is reported as "never"."""
    timeline = Timeline([Request(0, 0.1, "503")])
    result = Run("one", "a thing", timeline=timeline, claims=[Claim("first served", float("inf"), at_most=1, unit="s")])
    interrupted = report.Report({"drills": 3}, {}, [result.summary()])
    interrupted.save(tmp_path)
    complete = report.Report({"drills": 1}, {}, [Run("one", "a thing").summary()])

    assert interrupted.verdict == "Interrupted after 1 of 3 drills. 1 of 1 drill failed: one."
    assert not interrupted.passed
    assert report.load(tmp_path) == interrupted
    assert "NOT MET  first served: never (at most 1 s)" in list(report.lines(interrupted.drills[0], is_verbose=False))
    assert complete.verdict == "All claims are met: 1 drill passed."
    assert complete.passed


def test_an_unknown_drill_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the known ones."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "database-bored")

    assert ended.value.code == 2
    assert "there is no drill database-bored; choose from database-killed" in capsys.readouterr().err


def test_an_interrupted_run_stops_its_processes_and_writes_the_report(short_folder: Path) -> None:
    """SIGTERM stops the service, PostgreSQL and the collector. SIGINT does so too: SIGTERM raises it."""
    arguments = [sys.executable, "-m", "ops.drills", "worker-killed", "--output", str(short_folder)]
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "a worker is killed" not in process.stderr.readline():
            assert process.poll() is None
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        printed = process.stderr.read()
    (page,) = short_folder.glob("*/report.html")

    assert process.returncode == 130
    assert f"Report  {page}\n0 passed, 0 failed, 0 skipped\n" in printed
    assert ">Interrupted after 0 of 1 drill.<" in page.read_text()
    assert len(started) > 5
    _, left = psutil.wait_procs(started, timeout=PATIENCE_SECONDS)
    assert not left


def test_every_drill_is_documented() -> None:
    """docs/resilience.md has one row for each drill and no other."""
    assert sorted(DRILLS) == sorted(DOCUMENTED)
