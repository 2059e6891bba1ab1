"""libpq's password file, read at each connection: a changed password needs no restart.

https://www.postgresql.org/docs/current/libpq-pgpass.html. asyncpg reads such a file too, but keeps the backslashes
that escape other characters in a password.
"""

import re
import stat
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import structlog

from svc.logs import names
from svc.postgres.dsn import Dsn

_log = structlog.get_logger()

_FIELD: Final = re.compile(r"((?:\\.|[^:\\])*):")
_PASSWORD: Final = re.compile(r"(?:\\.|[^:])*")
_ESCAPE: Final = re.compile(r"\\(.)")


class _Unusable(Exception):
    """The file cannot be used, with the reason."""


class PasswordFile:
    """The passwords of the file that a URL names, or of `~/.pgpass`."""

    def __init__(self, dsn: Dsn) -> None:
        self._database, self._user = dsn.database, dsn.parameters["user"]
        named = dsn.parameters.get("passfile")
        self._is_default = named is None
        self._path = Path(named) if named else _default_path()
        self._logged = ""  # the reason that was logged last, so that not every connection logs it

    def password(self, host: str, port: str) -> str:
        """The password of the first line that matches; empty where there is none, or the file cannot be used."""
        try:
            lines = self._lines()
        except _Unusable as error:
            if self._logged != str(error):
                self._logged = str(error)
                _log.warning(names.PASSWORD_FILE_IGNORED, detail=f"{self._path} {error}")
            return ""
        self._logged = ""
        hosts = {host, "localhost"} if host.startswith("/") else {host}  # a socket's folder, or as libpq's default one
        wanted = (hosts, {port}, {self._database}, {self._user})
        return next((password for line in lines if (password := _match(line, wanted))), "")

    def _lines(self) -> list[str]:
        try:
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise _Unusable("is not a regular file")
            # libpq allows this for private keys only. Kubernetes mounts a secret as root's, readable by the group.
            allowed = stat.S_IRGRP if status.st_uid == 0 else 0
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed:
                raise _Unusable("can be read or changed by other users; run chmod 600 on it")
            return self._path.read_text("utf-8").split("\n")
        except UnicodeError:
            raise _Unusable("is not UTF-8") from None
        except OSError as error:
            if self._is_default:
                return []
            raise _Unusable(f"cannot be read: {error.strerror}") from None


def _match(line: str, wanted: Sequence[AbstractSet[str]]) -> str | None:
    """The password of a line whose fields each have one of the wanted values, or match any as `*`."""
    if line.startswith("#"):
        return None
    position = 0
    for values in wanted:
        field = _FIELD.match(line, position)
        if field is None or (field[1] != "*" and _ESCAPE.sub(r"\1", field[1]) not in values):
            return None
        position = field.end()
    password = _PASSWORD.match(line, position)
    return _ESCAPE.sub(r"\1", password[0]) if password else None


def _default_path() -> Path:
    try:
        return Path.home() / ".pgpass"
    except RuntimeError:  # the user has no home folder
        return Path("/nonexistent")
