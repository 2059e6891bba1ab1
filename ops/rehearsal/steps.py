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
from typing import Final, TypeAlias

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

KINDS: Final = ("deployment", "under traffic", "has to fail")

_STEP_SECONDS: Final = 600
_POLL_SECONDS: Final = 1
_PROGRESS_SECONDS: Final = 15
_PID_SUFFIX: Final = ".pid"
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


# Sequences of steps that run at the same time.
Stage: TypeAlias = Sequence[Sequence[Step]]


def history(ca: Path, public: str) -> list[Stage]:
    """Returns the history of a deployment, in stages that run one after the other; the first has the infrastructure.

    Args:
        ca: the certificate of the CA that signed the certificates of the environment, PEM.
        public: where the load balancer will listen, host:port.
    """
    authority, connect = f"ARGS=--authority {ca}", f"ARGS=--connect {public} --authority {ca}"
    no_change = _make("plan", _BUCKET, "ARGS=-detailed-exitcode", name="a second plan changes nothing", advice=_DRIFT)
    first = [_monitoring(IMAGE), *_deployment(IMAGE, authority, connect)]
    second = [_monitoring(SECOND), *_deployment(SECOND, authority, connect)]
    releases, upgrade = map(_with_traffic, (_releases(authority, connect), _upgrade(connect)))
    return [
        [[_bootstrap(), *_infrastructure()]],
        [_infrastructure_checks(), [*first, _checks("check the deployment", "check_deployment")]],
        [[*releases, _checks("check the releases", "check_releases")], [no_change]],
        [upgrade],
        *_recovery(authority),
        [_end()],
        [[*_infrastructure(), *second, *_end()]],
    ]


def on_kind(ca: Path, public: str) -> list[Stage]:
    """Returns the history on a real cluster: a deployment and its releases, and what only a real cluster does.

    The cluster does not reach the mock AWS, nor does that change the cluster, so there is no monitoring, no restored
    database and no upgrade. The arguments are those of `history`.
    """
    authority, connect = f"ARGS=--authority {ca}", f"ARGS=--connect {public} --authority {ca}"
    return [
        [[_bootstrap(), *_infrastructure()]],
        [_deployment(IMAGE, authority, connect)],
        [_with_traffic([*_releases(authority, connect), _checks("drain a node", "kind/check_drain")])],
        [
            [
                _checks("check the policies and the pruning", "kind/check_jobs"),
                _checks("load makes pods, and then fewer", "kind/check_scaling"),
            ]
        ],
        [_end()],
    ]


def has_traffic(stage: Stage) -> bool:
    """Whether callers send requests during the stage."""
    return any(step.has_traffic for sequence in stage for step in sequence)


def _with_traffic(sequence: Sequence[Step]) -> list[Step]:
    return [replace(step, has_traffic=True) for step in sequence]


def _bootstrap() -> Step:
    return _make("bootstrap", _BUCKET, f"REPOSITORY={_REPOSITORY}", "ARGS=-auto-approve", advice=_TERRAFORM)


def _infrastructure() -> list[Step]:
    return [_make("plan", _BUCKET, advice=_TERRAFORM), _make("apply", advice=_TERRAFORM)]


def _infrastructure_checks() -> list[Step]:
    by_schema = "check the cluster's objects by schema and policy"
    return [
        _checks("check the infrastructure", "check_infrastructure"),
        Step(by_schema, ("bash", ".ci/manifests"), "k8s/, and the output of .ci/manifests"),
    ]


def _monitoring(release: str) -> Step:
    advice = "ops/deploy/cluster_logging.py, k8s/overlays/monitoring"
    return _make("deploy-monitoring", f"IMAGE={release}", advice=advice)


def _deployment(release: str, authority: str, connect: str) -> list[Step]:
    image = f"IMAGE={release}"
    return [
        _make("deploy-database", image, authority, advice="the step's log has the Job's log"),
        _make("deploy-canary", image, advice="ops/deploy/canary.py"),
        _make("deploy-objects", image, advice="python -m ops apply production --dry-run prints the objects"),
        _make("deploy-dns", advice="ops/deploy/dns.py; does the load balancer exist?"),
        _make("smoke", connect, advice=_PODS),
        _make("deploy-accept", image, _AT_ONCE, advice="ops/deploy/release.py"),
    ]


def _releases(authority: str, connect: str) -> list[Step]:
    """Returns the steps of three more releases: a good one, one whose migration fails, one that never gets ready."""
    second, bad_migration, never_ready = (f"IMAGE={image}" for image in (SECOND, BAD_MIGRATION, NEVER_READY))
    soon, job_failed, timed_out = "ARGS=--timeout 10", "the Job migrate failed", "timed out waiting for the condition"
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


def _upgrade(connect: str) -> list[Step]:
    """Returns the steps of an upgrade to the version of this checkout; until then, the default is the one before."""
    second, raised = f"IMAGE={SECOND}", ("bash", "-c", 'cp terraform/variables.tf "$TERRAFORM_FOLDER"')
    return [
        Step("raise the default version of Kubernetes", raised, "terraform/variables.tf"),
        _make("plan", _BUCKET, name="plan of the upgrade", advice=_UPGRADE),
        _make("apply", name="apply of the upgrade", advice=_UPGRADE),
        _make("deploy-objects", second, name="upgrade: the autoscaler's release", advice=_UPGRADE),
        _make("smoke", connect, name="smoke test after the upgrade", advice=_PODS),
        _make("deploy-accept", second, _AT_ONCE, name="upgrade: accepted", advice="ops/deploy/release.py"),
        _checks("check the upgrade", "check_upgrade"),
    ]


def _recovery(authority: str) -> list[Stage]:
    """Returns the stages that restore the database, move the service to it, and remove the first one."""
    second, restored = f"IMAGE={SECOND}", f"DATABASE={RESTORED}"
    alarms, ignored = "the alarms follow the database", "ignore_changes in terraform/database.tf"
    too_early, refused = "destroy before the plan after the restore", "without a final snapshot"
    no_change = "the plan after the restore changes nothing"
    return [
        [
            [
                _make("restore", restored, second, f"{authority} --yes", advice=_PODS),
                _make("destroy", "ARGS=-auto-approve", name=too_early, advice="destroy in the Makefile", error=refused),
                _make("plan", _BUCKET, name="plan after the restore", advice=alarms),
                _make("apply", name="apply after the restore", advice=alarms),
            ]
        ],
        [
            [_make("plan", _BUCKET, "ARGS=-detailed-exitcode", name=no_change, advice=ignored)],
            [
                _make("rotate-password", authority, advice=_PODS),
                _checks("check the restored database", "check_restore"),
                _make("remove-database", f"DATABASE={DATABASE}", advice="ops/deploy/restore.py"),
                _checks("check the infrastructure again", "check_infrastructure"),
            ],
        ],
    ]


def _end() -> list[Step]:
    return [
        _make("teardown", advice="ops/deploy/teardown.py"),
        _make("destroy", "ARGS=-auto-approve", advice=_TERRAFORM),
        _checks("check what remains in AWS", "check_remains"),
    ]


_BUCKET: Final = "STATE_BUCKET=olimac-terraform-state"
_REPOSITORY: Final = "olimac/clients"
_AT_ONCE: Final = "ARGS=--seconds 0"  # the speed of this machine says nothing about a release
_PODS: Final = "the logs of the pods, in work/environment: pods, or kind on a real cluster"
_TERRAFORM: Final = "the log has the output of terraform; add calls that the mock does not have to ops/rehearsal/aws.py"
_DRIFT: Final = "the log shows the difference: an error in terraform/, or an attribute that the mock does not store"
_UPGRADE: Final = "terraform/upgrades.tf, and Upgrading Kubernetes in docs/deploying.md"


def _make(target: str, *variables: str, advice: str, name: str = "", error: str = "") -> Step:
    return Step(name or f"make {target}", ("make", "--no-print-directory", target, *variables), advice, error)


def _checks(name: str, module: str) -> Step:
    command = (sys.executable, "-m", "pytest", "-v", f"ops/rehearsal/{module}.py")
    return Step(name, command, "the failed test names the requirement")


def with_images(step: Step, names: Mapping[str, str]) -> Step:
    """Returns the step with other names of its images."""
    names = {f"IMAGE={image}": f"IMAGE={name}" for image, name in names.items()}
    return replace(step, command=[names.get(part, part) for part in step.command])


def run(
    step: Step,
    environment: Mapping[str, str],
    log: Path,
    report: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Runs the step and reports its progress.

    Args:
        step: to run.
        environment: all environment variables of its process.
        log: the file for its output. A file beside it has the id of its process meanwhile, so that `kill_leftovers`
            finds it if this process is killed.
        report: gets a line of progress every 15 s.
        stop: whether to end it, because one beside it has failed.

    Raises:
        StepFailed: it exited with a status other than 0, or took too long; or it should have failed and did not.
    """
    pid_file = log.with_suffix(_PID_SUFFIX)
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
            _wait(process, log, report, stop)
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


def kill_leftovers(logs: Path) -> None:
    """Kills the processes of the steps that were running when an earlier rehearsal was killed."""
    for pid_file in logs.glob(f"*{_PID_SUFFIX}"):
        pid, _, created = pid_file.read_text().partition(" ")
        with suppress(psutil.NoSuchProcess, ValueError):
            if psutil.Process(int(pid)).create_time() == float(created):
                _kill_group(int(pid))
        pid_file.unlink()


def _wait(
    process: "subprocess.Popen[bytes]", log: Path, report: Callable[[str], None], stop: Callable[[], bool]
) -> None:
    started = reported = time.monotonic()
    while process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        now = time.monotonic()
        if stop():
            raise StepFailed("It was stopped, since a step beside it failed.")
        if now - started > _STEP_SECONDS:
            raise StepFailed(f"took longer than {_STEP_SECONDS} s")
        if now - reported > _PROGRESS_SECONDS and process.returncode is None:
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
            report(f"{now - started:.0f} s  {last}")
            reported = now


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
