"""The command line: `python -m ops.rehearsal`, the whole deployment with no AWS account."""

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.rehearsal import steps, world
from ops.rehearsal.aws import ACCOUNT, inventory
from ops.rehearsal.steps import IMAGE, ROOT, Step, StepFailed
from svc.postgres.embedded import EmbeddedPostgresError

_LACKING: Final = 3  # the exit status where Terraform, its provider or kubectl cannot be had
_ADMIN: Final = f"arn:aws:iam::{ACCOUNT}:role/{world.NAME}-github-apply"  # as terraform/bootstrap names it

# What outlives a deployment: bootstrap's own, and the database's backups, the last snapshot among them.
_STAYS: Final = re.compile(
    rf"bucket: .*|OIDC provider: .*|role: {world.NAME}-github-.*|database snapshot: (rds:)?{world.NAME}-.*"
)


class Lacking(Exception):
    """What a rehearsal takes is not on this machine."""


def main() -> int:
    """Rehearses; 0 where all steps worked, 1 where one failed, 3 where the machine lacks what it takes."""
    folder: Path = _parser().parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left running
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _refuse(f"another rehearsal is under way in {folder}", 1)
        report = Report(folder / "report.json")
        try:
            _rehearse(folder, report)
        except Lacking as error:
            return _refuse(f"{error}. Nothing was rehearsed.", _LACKING)
        except (StepFailed, EmbeddedPostgresError) as error:
            return _refuse(str(error), 1)
        except KeyboardInterrupt:
            return 130
    _say(
        f"All of it worked, in {report.seconds():.0f} s. The times are in {report.file}, what was said in logs/ there."
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.rehearsal",
        description="Deploys everything against a mock of AWS and a stand-in for the cluster's API on this machine, "
        "checks what is there, and destroys it again. It needs terraform and kubectl, but no account.",
    )
    parser.add_argument("--folder", type=Path, default=Path(".rehearse"), help="for its files and report (.rehearse)")
    return parser


@dataclass
class Report:
    """What was done and how long it took, on the screen and in a file that is whole after each step.

    Attributes:
        file: the file.
        steps: each one's name, seconds, and whether it worked.
    """

    file: Path
    steps: list[dict[str, str | float | bool]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times what is done in the context; an exception says that it failed."""
        _say(f"…  {name}")
        began = time.monotonic()
        worked = False
        try:
            yield
            worked = True
        finally:
            seconds = round(time.monotonic() - began, 1)
            self.steps.append({"name": name, "seconds": seconds, "worked": worked})
            told = {"worked": worked, "seconds": self.seconds(), "steps": self.steps}
            self.file.write_text(json.dumps(told, indent=2))
            _say(f"{'✓' if worked else '✗'}  {name} ({seconds:.0f} s)")

    def seconds(self) -> float:
        """All of it so far."""
        return round(sum(float(step["seconds"]) for step in self.steps), 1)


def _rehearse(folder: Path, report: Report) -> None:
    running, work, logs = folder / "running", folder / "work", folder / "logs"
    with report.step("what an earlier rehearsal left is removed"):
        steps.end_leftovers(running)
        for left in (work, logs):
            shutil.rmtree(left, ignore_errors=True)
            left.mkdir()
    with report.step("terraform, its provider and kubectl are there"):
        provider = _provider(work)
        _copy_terraform(work)
    with ExitStack() as stack:
        with report.step("AWS's mock, the cluster's stand-in and PostgreSQL start"):
            stands = stack.enter_context(world.standing(work / "world", _kubernetes_version(), IMAGE))
        public = "{}:{}".format(*stands.public)
        environment = {
            **stands.environment,
            **provider,
            **_of_the_steps(work),
            "REHEARSAL_AUTHORITY": str(stands.authority),
            "REHEARSAL_DATABASE": stands.database,
            "REHEARSAL_PUBLIC": public,
        }
        before = inventory()
        for number, step in enumerate(steps.steps(stands.authority, public), start=1):
            log = logs / f"{number:02}-{re.sub('[^a-z0-9]+', '-', step.name.lower())}.log"
            _run(step, environment, log, running, report)
        with report.step("nothing is left in AWS"):
            left_over = [thing for thing in sorted(inventory() - before) if not _STAYS.fullmatch(thing)]
            if left_over:
                raise StepFailed("left behind in AWS:\n" + "\n".join(left_over))


def _run(step: Step, environment: dict[str, str], log: Path, running: Path, report: Report) -> None:
    try:
        with report.step(step.name):
            steps.run(step, environment, log, running, lambda words: _say(f"   {words}"))
    except StepFailed as error:
        raise StepFailed(f"{step.name} failed; the end of {log}:\n{error}\n\nWhere to look: {step.advice}") from None


def _of_the_steps(work: Path) -> dict[str, str]:
    """What the steps have beside AWS's: the machine's own settings are not the rehearsal's."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "TERRAFORM_FOLDER": str(work / "source" / "terraform"),
        "PLAN": str(work / "deployment.tfplan"),
        "OUTPUTS": str(work / "outputs.json"),
        "TF_VAR_admins": json.dumps([_ADMIN]),
        "TF_CLI_ARGS": "-no-color",
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
    }


def _provider(work: Path) -> dict[str, str]:
    """How Terraform gets its provider: from its registry, or from a mirror on this machine.

    Raises:
        Lacking: from nowhere, or terraform or kubectl are missing themselves.
    """
    for tool in ("terraform", "kubectl"):
        if shutil.which(tool) is None:
            raise Lacking(f"{tool} is missing")
    probe = work / "probe"
    probe.mkdir()
    shutil.copy(ROOT / "terraform" / "bootstrap" / "main.tf", probe)
    inherited = {name: os.environ[name] for name in ("TF_CLI_CONFIG_FILE",) if name in os.environ}
    if _initialises(probe, inherited):
        return inherited
    mirror = subprocess.run(["bash", ROOT / ".ci" / "mirror"], capture_output=True, text=True, check=False)  # noqa: S607
    config = work / "terraformrc"
    config.write_text(mirror.stdout)
    mirrored = {"TF_CLI_CONFIG_FILE": str(config)}
    if mirror.returncode or not _initialises(probe, mirrored):
        raise Lacking("Terraform's AWS provider cannot be had, neither from its registry nor from a mirror here")
    return mirrored


def _initialises(folder: Path, environment: dict[str, str]) -> bool:
    command = ["terraform", f"-chdir={folder}", "init", "-backend=false", "-input=false"]
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1", **environment}
    return subprocess.run(command, env=known, capture_output=True, timeout=300, check=False).returncode == 0


def _copy_terraform(work: Path) -> None:
    """Terraform keeps files beside its source, which are none of this checkout's."""
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfplan", "*.tfvars")
    shutil.copytree(ROOT / "terraform", work / "source" / "terraform", ignore=ignored)
    shutil.copytree(ROOT / "ops" / "cloudwatch", work / "source" / "ops" / "cloudwatch")


def _kubernetes_version() -> str:
    variables = (ROOT / "terraform" / "variables.tf").read_text()
    found = re.search(r'variable "kubernetes_version" \{.*?default\s*= "([0-9.]+)"', variables, re.DOTALL)
    assert found
    return found[1]


def _say(words: str) -> None:
    print(words, flush=True)


def _refuse(why: str, status: int) -> int:
    print(f"error: {why}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
