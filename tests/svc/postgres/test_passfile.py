"""A password file: its passwords are those that libpq finds, and a changed one needs no restart."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from aiohttp import ClientSession

from svc.errors import DatabaseUnavailable
from svc.postgres import database, dsn, scram
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.passfile import PasswordFile
from svc.postgres.settings import DatabaseSettings
from tests.conftest import SERVICE_ROLE, Log, Owner
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

PASSWORD = "a:b\\c d"
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"
WRITTEN = "a\\:b\\\\c d"  # with its escapes


@pytest.fixture
async def needs_password(
    postgres: EmbeddedPostgres, test_database: str, owner: Owner, database_settings: DatabaseSettings
) -> AsyncIterator[None]:
    """The service's role needs PASSWORD to connect to the test's database."""
    rules = postgres.data / "pg_hba.conf"
    trusting = rules.read_text()
    rules.write_text(f"local {test_database} {SERVICE_ROLE} scram-sha-256\n{trusting}")
    await set_password(owner, PASSWORD)
    await owner.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while can_connect(database_settings.dsn):  # noqa: ASYNC110 - a condition without an event
            await asyncio.sleep(0.05)
    yield
    rules.write_text(trusting)
    await owner.execute("SELECT pg_reload_conf()")


async def set_password(owner: Owner, password: str) -> None:
    await owner.execute(f"ALTER ROLE {SERVICE_ROLE} PASSWORD '{scram.verifier(password)}'")


def can_connect(url: str) -> bool:
    """Whether libpq can connect."""
    try:
        psycopg2.connect(url).close()
    except psycopg2.OperationalError:
        return False
    return True


def naming(settings: DatabaseSettings, file: Path) -> DatabaseSettings:
    """The settings with the password file."""
    parsed = dsn.parse(settings.dsn)
    return replace(settings, dsn=str(replace(parsed, parameters={**parsed.parameters, "passfile": str(file)})))


def write(file: Path, text: str, mode: int = 0o600) -> None:
    """Replaces the file at once."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.rename(file)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"*:*:*:*:{WRITTEN}\n", True),
        (f"*:*:*:*:{WRITTEN}", True),
        (f"*:*:*:*:{WRITTEN}\r\n", True),
        (f"# a comment\n\n*:*:*:*:{WRITTEN}:what follows is ignored\n", True),
        (f"elsewhere:*:*:*:wrong\n{{host}}:5432:{{database}}:{SERVICE_ROLE}:{WRITTEN}\n", True),
        (f"*:*:*:clients\\_service:{WRITTEN}\n", True),
        (f"*:*:*:*:wrong\n*:*:*:*:{WRITTEN}\n", False),
        (f"*:5433:*:*:{WRITTEN}\n", False),
        (f"*:*:*:postgres:{WRITTEN}\n", False),
        (f"\\*:*:*:*:{WRITTEN}\n", False),
        (f"*:*:*:*:{PASSWORD}\n", False),
        (f"*:*:*:{WRITTEN}\n", False),
        ("*:*:*:*:\n", False),
        ("", False),
    ],
)
@pytest.mark.usefixtures("needs_password")
async def test_the_password_is_the_one_that_libpq_finds(
    database_settings: DatabaseSettings, tmp_path: Path, text: str, found: bool
) -> None:
    """With each content of the file, the service can connect where libpq can."""
    parsed = dsn.parse(database_settings.dsn)
    write(tmp_path / "pass", text.format(host=parsed.parameters["host"], database=parsed.database))
    settings = naming(database_settings, tmp_path / "pass")

    assert can_connect(settings.dsn) == found
    async with database.connect(settings) as connected:
        if found:
            assert await connected.value("SELECT 1") == 1
        else:
            with pytest.raises(DatabaseUnavailable):
                await connected.value("SELECT 1")


@pytest.mark.usefixtures("needs_password")
async def test_a_changed_password_needs_no_restart(
    serve: Callable[..., Service], owner: Owner, database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    """The password changes, then the file, then all connections are closed: the service connects with the new one."""
    file = tmp_path / "pass"
    write(file, f"*:*:*:*:{WRITTEN}\n")
    parsed = dsn.parse(database_settings.dsn)
    parts = {"DB_HOST": parsed.parameters["host"], "DB_NAME": parsed.database, "DB_USERNAME": SERVICE_ROLE}
    service = serve(DATABASE_URL="", **parts, DB_PASSFILE=str(file))

    async def get() -> int:
        async with session.get(f"{service.url}/get/1") as response:
            return response.status

    async with ClientSession() as session:
        assert await get() == 200
        await set_password(owner, "new")
        write(file, "*:*:*:*:new\n")
        for (backend,) in await owner.fetch(BACKENDS, SERVICE_ROLE):
            await owner.fetchval("SELECT pg_terminate_backend($1, 10000)", backend)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await get() != 200:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert await owner.fetch(BACKENDS, SERVICE_ROLE)


@pytest.mark.usefixtures("needs_password")
async def test_a_file_that_is_replaced_late_is_used_by_the_next_connection(
    database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    """While the file has the old password, new connections are refused; afterwards they are not."""
    file = tmp_path / "pass"
    write(file, "*:*:*:*:old\n")
    async with database.connect(naming(database_settings, file)) as connected:
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")
        write(file, f"*:*:*:*:{WRITTEN}\n")
        assert await connected.value("SELECT 1") == 1


def find(file: Path | None) -> str:
    named = {"passfile": str(file)} if file else {}
    return PasswordFile(dsn.Dsn("d", {"user": "u", **named})).password("h", "1")


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o660, 0o611])
def test_a_file_that_others_can_read_is_not_used(tmp_path: Path, log: Log, mode: int) -> None:
    """As in libpq; the log names the file and the remedy, and not the password."""
    write(tmp_path / "pass", "*:*:*:*:secret\n", mode)

    assert find(tmp_path / "pass") == ""
    (line,) = log.read()
    assert line["event"] == "password_file_ignored"
    assert line["detail"] == f"{tmp_path}/pass can be read or changed by other users; run chmod 600 on it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_group_may_read_a_file_of_root_only(tmp_path: Path) -> None:
    """Kubernetes mounts a secret so: of root, and readable by the pod's group."""
    write(tmp_path / "pass", "*:*:*:*:secret\n", 0o440)
    assert find(tmp_path / "pass") == "secret"
    os.chown(tmp_path / "pass", 1, -1)
    assert find(tmp_path / "pass") == ""


def test_a_file_that_cannot_be_read_is_logged_once(tmp_path: Path, log: Log) -> None:
    """Not at each connection, but again after it could be read."""
    file = tmp_path / "pass"
    passwords = PasswordFile(dsn.Dsn("d", {"user": "u", "passfile": str(file)}))

    def find() -> tuple[str, list[str]]:
        return passwords.password("h", "1"), [line["detail"] for line in log.read()]

    missing = f"{file} cannot be read: No such file or directory"
    assert find() == ("", [missing])
    assert find() == ("", [])
    file.mkdir()
    assert find() == ("", [f"{file} is not a regular file"])
    file.rmdir()
    file.write_bytes(b"*:*:*:*:\xff\n")
    file.chmod(0o600)
    assert find() == ("", [f"{file} is not UTF-8"])
    write(file, "*:*:*:*:secret\n")
    assert find() == ("secret", [])
    file.unlink()
    assert find() == ("", [missing])


def test_the_default_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """Without a named file, ~/.pgpass is used where it exists."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find(None) == ""
    write(tmp_path / ".pgpass", "*:*:*:*:secret\n")
    assert find(None) == "secret"
    monkeypatch.setenv("HOME", "/nonexistent")
    assert find(None) == ""
    assert log.read() == []
