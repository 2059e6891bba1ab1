"""The steps of a deployment, in the order of deploy.yml, with checks between them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]

# They have digests, as a deployment requires; the fake cluster runs source of this checkout instead of the images.
_NAME: Final = "docker.io/olimac/clients-api@sha256:"
IMAGE: Final = _NAME + "5ca1ab1e" * 8
SECOND: Final = _NAME + "0ddba115" * 8
BAD_MIGRATION: Final = _NAME + "baadf00d" * 8
NEVER_READY: Final = _NAME + "deadbeef" * 8

# The identifiers of the databases: Terraform's, and the one that is restored from it.
DATABASE: Final = "olimac"
RESTORED: Final = f"{DATABASE}-2"

KINDS: Final = ("deployment", "release under traffic", "has to fail")

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
        error: if not empty, the step must fail, with this text in its output.
        has_traffic: whether callers send requests meanwhile.
    """

    name: str
    command: Sequence[str]
    advice: str
    error: str = ""
    has_traffic: bool = False

    @property
    def kind(self) -> str:
        """One of those that the picture of the steps distinguishes."""
        deployment, under_traffic, has_to_fail = KINDS
        return has_to_fail if self.error else under_traffic if self.has_traffic else deployment


def steps(ca: Path, public: str) -> list[Step]:
    """Returns all steps.

    Args:
        ca: the certificate of the CA that signed the certificates of the environment, PEM.
        public: where the load balancer will listen, host:port.
    """
    bucket, image = f"STATE_BUCKET={_BUCKET}", f"IMAGE={IMAGE}"
    authority, connect = f"ARGS=--authority {ca}", f"ARGS=--connect {public} --authority {ca}"
    return [
        *infrastructure(),
        _checks("check the infrastructure", "check_infrastructure", "the failed test names the requirement"),
        Step(
            "check the cluster's objects by schema and policy",
            ("bash", ".ci/manifests"),
            "k8s/, and the output of .ci/manifests",
        ),
        _make("deploy-monitoring", image, advice="ops/deploy/cluster_logging.py, k8s/overlays/monitoring"),
        _make("deploy-database", image, authority, advice="the step's log has the Job's log"),
        _make("deploy-canary", image, advice="ops/deploy/canary.py"),
        _make("deploy-objects", image, advice="python -m ops apply production --dry-run prints the objects"),
        _make("deploy-dns", advice="ops/deploy/dns.py; does the load balancer exist?"),
        _make("smoke", connect, advice=_PODS),
        _make("deploy-accept", image, _AT_ONCE, advice="ops/deploy/release.py"),
        _checks("check the deployment", "check_deployment", "the failed test names the requirement"),
        _make("plan", bucket, "ARGS=-detailed-exitcode", name="a second plan changes nothing", advice=_DRIFT),
        *(replace(step, has_traffic=True) for step in _releases(authority, connect)),
        _checks("check the releases", "check_releases", "the failed test names the requirement"),
        *_recovery(bucket, authority),
        _make("teardown", advice="ops/deploy/teardown.py"),
        _make("destroy", "ARGS=-auto-approve", advice=_TERRAFORM),
    ]


def on_kind(ca: Path, public: str) -> list[Step]:
    """Returns the steps on a real cluster: a deployment and its releases, and what only a real cluster does.

    Nothing there reaches the mock AWS, so there is no monitoring, and no restored database.
    """
    image, authority, connect = f"IMAGE={IMAGE}", f"ARGS=--authority {ca}", f"ARGS=--connect {public} --authority {ca}"
    drained = _checks("drain a node", "kind/check_drain", advice=_EVENTS)
    return [
        *infrastructure(),
        _make("deploy-database", image, authority, advice="the step's log has the Job's log"),
        _make("deploy-canary", image, advice=_EVENTS),
        _make("deploy-objects", image, advice=_EVENTS),
        _make("deploy-dns", advice="ops/rehearsal/kind/balancers.py; does the load balancer exist?"),
        _make("smoke", connect, advice=_EVENTS),
        _make("deploy-accept", image, _AT_ONCE, advice="ops/deploy/release.py"),
        *(replace(step, has_traffic=True) for step in (*_releases(authority, connect), drained)),
        _checks("check the policies and the pruning", "kind/check_jobs", advice="does the cluster enforce policies?"),
        _checks("load makes pods, and then fewer", "kind/check_scaling", advice="kubectl describe hpa -n clients"),
        _make("teardown", advice="ops/deploy/teardown.py"),
        _make("destroy", "ARGS=-auto-approve", advice=_TERRAFORM),
    ]


def infrastructure() -> list[Step]:
    """Returns the steps of Terraform with which a deployment begins."""
    bucket = f"STATE_BUCKET={_BUCKET}"
    return [
        _make("bootstrap", bucket, f"REPOSITORY={_REPOSITORY}", "ARGS=-auto-approve", advice=_TERRAFORM),
        _make("plan", bucket, advice=_TERRAFORM),
        _make("apply", advice=_TERRAFORM),
    ]


def _releases(authority: str, connect: str) -> list[Step]:
    """Returns the steps of three more releases: a good one, one whose migration fails, one that never gets ready."""
    second, bad_migration, never_ready = (f"IMAGE={image}" for image in (SECOND, BAD_MIGRATION, NEVER_READY))
    soon, job_failed, timed_out = "ARGS=--timeout 20", "the Job migrate failed", "timed out waiting for the condition"
    return [
        _make("deploy-database", second, authority, name="second release: migration", advice=_PODS),
        _make("deploy-canary", second, "ARGS=--seconds 30", name="second release: canary", advice=_PODS),
        _make("deploy-objects", second, name="second release: rollout", advice=_PODS),
        _make("smoke", connect, name="second release: smoke test", advice=_PODS),
        _make("deploy-accept", second, _AT_ONCE, name="second release: accepted", advice="ops/deploy/release.py"),
        _make("deploy-database", bad_migration, authority, name="a migration fails", advice=_PODS, error=job_failed),
        _make("rollback", name="rollback after the failed migration", advice=_PODS),
        _make("deploy-database", never_ready, authority, name="next release: migration", advice=_PODS),
        _make("deploy-canary", never_ready, soon, name="a canary never gets ready", advice=_PODS, error=timed_out),
        _make("deploy-objects", never_ready, soon, name="pods never get ready", advice=_PODS, error=timed_out),
        _make("rollback", name="rollback of the pods", advice=_PODS),
        _make("smoke", connect, name="smoke test after the rollback", advice=_PODS),
    ]


def _recovery(bucket: str, authority: str) -> list[Step]:
    """Returns the steps that restore the database, move the service to it, and remove the first one."""
    second, restored = f"IMAGE={SECOND}", f"DATABASE={RESTORED}"
    alarms, ignored = "the alarms follow the database", "ignore_changes in terraform/database.tf"
    no_change = "the plan after the restore changes nothing"
    return [
        _make("restore", restored, second, f"{authority} --yes", advice=_PODS),
        _make("plan", bucket, name="plan after the restore", advice=alarms),
        _make("apply", name="apply after the restore", advice=alarms),
        _make("plan", bucket, "ARGS=-detailed-exitcode", name=no_change, advice=ignored),
        _make("rotate-password", authority, advice=_PODS),
        _checks("check the restored database", "check_restore", "the failed test names what it lacks"),
        _make("remove-database", f"DATABASE={DATABASE}", advice="ops/deploy/restore.py"),
        _checks("check the infrastructure again", "check_infrastructure", "the failed test names the requirement"),
    ]


_AT_ONCE: Final = "ARGS=--seconds 0"  # the speed of this machine says nothing about a release
_PODS: Final = "the pods' logs are in work/environment/pods"
_EVENTS: Final = "the step's log; make cluster keeps a cluster, in which kubectl get events has the reason"
_TERRAFORM: Final = "the log has the output of terraform; add calls that the mock does not have to ops/rehearsal/aws.py"
_DRIFT: Final = "the log shows the difference: an error in terraform/, or an attribute that the mock does not store"


def _make(target: str, *variables: str, advice: str, name: str = "", error: str = "") -> Step:
    return Step(name or f"make {target}", ("make", "--no-print-directory", target, *variables), advice, error)


def _checks(name: str, module: str, advice: str) -> Step:
    return Step(name, (sys.executable, "-m", "pytest", "-v", f"ops/rehearsal/{module}.py"), advice)


def with_images(step: Step, names: Mapping[str, str]) -> Step:
    """Returns the step with other names of its images."""
    names = {f"IMAGE={image}": f"IMAGE={name}" for image, name in names.items()}
    return replace(step, command=[names.get(part, part) for part in step.command])


def run(step: Step, environment: Mapping[str, str], log: Path, pid_file: Path, report: Callable[[str], None]) -> None:
    """Runs the step and reports its progress.

    Args:
        step: to run.
        environment: all environment variables of its process.
        log: the file for its output.
        pid_file: has the id of its process meanwhile, so that `kill_leftovers` finds it if this process is killed.
        report: gets a line of progress every 15 s.

    Raises:
        StepFailed: it exited with a status other than 0, or took too long; or it should have failed and did not.
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
    text = log.read_text(errors="replace")
    end = "\n".join(text.splitlines()[-_LAST_LINES:])
    if step.error and not (process.returncode and step.error in text):
        raise StepFailed(f"{end}\nIt should have failed, with: {step.error}")
    if process.returncode and not step.error:
        raise StepFailed(end)


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
