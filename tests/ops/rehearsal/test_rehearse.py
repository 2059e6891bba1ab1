"""The rehearsal itself: its order, what it says where something is missing or fails, and that it leaves nothing."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from ops.common.process import ROOT
from ops.rehearsal import __main__ as rehearse
from ops.rehearsal import steps
from ops.rehearsal.steps import Step, StepFailed


def run(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m ops.rehearsal`, with nothing of this machine's in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "ops.rehearsal", "--folder", folder],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(name="sleeper")
def start_sleeper() -> Iterator[psutil.Process]:
    """A process in a group of its own, as a step's is."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def test_it_does_what_the_workflow_does_in_the_same_order() -> None:
    """The make targets of deploy.yml are steps of the rehearsal, one after the other."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())["jobs"]
    said = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    deployed = [target for text in said for target in re.findall(r"\bmake ([a-z-]+)", text)]
    rehearsed = [step.command[2] for step in steps.steps(Path("ca"), "127.0.0.1:1") if step.command[0] == "make"]

    deployed.remove("init")  # a job of its own finds the state anew; in one folder, plan did
    assert len(deployed) == 7
    assert rehearsed == ["bootstrap", *deployed, "plan", "teardown", "destroy"]


def test_every_step_says_where_to_look() -> None:
    """None leaves the reader with a log alone."""
    assert all(step.advice for step in steps.steps(Path("ca"), "127.0.0.1:1"))


def test_without_terraform_it_says_so_with_a_status_of_its_own(tmp_path: Path) -> None:
    """Status 3 is for a machine that lacks something, so that CI can tell it from a failure, and takes neither."""
    done = run(tmp_path, PATH=str(tmp_path))

    assert (done.returncode, done.stderr) == (3, "error: terraform is missing. Nothing was rehearsed.\n")


def test_without_the_provider_it_says_so(tmp_path: Path) -> None:
    """A terraform that can initialise nothing is a machine that lacks the provider."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("terraform", "kubectl"):
        (binaries / name).symlink_to("/bin/false")
    done = run(tmp_path / "folder", PATH=f"{binaries}:/usr/bin:/bin", TERRAFORM_MIRROR=str(tmp_path))

    assert done.returncode == 3
    assert "Terraform's AWS provider cannot be had" in done.stderr


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """The second says so at once, and disturbs nothing."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(tmp_path, PATH=os.environ["PATH"])

    assert done.returncode == 1
    assert "another rehearsal is under way" in done.stderr


def test_a_failure_names_the_step_and_what_to_do(tmp_path: Path) -> None:
    """With the end of what it said, and where all of it is."""
    step = Step("a step", ("bash", "-c", "echo the reason; exit 4"), "somewhere")
    log, report = tmp_path / "log", rehearse.Report(tmp_path / "report.json")

    with pytest.raises(StepFailed) as failure:
        rehearse._run(step, {"PATH": os.environ["PATH"]}, log, tmp_path / "running", report)
    assert str(failure.value) == f"a step failed; the end of {log}:\nthe reason\n\nWhere to look: somewhere"
    assert [(one["name"], one["worked"]) for one in report.steps] == [("a step", False)]


def test_a_step_leaves_no_process(tmp_path: Path) -> None:
    """What a step started and did not wait for ends with it."""
    step = Step("a step", ("bash", "-c", "sleep 60 & echo $!"), "")
    log = tmp_path / "log"
    steps.run(step, {"PATH": os.environ["PATH"]}, log, tmp_path / "running", lambda _: None)

    left = int(log.read_text())
    deadline = time.monotonic() + 10  # a signal is delivered at once, but dying takes its time
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "running").exists()


def test_what_a_killed_rehearsal_left_is_ended(tmp_path: Path, sleeper: psutil.Process) -> None:
    """The step that was under way is known by its id and by when it began."""
    running = tmp_path / "running"
    running.write_text(f"{sleeper.pid} {sleeper.create_time()}")
    steps.end_leftovers(running)

    assert sleeper.wait(10) == -signal.SIGKILL
    assert not running.exists()


def test_a_stranger_who_has_its_id_by_now_is_left_alone(tmp_path: Path, sleeper: psutil.Process) -> None:
    """Ids come again: one that began at another time is another process."""
    running = tmp_path / "running"
    running.write_text(f"{sleeper.pid} {sleeper.create_time() - 100}")
    steps.end_leftovers(running)

    assert sleeper.is_running()
    assert sleeper.status() != psutil.STATUS_ZOMBIE
