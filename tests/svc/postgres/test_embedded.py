"""The embedded PostgreSQL: `serve` without a database named."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.common.process import ROOT, Service
from svc.postgres import embedded
from svc.postgres.embedded import EmbeddedPostgres, running
from tests.svc.process.test_lifecycle import status_of


def postgres_of(service: Service) -> psutil.Process:
    """The service's own PostgreSQL."""
    return next(child for child in psutil.Process(service.process.pid).children() if child.name() == "postgres")


def run_command(folder: Path, *command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "LOCAL_FOLDER": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "svc", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_start_finds_the_same_data(short_folder: Path, workers: str) -> None:
    """Serve makes, migrates and seeds a database; Ctrl-C stops both; the next start has what was added."""
    for clients in (4, 5):
        service = Service({"LOCAL_FOLDER": str(short_folder), "WORKERS": workers})
        try:
            service.wait_until_listening()
            postgres = postgres_of(service)
            assert status_of(f"{service.url}/get/{clients}") == 200
            assert status_of(f"{service.url}/get/{clients + 1}") == 404
            assert status_of(f"{service.url}/add?name=Kept&money=1", "POST") == 201
            assert service.stop(signal.SIGINT) == 0
            assert not postgres.is_running()
        finally:
            service.end()


def test_commands_reach_the_running_database(short_folder: Path) -> None:
    """migrate, seed and prune work beside a running serve, and leave its PostgreSQL running."""
    service = Service({"LOCAL_FOLDER": str(short_folder)})
    try:
        service.wait_until_listening()

        assert run_command(short_folder, "prune") == "0 idempotency keys forgotten.\n"
        assert run_command(short_folder, "seed") == "There are clients already: nothing was changed.\n"
        run_command(short_folder, "migrate")
        assert status_of(f"{service.url}/readyz") == 200
    finally:
        service.end()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is missing")
def test_a_killed_service_leaves_no_postgres(short_folder: Path) -> None:
    """Not even SIGKILL leaves the server behind."""
    service = Service({"LOCAL_FOLDER": str(short_folder)})
    try:
        service.wait_until_listening()
        postgres = postgres_of(service)
        service.process.kill()

        assert not psutil.wait_procs([postgres], 20)[1]
    finally:
        service.end()


def test_a_power_failure_loses_nothing(short_folder: Path) -> None:
    """A server that was killed recovers on the next start."""
    postgres = EmbeddedPostgres(short_folder)
    postgres.start()
    postgres.kill()
    with running(short_folder) as again:
        assert again.dsn() == postgres.dsn()


def test_a_long_path_has_its_socket_elsewhere(short_folder: Path) -> None:
    """A data folder whose path no socket could have works all the same."""
    deep = short_folder / ("long-" * 20) / ("path-" * 20)
    with running(deep) as postgres:
        assert "clients-" in postgres.dsn()
        shutil.rmtree(postgres._socket_folder())


def test_what_keeps_postgres_from_starting_is_said(short_folder: Path) -> None:
    """The end of the server's log is in the message."""
    with running(short_folder) as postgres:
        data = postgres.data
    (data / "postgresql.conf").write_text("no such setting\n")
    service = Service({"LOCAL_FOLDER": str(short_folder)})
    try:
        assert service.process.wait(30) == 1
        assert "PostgreSQL did not start" in service.output
        assert "syntax error" in service.output
    finally:
        service.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the other tests ran as a plain one")
def test_it_runs_as_a_plain_user(short_folder: Path) -> None:
    """Serve works for a user who is not root, with the data in that user's folder."""
    user = embedded._plain_user()
    shutil.chown(short_folder, user)
    # The capability lets that user reach this Python, wherever it lies; the service never asks for it.
    service = Service({"LOCAL_FOLDER": str(short_folder)}, before=embedded._as_plain_user())
    try:
        service.wait_until_listening()

        assert psutil.Process(service.process.pid).username() == user
        assert postgres_of(service).username() == user
        assert status_of(f"{service.url}/get/4") == 200
    finally:
        service.end()
