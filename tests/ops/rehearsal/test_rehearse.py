"""python -m ops.rehearsal: the order of its steps, its errors, and that it leaves no process behind."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from ops.common.plots import Variant
from ops.common.process import ROOT
from ops.rehearsal import __main__ as rehearse
from ops.rehearsal import picture, steps
from ops.rehearsal.steps import KINDS, Stage, Step, StepFailed
from tests.ops.deploy.fixtures import require_haproxy
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow


def run(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m ops.rehearsal` with only these environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "ops.rehearsal", "--folder", folder, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(name="sleeping_process")
def start_sleeping_process() -> Iterator[psutil.Process]:
    """Starts a process in its own group, as a step's process is."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


HISTORY, ON_KIND = (list_stages(Path("ca"), "127.0.0.1:1") for list_stages in (steps.history, steps.on_kind))


def flatten(stages: Iterable[Stage]) -> list[Step]:
    """The steps of the stages, one sequence after the other."""
    return [step for stage in stages for sequence in stage for step in sequence]


def targets(stage: Stage) -> list[str]:
    """The make targets of the stage, one sequence after the other."""
    return [step.command[2] for step in flatten([stage]) if step.command[0] == "make"]


def workflow(name: str) -> list[str]:
    """The make targets of a workflow, in their order."""
    jobs = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    return [target for command in commands for target in re.findall(r"\bmake ([a-z-]+)", command)]


def test_the_steps_have_the_order_of_the_workflows() -> None:
    """The history begins as deploy.yml does, and ends as teardown.yml does; between them is what may come in a year."""
    first, deployment, releases, upgrade, restore, recovery, end, again = map(targets, HISTORY)
    deployed = workflow("deploy")
    deployed.remove("init")  # only a separate job has to initialise Terraform again
    deployed.remove("verify-image")  # the rehearsal has no image
    deployed.remove("rollback")  # of the releases that fail
    destroyed = [target for target in workflow("teardown") if target not in ("init", "outputs")]

    assert [*first, *deployment] == ["bootstrap", *deployed]
    assert releases == [
        *("deploy-database", "deploy-canary", "deploy-objects", "smoke", "deploy-accept"),
        *("deploy-database", "rollback", "deploy-database", "deploy-canary", "deploy-objects", "rollback", "smoke"),
        "plan",
    ]
    assert upgrade == ["plan", "apply", "deploy-objects", "smoke", "deploy-accept"]
    assert restore == ["restore", "destroy", "plan", "apply"]
    assert recovery == ["plan", "rotate-password", "remove-database"]
    assert end == destroyed
    assert again == [*deployed, *destroyed]


def test_sequences_run_at_once_and_the_first_failure_stops_the_rest(tmp_path: Path) -> None:
    """Each sequence waits for the other; after a failure, a step that still runs is ended, and no other begins."""
    report = rehearse.Report(tmp_path / "report.json")

    def step(name: str, script: str) -> Step:
        return Step(name, ("bash", "-c", f"cd {tmp_path}; {script}"), "")

    def meeting(own: str, other: str) -> Step:
        return step(own, f"touch {own}; until [ -e {other} ]; do sleep 0.05; done")

    stage = [
        [meeting("a", "b"), step("fails", "until [ -e running ]; do sleep 0.05; done; exit 1")],
        [meeting("b", "a"), step("runs", "touch running; sleep 600"), step("no", "")],
    ]
    with pytest.raises(StepFailed, match=r"^fails failed"):
        rehearse._run_stage(
            [list(enumerate(sequence)) for sequence in stage], {"PATH": os.environ["PATH"]}, tmp_path, report
        )

    assert {one["name"]: one["worked"] for one in report.steps} == {"a": True, "b": True, "fails": False, "runs": False}
    starts = [one["started"] for one in report.steps]
    assert starts == sorted(starts)


def test_a_step_that_should_fail_must_fail_with_its_error(tmp_path: Path) -> None:
    """Neither success nor another error is what the rehearsal expects."""

    def run_step(script: str) -> None:
        step = Step("a step", ("bash", "-c", script), "", error="the reason")
        steps.run(step, {"PATH": os.environ["PATH"]}, tmp_path / "log", lambda _: None)

    run_step("echo the reason; exit 1")
    for wrong in ("echo the reason", "echo another; exit 1"):
        with pytest.raises(StepFailed, match="It should have failed, with: the reason"):
            run_step(wrong)


def test_a_real_cluster_gets_the_same_steps() -> None:
    """Those of a deployment and its releases, but none whose pods would call AWS; a node is drained under traffic."""
    rehearsed, on_kind = flatten(HISTORY), flatten(ON_KIND)
    added = [step for step in on_kind if step not in rehearsed]
    infrastructure, *_, end = map(targets, ON_KIND)

    assert {step.command[2] for step in rehearsed if step not in on_kind and step.command[0] == "make"} == {
        *("deploy-monitoring", "deploy-database", "deploy-canary", "deploy-objects", "smoke", "deploy-accept"),
        *("plan", "apply", "restore", "destroy", "rotate-password", "remove-database"),
    }
    assert [step.name for step in added] == [
        "drain a node",
        "check the policies and the pruning",
        "load makes pods, and then fewer",
    ]
    assert infrastructure == ["bootstrap", "plan", "apply"]
    assert end == ["teardown", "destroy"]
    under_traffic = [step.name for step in on_kind if step.has_traffic]
    assert (under_traffic[0], under_traffic[-1]) == ("second release: migration", "drain a node")
    assert all((ROOT / step.command[-1]).exists() for step in on_kind if step.command[0] != "make")


def test_only_images_are_renamed() -> None:
    """A registry gives them digests that nobody knows before."""
    step = Step("a step", ("make", "deploy-objects", f"IMAGE={steps.IMAGE}", f"ARGS={steps.IMAGE}"), "")

    renamed = steps.with_images(step, {steps.IMAGE: "a@sha256:1"})
    assert list(renamed.command) == ["make", "deploy-objects", "IMAGE=a@sha256:1", f"ARGS={steps.IMAGE}"]
    assert list(steps.with_images(step, {}).command) == list(step.command)


@pytest.mark.parametrize("stages", [HISTORY, ON_KIND], ids=["history", "on kind"])
def test_every_step_has_advice(stages: list[Stage]) -> None:
    """After a failure, the report says where to look."""
    assert all(step.advice for step in flatten(stages))


def test_a_missing_terraform_has_its_own_exit_status(tmp_path: Path) -> None:
    """Status 3 means a missing prerequisite, which a caller can tell from a failed step; in CI both are failures."""
    require_haproxy()
    result = run(tmp_path, PATH=str(tmp_path))

    assert (result.returncode, result.stderr) == (3, "error: terraform is missing. Nothing was rehearsed.\n")


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ([], "docker is missing"),
        (["docker"], "kind is missing"),
        (["docker", "kind"], "wrk is missing"),
        (["docker", "kind", "wrk"], "no Docker daemon answers"),
    ],
)
def test_a_real_cluster_needs_docker_and_kind(tmp_path: Path, tools: list[str], reason: str) -> None:
    """Each that is missing has the same exit status, and one sentence."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in tools:
        (binaries / name).symlink_to("/bin/false")

    for options in (["--kind"], ["--kind", "--hold"]):
        result = run(tmp_path / "folder", *options, PATH=str(binaries))
        assert (result.returncode, result.stderr) == (3, f"error: {reason}. Nothing was rehearsed.\n")


def test_what_is_held_can_be_used_from_another_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file has the variables for make, but not those of this shell; Ctrl-C ends it without an error."""
    monkeypatch.setattr(signal, "pause", lambda: signal.raise_signal(signal.SIGINT))
    file = tmp_path / "variables"
    rehearse._hold(file, {"PATH": "/nowhere", "HOME": "/nowhere", "OUTPUTS": "a file", "IMAGE": "a@sha256:1"})

    shown = subprocess.run(
        ["bash", "-c", f'. {file}; echo "$OUTPUTS $IMAGE $PATH"'],  # noqa: S607
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "a file a@sha256:1 /usr/bin:/bin\n"
    assert f". {file}\n" in capsys.readouterr().out


def test_a_missing_provider_is_an_error(tmp_path: Path) -> None:
    """If `terraform init` fails, the provider is missing."""
    require_haproxy()
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in ("terraform", "kubectl"):
        (binaries / name).symlink_to("/bin/false")
    result = run(tmp_path / "folder", PATH=f"{binaries}:/usr/bin:/bin", TERRAFORM_MIRROR=str(tmp_path))

    assert result.returncode == 3
    assert "Terraform's AWS provider is neither in its registry nor in a mirror" in result.stderr


def test_a_second_rehearsal_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """It fails at once and does not affect the first."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(tmp_path, PATH=os.environ["PATH"])

    assert result.returncode == 1
    assert "another rehearsal is running" in result.stderr


def test_a_failure_names_the_step_and_gives_advice(tmp_path: Path) -> None:
    """The message has the end of the output and the path of the log."""
    step = Step("a step", ("bash", "-c", "echo the reason; exit 4"), "somewhere")
    log, report = tmp_path / "log", rehearse.Report(tmp_path / "report.json")

    with pytest.raises(StepFailed) as failure:
        rehearse._run(step, {"PATH": os.environ["PATH"]}, log, report)
    assert str(failure.value) == f"a step failed; the end of {log}:\nthe reason\n\nWhere to look: somewhere"
    assert [(one["name"], one["worked"]) for one in report.steps] == [("a step", False)]


def test_a_step_leaves_no_process_behind(tmp_path: Path) -> None:
    """Processes that a step started in the background are killed at its end."""
    step = Step("a step", ("bash", "-c", "sleep 600 & echo $!"), "")
    log = tmp_path / "log"
    steps.run(step, {"PATH": os.environ["PATH"]}, log, lambda _: None)

    background = int(log.read_text())
    deadline = time.monotonic() + PATIENCE_SECONDS  # the signal is sent, but the process needs time to exit
    while psutil.pid_exists(background) and psutil.Process(background).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == [log]


def test_the_process_of_a_killed_rehearsal_is_killed(tmp_path: Path, sleeping_process: psutil.Process) -> None:
    """It is identified by its id and its start time."""
    pid_file = tmp_path / "01-a-step.pid"
    pid_file.write_text(f"{sleeping_process.pid} {sleeping_process.create_time()}")
    steps.kill_leftovers(tmp_path)

    assert sleeping_process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert not pid_file.exists()


def test_another_process_with_the_same_id_is_not_killed(tmp_path: Path, sleeping_process: psutil.Process) -> None:
    """Ids are reused: a process with another start time is another process."""
    pid_file = tmp_path / "01-a-step.pid"
    pid_file.write_text(f"{sleeping_process.pid} {sleeping_process.create_time() - 100}")
    steps.kill_leftovers(tmp_path)

    assert sleeping_process.is_running()
    assert sleeping_process.status() != psutil.STATUS_ZOMBIE


def test_the_picture_has_each_step_with_its_seconds() -> None:
    """Steps that have to fail, and those under traffic, have colours of their own."""
    names = ["make plan", "second release: rollout", "a migration fails"]
    draw = picture.of_steps(
        [
            {"name": name, "kind": kind, "started": 3.0 * i, "seconds": 5.0 + i}
            for i, (name, kind) in enumerate(zip(names, KINDS, strict=True))
        ]
    )
    wide, narrow = (draw(Variant(dark=False, narrow=is_narrow)) for is_narrow in (False, True))

    for text in (*names, *KINDS, "5 s", "6 s", "7 s"):
        assert f">{text}</text>" in wide
    for text in (*KINDS, "make plan, 5 s", "second release: rollout, 6 s", "a migration fails, 7 s"):
        assert f"{text}</text>" in narrow
