"""The command line: `python -m ops.rehearsal` runs the whole deployment without an AWS account."""

import argparse
import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.common import haproxy
from ops.common.pages import render
from ops.rehearsal import environment, images, picture, steps, traffic
from ops.rehearsal.aws import ACCOUNT, inventory
from ops.rehearsal.kind import cluster
from ops.rehearsal.kind import environment as kind
from ops.rehearsal.steps import KINDS, ROOT, Step, StepFailed
from ops.rehearsal.traffic import Traffic
from svc.postgres.embedded import EmbeddedPostgresError

_MISSING_PREREQUISITE: Final = 3  # the exit status if Terraform, its provider, kubectl or HAProxy is missing
_ADMIN: Final = (
    f"arn:aws:iam::{ACCOUNT}:role/{environment.NAME}-github-apply"  # the name is that of terraform/bootstrap
)
_VERSION: Final = re.compile(r'(variable "kubernetes_version" \{.*?default\s*= "1\.)(\d+)', re.DOTALL)


class MissingPrerequisite(Exception):
    """This machine lacks something that a rehearsal needs."""


def main() -> int:
    """Runs the rehearsal; returns 0 if all steps passed, 1 if one failed, 3 if a prerequisite is missing."""
    arguments = _parser().parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that everything is stopped
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _fail(f"another rehearsal is running in {folder}", 1)
        report = Report(folder / "report.json")
        try:
            _rehearse(folder, report, on_kind=arguments.kind, is_held=arguments.hold)
        except MissingPrerequisite as error:
            return _fail(f"{error}. Nothing was rehearsed.", _MISSING_PREREQUISITE)
        except (StepFailed, EmbeddedPostgresError) as error:
            return _fail(str(error), 1)
        except KeyboardInterrupt:
            return 130
        finally:
            report.draw()
    _print(
        f"All steps passed in {report.seconds():.0f} s. {folder / 'report.html'} has their times, "
        f"{folder / 'logs'} their output."
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.rehearsal",
        description="Deploys everything to a mock AWS and a fake cluster on this machine, checks the result, "
        "and destroys it again. Needs terraform, kubectl and haproxy, but no AWS account.",
    )
    text = "the folder for its files, logs and report (default: %(default)s)"
    parser.add_argument("--folder", type=Path, default=Path(".rehearse"), help=text)
    text = "use a real cluster, of kind, instead of the fake one; needs Docker, kind and wrk, too"
    parser.add_argument("--kind", action="store_true", help=text)
    text = "stop after terraform apply, and keep everything until Ctrl-C, for steps by hand"
    parser.add_argument("--hold", action="store_true", help=text)
    return parser


@dataclass
class Report:
    """Records the steps and their durations, prints them, and rewrites the report file after each step.

    Attributes:
        file: of the report.
        steps: each step's name and kind, the second in which it began, its seconds, and whether it worked.
        traffic: the figures of the requests that were sent during releases and upgrade.
        worked: whether nothing has failed so far.
    """

    file: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    traffic: dict[str, object] = field(default_factory=dict)
    worked: bool = True
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def step(self, name: str, kind: str = KINDS[0]) -> Iterator[None]:
        """Measures the context as a step; the step fails with an exception."""
        _print(f"…  {name}")
        started = self.seconds()
        worked = False
        try:
            yield
            worked = True
        finally:
            seconds = round(self.seconds() - started, 1)
            step = {"name": name, "kind": kind, "started": started, "seconds": seconds, "worked": worked}
            with self._lock:
                self.steps = sorted([*self.steps, step], key=lambda one: float(one["started"]))
                self._write(worked=worked)
            _print(f"{'✓' if worked else '✗'}  {name} ({seconds:.0f} s)")

    def add_traffic(self, sent: Traffic) -> None:
        """Adds the figures of the requests, and prints them."""
        self.traffic = sent.figures()
        self._write(worked=not sent.problem())
        _print(f"   requests: {json.dumps(self.traffic)}")

    def _write(self, *, worked: bool) -> None:
        self.worked = self.worked and worked
        report = {"worked": self.worked, "seconds": self.seconds(), "steps": self.steps, "traffic": self.traffic}
        self.file.write_text(json.dumps(report, indent=2))

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        failed = [step["name"] for step in self.steps if not step["worked"]]
        if failed:
            return f"{len(failed)} of {len(self.steps)} steps failed: {', '.join(failed)}."
        return f"All {len(self.steps)} steps passed." if self.worked else "Requests failed during releases and upgrade."

    def draw(self) -> None:
        """Writes the page next to the report file."""
        page = render(
            Path(__file__).with_name("report.html"),
            {"steps": picture.of_steps(self.steps)},
            worked=self.worked,
            sentence=self.sentence,
            totals={"steps": len(self.steps), "took": f"{self.seconds():,.0f} s"},
            steps=self.steps,
            traffic=self._named_traffic(),
        )
        self.file.with_name("report.html").write_text(page)

    def _named_traffic(self) -> dict[str, str]:
        figures = {name.replace("_", " "): value for name, value in self.traffic.items()}
        builds = figures.pop("builds", {})
        assert isinstance(builds, Mapping)
        named = {name: f"{count:,}" for name, count in figures.items()}
        return {**named, **{f"responses of build {build}": f"{count:,}" for build, count in builds.items()}}

    def seconds(self) -> float:
        """Returns the time since the start."""
        return round(time.monotonic() - self._began, 1)


def _rehearse(folder: Path, report: Report, *, on_kind: bool, is_held: bool) -> None:
    work, logs = folder / "work", folder / "logs"
    with report.step("remove the files of an earlier rehearsal"):
        steps.kill_leftovers(logs)
        for old in (work, logs):
            shutil.rmtree(old, ignore_errors=True)
            old.mkdir()
    with report.step("check the prerequisites"):
        version = _kubernetes_version(ROOT / "terraform")
        if on_kind and (missing := cluster.missing(version)):
            raise MissingPrerequisite(missing)
        provider = _provider(work)
        terraform = _copy_terraform(work)
        if not (on_kind or is_held):
            version = _lower_kubernetes_version(terraform)  # the history has an upgrade
    with ExitStack() as stack:
        with report.step("start the mock AWS, the cluster and PostgreSQL"):
            sources = images.write(work / "images")
            running = (kind if on_kind else environment).running(work / "environment", version, sources)
            started = stack.enter_context(running)
        public = "{}:{}".format(*started.public_address)
        variables = {
            **started.variables,
            **provider,
            **_step_variables(work),
            "REHEARSAL_AUTHORITY": str(started.ca),
            "REHEARSAL_DATABASE": started.database_dsn,
            "REHEARSAL_PUBLIC": public,
            "REHEARSAL_INVENTORY": str(work / "inventory.json"),
        }
        (work / "inventory.json").write_text(json.dumps(sorted(inventory())))
        stages = (steps.on_kind if on_kind else steps.history)(started.ca, public)
        numbers = itertools.count(1)
        for has_traffic, group in itertools.groupby(stages[:1] if is_held else stages, key=steps.has_traffic):
            with _traffic(started, sources, report) if has_traffic else nullcontext():
                for stage in group:
                    numbered = [
                        [(next(numbers), steps.with_images(step, started.images)) for step in sequence]
                        for sequence in stage
                    ]
                    _run_stage(numbered, variables, logs, report)
        if is_held:
            _hold(folder / "variables", {**variables, "IMAGE": started.images.get(steps.IMAGE, steps.IMAGE)})


def _hold(file: Path, variables: Mapping[str, str]) -> None:
    """Writes the variables with which make reaches the environment, and waits for Ctrl-C."""
    exported = {name: value for name, value in variables.items() if name not in ("PATH", "HOME")}
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exported.items()))
    _print(
        f"""\
In another terminal:
  . {file}
  make deploy-database ARGS="--authority $REHEARSAL_AUTHORITY"
  make deploy-objects
  make smoke ARGS="--connect $REHEARSAL_PUBLIC --authority $REHEARSAL_AUTHORITY"
Ctrl-C removes everything."""
    )
    with suppress(KeyboardInterrupt):
        signal.pause()


@contextmanager
def _traffic(started: environment.Environment, sources: Mapping[str, Path], report: "Report") -> Iterator[None]:
    """Sends requests while the context is open, and reports what became of them.

    Raises:
        StepFailed: a request failed, an acknowledged client is lost, or a build served without its schema.
    """
    url = "https://{}:{}".format(*started.public_address)
    needed = {image.rpartition(":")[2]: images.migrations(source) for image, source in sources.items()}
    hostname = f"flask.{environment.DOMAIN}"
    with traffic.running(url, hostname, started.ca, started.database_dsn, needed) as sent:
        yield
    report.add_traffic(sent)
    if problem := sent.problem():
        raise StepFailed(f"of {sent.requests} requests during releases and upgrade: {problem}")


def _run_stage(
    stage: Sequence[Sequence[tuple[int, Step]]], variables: Mapping[str, str], logs: Path, report: Report
) -> None:
    """Runs the numbered steps of each sequence in their order, all sequences at once. A failure stops all of them."""
    stop = threading.Event()

    def run_sequence(sequence: Sequence[tuple[int, Step]]) -> None:
        for number, step in sequence:
            log = logs / f"{number:02}-{re.sub('[^a-z0-9]+', '-', step.name.lower())}.log"
            _run(step, variables, log, report, stop.is_set)

    with ThreadPoolExecutor(len(stage)) as pool:
        running = [pool.submit(run_sequence, sequence) for sequence in stage]
        try:
            for ended in as_completed(running):
                ended.result()
        finally:
            stop.set()  # after a failure, and after Ctrl-C


def _run(
    step: Step, variables: Mapping[str, str], log: Path, report: Report, stop: Callable[[], bool] = lambda: False
) -> None:
    try:
        with report.step(step.name, step.kind):
            steps.run(step, variables, log, lambda line: _print(f"   {line}"), stop)
    except StepFailed as error:
        raise StepFailed(f"{step.name} failed; the end of {log}:\n{error}\n\nWhere to look: {step.advice}") from None


def _step_variables(work: Path) -> dict[str, str]:
    """Returns the steps' environment variables besides AWS's; the steps inherit nothing else from this machine."""
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
    """Returns variables with which Terraform finds its provider, in its registry or in a mirror on this machine.

    Raises:
        MissingPrerequisite: one of them, kubectl or HAProxy is missing.
    """
    if haproxy.find() is None:
        raise MissingPrerequisite("haproxy is missing (on Debian: apt install haproxy)")
    for tool in ("terraform", "kubectl"):
        if shutil.which(tool) is None:
            raise MissingPrerequisite(f"{tool} is missing")
    probe = work / "probe"
    probe.mkdir()
    shutil.copy(ROOT / "terraform" / "bootstrap" / "main.tf", probe)
    inherited = {name: os.environ[name] for name in ("TF_CLI_CONFIG_FILE",) if name in os.environ}
    if _can_init(probe, inherited):
        return inherited
    mirror = subprocess.run(["bash", ROOT / ".ci" / "mirror"], capture_output=True, text=True, check=False)  # noqa: S607
    config = work / "terraformrc"
    config.write_text(mirror.stdout)
    mirrored = {"TF_CLI_CONFIG_FILE": str(config)}
    if mirror.returncode or not _can_init(probe, mirrored):
        raise MissingPrerequisite("Terraform's AWS provider is neither in its registry nor in a mirror on this machine")
    return mirrored


def _can_init(folder: Path, variables: dict[str, str]) -> bool:
    command = ["terraform", f"-chdir={folder}", "init", "-backend=false", "-input=false"]
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1", **variables}
    return subprocess.run(command, env=variables, capture_output=True, timeout=300, check=False).returncode == 0


def _copy_terraform(work: Path) -> Path:
    """Copies the source, because Terraform writes files next to it; returns the copy."""
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfplan", "*.tfvars")
    shutil.copytree(ROOT / "ops" / "cloudwatch", work / "source" / "ops" / "cloudwatch")
    return shutil.copytree(ROOT / "terraform", work / "source" / "terraform", ignore=ignored)


def _kubernetes_version(terraform: Path) -> str:
    """Returns the default minor version of Kubernetes."""
    found = _VERSION.search((terraform / "variables.tf").read_text())
    assert found
    return f"1.{found[2]}"


def _lower_kubernetes_version(terraform: Path) -> str:
    """Gives the source the minor version before, and returns it."""
    file = terraform / "variables.tf"
    file.write_text(_VERSION.sub(lambda found: f"{found[1]}{int(found[2]) - 1}", file.read_text(), count=1))
    return _kubernetes_version(terraform)


def _print(line: str) -> None:
    print(line, flush=True)


def _fail(reason: str, status: int) -> int:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
