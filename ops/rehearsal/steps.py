"""The steps of a deployment, in the order of deploy.yml, and what is checked between them."""

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

# Named by a digest, as a deployment's has to be; what runs in its place is this checkout.
IMAGE: Final = "docker.io/olimac/clients-api@sha256:" + "5ca1ab1e" * 8

_BUCKET: Final = "olimac-terraform-state"
_REPOSITORY: Final = "olimac/clients"
_STEP_SECONDS: Final = 600
_TELL_SECONDS: Final = 15
_LAST_LINES: Final = 30


class StepFailed(Exception):
    """A step did not work; the message is the end of what it said."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: for people.
        command: what is run, in the project's root.
        advice: what to look at where it fails.
    """

    name: str
    command: Sequence[str]
    advice: str


def steps(authority: Path, public: str) -> list[Step]:
    """All steps.

    Args:
        authority: the CA that signed what stands on loopback, PEM.
        public: where the load balancer will listen, host:port.
    """
    bucket, image = f"STATE_BUCKET={_BUCKET}", f"IMAGE={IMAGE}"
    return [
        _make("bootstrap", bucket, f"REPOSITORY={_REPOSITORY}", "ARGS=-auto-approve", advice=_TERRAFORM),
        _make("plan", bucket, advice=_TERRAFORM),
        _make("apply", advice=_TERRAFORM),
        _tests("what AWS has, row by row", "rows", "the row's test says what is not as it has to be"),
        Step(
            "the cluster's objects by schema and policy", ("bash", ".ci/manifests"), "k8s/, and what .ci/manifests says"
        ),
        _make("deploy-objects", image, advice="python -m ops apply production --dry-run shows what is applied"),
        _make("deploy-database", image, f"ARGS=--authority {authority}", advice="the Job's log is in the step's"),
        _make("deploy-dns", advice="ops/deploy/dns.py; is there a load balancer?"),
        _make("deploy-monitoring", image, advice="ops/deploy/cluster_logging.py, k8s/overlays/monitoring"),
        _make(
            "smoke", f"ARGS=--connect {public} --authority {authority}", advice="what pods said is in work/world/pods"
        ),
        _tests("what is deployed, row by row", "deployed", "the row's test says what is not as it has to be"),
        _make("plan", bucket, "ARGS=-detailed-exitcode", name="a second plan changes nothing", advice=_DRIFT),
        _make("teardown", advice="ops/deploy/teardown.py"),
        _make("destroy", "ARGS=-auto-approve", advice=_TERRAFORM),
    ]


_TERRAFORM: Final = "what terraform says is in the log; a call that the mock lacks belongs in ops/rehearsal/aws.py"
_DRIFT: Final = "the log shows what would change: terraform/ says what AWS does not keep, or the mock forgets it"


def _make(target: str, *variables: str, advice: str, name: str = "") -> Step:
    return Step(name or f"make {target}", ("make", "--no-print-directory", target, *variables), advice)


def _tests(name: str, module: str, advice: str) -> Step:
    return Step(name, (sys.executable, "-m", "pytest", "-v", f"ops/rehearsal/{module}.py"), advice)


def run(step: Step, environment: Mapping[str, str], log: Path, running: Path, tell: Callable[[str], None]) -> None:
    """Runs the step, and tells how it goes on.

    Args:
        step: to run.
        environment: of its process, and nothing else.
        log: where its output goes.
        running: where its process is noted, so that `end_leftovers` finds it should this one be killed.
        tell: is given a line now and then.

    Raises:
        StepFailed: it ended with another status than 0, or took too long.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that all it starts can be ended with it
        )
        running.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")
        try:
            _wait(process, log, tell)
        finally:
            _end_group(process.pid)
            process.wait()
            running.unlink()
    if process.returncode:
        raise StepFailed("\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:]))


def end_leftovers(running: Path) -> None:
    """Ends what a step of an earlier rehearsal, which was killed, left behind."""
    with suppress(FileNotFoundError):
        pid, _, created = running.read_text().partition(" ")
        with suppress(psutil.NoSuchProcess, ValueError):
            if psutil.Process(int(pid)).create_time() == float(created):
                _end_group(int(pid))
        running.unlink()


def _wait(process: "subprocess.Popen[bytes]", log: Path, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        try:
            process.wait(_TELL_SECONDS)
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - began
            if passed > _STEP_SECONDS:
                raise StepFailed(f"took longer than {_STEP_SECONDS} s") from None
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
            tell(f"{passed:.0f} s  {last}")
        else:
            return


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
