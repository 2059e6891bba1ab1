"""The first second of a process: signals, also as the first process of a container, and closed standard streams."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from ops.common.process import ROOT
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.process.test_lifecycle import (
    LONG_DRAIN,
    count_of,
    status_of,
    wait_for,
    wait_until_ended,
)

pytestmark = pytest.mark.slow

Start = Callable[[Mapping[str, str], Sequence[str]], Service]
STOPPED_EARLY = 128 + signal.SIGTERM


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the service with variables and a command before it; each process ends with the test."""
    services: list[Service] = []

    def start_one(environment: Mapping[str, str], before: Sequence[str]) -> Service:
        services.append(Service(environment, before=before))
        return services[-1]

    yield start_one
    for service in services:
        service.end()


@pytest.fixture
def namespace() -> Sequence[str]:
    """A command that runs another one as process 1 of its own namespace, like a container's process."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", *user, "--pid", "--fork", "--mount-proc", "--kill-child")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"a PID namespace is not permitted: {error}")
    return command


def first_process(service: Service) -> psutil.Process:
    """The service's process inside its namespace."""
    children = psutil.Process(service.process.pid).children
    wait_for(lambda: bool(children()) and children()[0].name() != "unshare")
    return children()[0]


def catches(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether the process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> number - 1 & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_imports_ends_the_first_process_of_a_container(
    start: Start, namespace: Sequence[str], tmp_path: Path, number: signal.Signals
) -> None:
    """The kernel drops signals to process 1 that have no handler, so the handlers come before the slow imports."""
    (tmp_path / "argparse.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    service = start({"PYTHONPATH": str(tmp_path)}, ("env", f"--default-signal={number.name[3:]}", *namespace))
    wait_for(lambda: "importing" in service.output)
    first_process(service).send_signal(number)

    assert service.process.wait(PATIENCE_SECONDS) == 128 + number
    assert service.output == "importing\n"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_sigterm_in_the_first_second_ends_the_first_process_of_a_container(
    start: Start, namespace: Sequence[str], database_settings: DatabaseSettings, seconds: float, workers: str
) -> None:
    """Whatever it is doing at that moment, it ends without a traceback."""
    environment = {"DATABASE_URL": database_settings.dsn, "DRAIN_SECONDS": "0", "WORKERS": workers}
    service = start(environment, namespace)
    process = first_process(service)
    wait_for(lambda: catches(process, signal.SIGTERM))
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)

    assert service.process.wait(PATIENCE_SECONDS) in (0, STOPPED_EARLY)
    assert "Traceback" not in service.output


def test_a_second_signal_ends_the_first_process_of_a_container(
    start: Start, namespace: Sequence[str], database_settings: DatabaseSettings
) -> None:
    """A second SIGTERM ends the drain."""
    service = start({"DATABASE_URL": database_settings.dsn, "DRAIN_SECONDS": LONG_DRAIN}, namespace)
    wait_for(lambda: count_of(service, names.STARTED) == 1)
    process = first_process(service)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: count_of(service, names.STOPPING) == 1)
    process.send_signal(signal.SIGTERM)

    assert service.process.wait(PATIENCE_SECONDS) == STOPPED_EARLY


def test_sigterm_while_the_embedded_postgresql_is_created_leaves_nothing_behind(
    start: Start, short_folder: Path
) -> None:
    """An incomplete data folder is not taken for a database."""
    # Python warns of the program that it has killed and does not wait for.
    service = start({"LOCAL_FOLDER": str(short_folder), "PYTHONWARNINGS": "ignore"}, ())
    wait_for((short_folder / "postgres.new" / "PG_VERSION").exists)
    service.process.send_signal(signal.SIGTERM)

    assert service.process.wait(PATIENCE_SECONDS) == STOPPED_EARLY
    assert not (short_folder / "postgres").exists()
    assert "Traceback" not in service.output


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_sigterm_while_the_embedded_postgresql_starts_stops_it(
    start: Start, short_folder: Path, seconds: float
) -> None:
    """It also stops while the schema is created in it."""
    service = start({"LOCAL_FOLDER": str(short_folder), "DRAIN_SECONDS": "0"}, ())
    lock = short_folder / "postgres" / "postmaster.pid"
    wait_for(lambda: lock.exists() and lock.read_text().endswith("\n"))
    server = psutil.Process(int(lock.read_text().splitlines()[0]))
    time.sleep(seconds)
    service.process.send_signal(signal.SIGTERM)

    assert service.process.wait(PATIENCE_SECONDS) in (0, STOPPED_EARLY)
    # Not the file, which stays if the signal comes before the server handles signals; the next start replaces it.
    wait_until_ended([server])
    assert "Traceback" not in service.output


def test_nohup_keeps_the_service_running(start: Start, database_settings: DatabaseSettings) -> None:
    """Where SIGHUP was ignored at the start, it still is."""
    service = start({"DATABASE_URL": database_settings.dsn, "DRAIN_SECONDS": LONG_DRAIN}, ("nohup",))
    service.wait_until_listening()
    service.process.send_signal(signal.SIGHUP)

    assert status_of(f"{service.url}/healthz") == 200
    assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("closed", "descriptors"), [("<&-", [0]), (">&-", [1]), ("<&- >&-", [0, 1]), ("2>&-", [2])])
def test_closed_standard_streams_are_replaced(
    start: Start, database_settings: DatabaseSettings, closed: str, descriptors: list[int]
) -> None:
    """No socket gets the descriptor of a closed stream, and the service starts and ends as usual."""
    service = start(
        {"DATABASE_URL": database_settings.dsn, "DRAIN_SECONDS": "0"}, ("sh", "-c", f'exec "$@" {closed}', "sh")
    )
    wait_for(lambda: "API   http" in service.output or count_of(service, names.STARTED) == 1)
    opened = {str(Path(f"/proc/{service.process.pid}/fd/{number}").readlink()) for number in descriptors}

    assert opened == {os.devnull}
    assert service.stop() == 0
    assert "Traceback" not in service.output


def test_the_greeting_needs_no_reader(start: Start, database_settings: DatabaseSettings) -> None:
    """The service starts where stderr is a pipe that nothing reads."""
    service = start({"DATABASE_URL": database_settings.dsn, "DRAIN_SECONDS": "0"}, _with_a_closed_pipe_as_stderr())
    wait_for(lambda: count_of(service, names.STARTED) == 1)

    assert service.stop() == 0


def _with_a_closed_pipe_as_stderr() -> Sequence[str]:
    code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 2); os.execvp(sys.argv[1], sys.argv[1:])"
    return (sys.executable, "-c", code)


def test_the_command_line_needs_no_standard_streams() -> None:
    """A command without any stream ends with its usual status."""
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    command = [*closed, sys.executable, "-m", "svc", "key"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
