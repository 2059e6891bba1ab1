"""The embedded PostgreSQL, which `serve` uses where no database is configured."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ops.common.process import ROOT
from svc.postgres import embedded
from svc.postgres.embedded import EmbeddedPostgres, running
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.process.test_lifecycle import status_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """A folder for the tests that may find a database in it, so that only one of them creates it."""
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        yield Path(folder)


def postgres_of(service: Service) -> psutil.Process:
    """The service's embedded PostgreSQL."""
    return next(child for child in psutil.Process(service.process.pid).children() if child.name() == "postgres")


def run_command(folder: Path, *command: str, **variables: str) -> str:
    environment = {"PATH": os.environ["PATH"], "LOCAL_FOLDER": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "svc", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_a_second_start_finds_the_same_data(short_folder: Path) -> None:
    """Serve creates, migrates and seeds a database; Ctrl-C stops both; the next start has the client that was added."""
    for workers, clients in (("1", 4), ("2", 5)):
        service = Service({"LOCAL_FOLDER": str(short_folder), "WORKERS": workers})
        try:
            service.wait_until_listening()
            postgres = postgres_of(service)
            assert status_of(f"{service.url}/get/{clients}") == 200
            assert status_of(f"{service.url}/get/{clients + 1}") == 404
            assert status_of(f"{service.url}/add?name=Ann&money=1", "POST") == 201
            assert service.stop(signal.SIGINT) == 0
            assert not postgres.is_running()
        finally:
            service.end()


def test_commands_use_the_running_database(shared_folder: Path) -> None:
    """Next to a running `serve`, migrate, seed and prune use its PostgreSQL and leave it running."""
    service = Service({"LOCAL_FOLDER": str(shared_folder)})
    try:
        service.wait_until_listening()

        assert run_command(shared_folder, "prune") == "0 idempotency keys deleted.\n"
        assert run_command(shared_folder, "seed") == "The database already has clients: nothing was changed.\n"
        run_command(shared_folder, "migrate")
        service.wait_until_ready()
    finally:
        service.end()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is missing")
def test_a_killed_service_leaves_no_postgres(shared_folder: Path) -> None:
    """Even after a SIGKILL of the service, its server ends."""
    service = Service({"LOCAL_FOLDER": str(shared_folder)})
    try:
        service.wait_until_listening()
        postgres = postgres_of(service)
        service.process.kill()

        assert not psutil.wait_procs([postgres], PATIENCE_SECONDS)[1]
    finally:
        service.end()


def test_a_killed_server_starts_again(shared_folder: Path) -> None:
    """A server that was killed recovers at the next start."""
    postgres = EmbeddedPostgres(shared_folder)
    postgres.start()
    postgres.kill()
    with running(shared_folder) as again:
        assert again.dsn() == postgres.dsn()


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(short_folder: Path) -> None:
    """The server also starts in a data folder whose path is too long for a socket."""
    deep = short_folder / ("long-" * 20) / ("path-" * 20)
    with running(deep) as postgres:
        assert "clients-" in postgres.dsn()
        shutil.rmtree(postgres._socket_folder())


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a b'%41+é#?&@:\\"])
def test_a_folder_may_have_any_name(short_folder: Path, name: str) -> None:
    """The server and both drivers work where the folder's name has characters that mean something in a URL."""
    run_command(short_folder / name, "migrate")
    folder = EmbeddedPostgres(short_folder / name)._socket_folder()
    if short_folder not in folder.parents:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("folder", "reason"), [("file", "Not a directory"), ("/proc/folder", "No such file")])
def test_a_folder_that_cannot_be_written_is_reported(short_folder: Path, folder: str, reason: str) -> None:
    """The command ends with a sentence that names the folder and the setting, without a traceback."""
    (short_folder / "file").touch()
    environment = {"PATH": os.environ["PATH"], "LOCAL_FOLDER": str(short_folder / folder / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "svc"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]

    assert done.returncode == 1
    assert last.startswith(f"error: cannot use {short_folder / folder}")
    assert reason in last
    assert last.endswith("set LOCAL_FOLDER to a folder that this user can write")


def test_variables_of_another_database_change_nothing(shared_folder: Path) -> None:
    """Libpq's variables, which are for another server, have no effect on the embedded one."""
    variables = {"PGSSLMODE": "verify-full", "PGPORT": "1", "PGSERVICE": "s", "PGTARGETSESSIONATTRS": "standby"}
    run_command(shared_folder, "migrate", **variables)
    run_command(shared_folder, "prune", **variables)


def test_the_reason_of_a_failed_start_is_reported(short_folder: Path) -> None:
    """The error message has the last lines of the server's log."""
    data = short_folder / "postgres"
    data.mkdir(mode=0o700)
    (data / "PG_VERSION").touch()
    (data / "postgresql.conf").write_text("no such setting\n")
    service = Service({"LOCAL_FOLDER": str(short_folder)})
    try:
        assert service.process.wait(PATIENCE_SECONDS) == 1
        assert "PostgreSQL did not start" in service.output
        assert "syntax error" in service.output
    finally:
        service.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users; the other tests ran unprivileged")
def test_it_runs_as_an_unprivileged_user(short_folder: Path) -> None:
    """Serve works for a user other than root, with the data in that user's folder."""
    user = embedded._unprivileged_user()
    shutil.chown(short_folder, user)
    # The prefix also lets that user read this Python's files, wherever they are; the service itself does not need that.
    service = Service({"LOCAL_FOLDER": str(short_folder)}, before=embedded._as_unprivileged_user())
    try:
        service.wait_until_listening()

        assert psutil.Process(service.process.pid).username() == user
        assert postgres_of(service).username() == user
        assert status_of(f"{service.url}/get/4") == 200
    finally:
        service.end()
