"""The steps of a deployment, in the order of deploy.yml, with checks between them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]

# Has a digest, as a deployment requires; the fake cluster runs this checkout instead of the image.
IMAGE: Final = "docker.io/olimac/clients-api@sha256:" + "5ca1ab1e" * 8

_BUCKET: Final = "olimac-terraform-state"
_REPOSITORY: Final = "olimac/clients"
_STEP_SECONDS: Final = 600
_PROGRESS_SECONDS: Final = 15
_LAST_LINES: Final = 30


class StepFailed(Exception):
    """A step failed; the message is the end of its output."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: as the report shows it.
        command: runs in the project's root.
        advice: where to look for the cause of a failure.
    """

    name: str
    command: Sequence[str]
    advice: str


def steps(ca: Path, public: str) -> list[Step]:
    """Returns all steps.

    Args:
        ca: the certificate of the CA that signed the certificates of the environment, PEM.
        public: where the load balancer will listen, host:port.
    """
    bucket, image = f"STATE_BUCKET={_BUCKET}", f"IMAGE={IMAGE}"
    return [
        _make("bootstrap", bucket, f"REPOSITORY={_REPOSITORY}", "ARGS=-auto-approve", advice=_TERRAFORM),
        _make("plan", bucket, advice=_TERRAFORM),
        _make("apply", advice=_TERRAFORM),
        _checks("check the infrastructure", "check_infrastructure", "the failed test names the requirement"),
        Step(
            "check the cluster's objects by schema and policy",
            ("bash", ".ci/manifests"),
            "k8s/, and the output of .ci/manifests",
        ),
        _make("deploy-objects", image, advice="python -m ops apply production --dry-run prints the objects"),
        _make("deploy-database", image, f"ARGS=--authority {ca}", advice="the step's log has the Job's log"),
        _make("deploy-dns", advice="ops/deploy/dns.py; does the load balancer exist?"),
        _make("deploy-monitoring", image, advice="ops/deploy/cluster_logging.py, k8s/overlays/monitoring"),
        _make(
            "smoke",
            f"ARGS=--connect {public} --authority {ca}",
            advice="the pods' logs are in work/environment/pods",
        ),
        _checks("check the deployment", "check_deployment", "the failed test names the requirement"),
        _make("plan", bucket, "ARGS=-detailed-exitcode", name="a second plan changes nothing", advice=_DRIFT),
        _make("teardown", advice="ops/deploy/teardown.py"),
        _make("destroy", "ARGS=-auto-approve", advice=_TERRAFORM),
    ]


_TERRAFORM: Final = "the log has the output of terraform; add calls that the mock does not have to ops/rehearsal/aws.py"
_DRIFT: Final = "the log shows the difference: an error in terraform/, or an attribute that the mock does not store"


def _make(target: str, *variables: str, advice: str, name: str = "") -> Step:
    return Step(name or f"make {target}", ("make", "--no-print-directory", target, *variables), advice)


def _checks(name: str, module: str, advice: str) -> Step:
    return Step(name, (sys.executable, "-m", "pytest", "-v", f"ops/rehearsal/{module}.py"), advice)


def run(step: Step, environment: Mapping[str, str], log: Path, pid_file: Path, report: Callable[[str], None]) -> None:
    """Runs the step and reports its progress.

    Args:
        step: to run.
        environment: all environment variables of its process.
        log: the file for its output.
        pid_file: has the id of its process meanwhile, so that `kill_leftovers` finds it if this process is killed.
        report: gets a line of progress every 15 s.

    Raises:
        StepFailed: it exited with a status other than 0, or took too long.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a process group of its own, to kill with all its children
        )
        pid_file.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")
        try:
            _wait(process, log, report)
        finally:
            _kill_group(process.pid)
            process.wait()
            pid_file.unlink()
    if process.returncode:
        raise StepFailed("\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:]))


def kill_leftovers(pid_file: Path) -> None:
    """Kills the processes of the step that was running when an earlier rehearsal was killed."""
    with suppress(FileNotFoundError):
        pid, _, created = pid_file.read_text().partition(" ")
        with suppress(psutil.NoSuchProcess, ValueError):
            if psutil.Process(int(pid)).create_time() == float(created):
                _kill_group(int(pid))
        pid_file.unlink()


def _wait(process: "subprocess.Popen[bytes]", log: Path, report: Callable[[str], None]) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(_PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - started
            if passed > _STEP_SECONDS:
                raise StepFailed(f"took longer than {_STEP_SECONDS} s") from None
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
            report(f"{passed:.0f} s  {last}")
        else:
            return


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
