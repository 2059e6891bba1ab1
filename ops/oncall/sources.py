"""Reads recordings: one that is being written, or an earlier one."""

import gzip
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final, Protocol, cast

from ops.oncall.documents import Entry, InvalidDocument, parse
from svc.errors import InvalidSetting

_READ_BYTES: Final = 256 * 1024  # some 10 ms of work; the server answers requests between two reads
_READ_LINES: Final = 100  # as above
_MEGABYTE: Final = 1_000_000
_MAX_BYTES: Final = 100 * _MEGABYTE  # of a recording: 12 to 24 minutes of 20 requests a second


@dataclass(frozen=True)
class Status:
    """The status of a source.

    Attributes:
        kind: follow or replay.
        path: of the recording.
        state: waiting (there is no file), reading (more of the file follows), playing, live or ended.
        share: of the file that is read, 0 to 1.
        speed: a multiple of the original speed; None without a replay, or where all is read at once.
        refused: the number of lines that are not valid documents.
        bytes: the size of the recording.
        max_bytes: to which it grows; None of a replay.
    """

    kind: str
    path: str
    state: str
    share: float
    speed: float | None
    refused: int
    bytes: int
    max_bytes: int | None


def rotated(path: Path) -> Path:
    """The path to which a recording is renamed when it reaches half of its maximum size."""
    return path.with_suffix(f".1{path.suffix}")


def max_bytes(environment: Mapping[str, str]) -> int:
    """The maximum size of a recording with the one before it: RECORDING_MB, or 100 MB.

    Raises:
        InvalidSetting: it is not a whole number of megabytes.
    """
    text = environment.get("RECORDING_MB") or str(_MAX_BYTES // _MEGABYTE)
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise InvalidSetting("RECORDING_MB", repr(text), "a whole number of megabytes from 1 to 99999")
    return int(text) * _MEGABYTE


class Source(Protocol):
    """A source of entries."""

    def read(self, wall: float) -> list[Entry]:
        """The next entries up to this time, if any."""

    def now(self, wall: float) -> float:
        """The time that the page shows: in a replay, that of the recording."""

    def status(self) -> Status:
        """The current status."""

    def close(self) -> None:
        """Closes the file."""


class Follow:
    """Follows a recording while it is written: from its beginning, through truncation and rotation.

    A rotated file is read first.

    Args:
        path: of the file, which does not have to exist yet.
        limit: the maximum size of both files, in bytes.
    """

    def __init__(self, path: Path, limit: int = _MAX_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._paths = [rotated(path), path]  # to open next, in this order
        self._file: IO[bytes] | None = None
        self._partial_line = b""
        self._refused = 0
        self._share = 0.0
        self._is_behind = False

    def read(self, wall: float) -> list[Entry]:  # noqa: ARG002 - lines are read as they are written
        """See Source."""
        if self._file is None and not self._open():
            return []
        file = cast("IO[bytes]", self._file)
        data = file.read(_READ_BYTES)
        size = os.fstat(file.fileno()).st_size
        self._is_behind = len(data) == _READ_BYTES
        self._share = min(file.tell() / size, 1.0) if size else 1.0
        if not data and self._is_replaced(file, size):
            file.close()
            self._file = None
            return []
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        return list(self._parsed(lines))

    def now(self, wall: float) -> float:
        """See Source."""
        return wall

    def status(self) -> Status:
        """See Source."""
        state = "waiting" if self._file is None else "reading" if self._is_behind else "live"
        size = sum(path.stat().st_size for path in (rotated(self._path), self._path) if path.exists())
        return Status("follow", str(self._path), state, self._share, None, self._refused, size, self._limit)

    def close(self) -> None:
        """See Source."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> bool:
        for path in self._paths:
            with suppress(OSError):
                self._file = path.open("rb")
                break
        self._paths = [self._path]
        self._partial_line = b""
        return self._file is not None

    def _is_replaced(self, file: IO[bytes], size: int) -> bool:
        """Whether the file was truncated or replaced by another."""
        try:
            current = self._path.stat()
        except OSError:
            return False  # the open file may still grow
        return current.st_ino != os.fstat(file.fileno()).st_ino or size < file.tell()

    def _parsed(self, lines: list[bytes]) -> Iterator[Entry]:
        for line in lines:
            try:
                yield parse(line)
            except InvalidDocument:
                self._refused += 1


class Replay:
    """Replays a recording.

    Args:
        path: of the file; compressed where the name ends in .gz.
        speed: a multiple of the original speed; None to read all at once.

    Raises:
        OSError: the file cannot be opened.
        InvalidDocument: the file has no valid line.
    """

    def __init__(self, path: Path, speed: float | None = None) -> None:
        self._path = path
        self._speed = speed
        self._raw = path.open("rb")
        self._size = max(1, os.fstat(self._raw.fileno()).st_size)
        self._refused = 0
        self._documents = self._parsed()
        self._next = next(self._documents, None)
        if self._next is None:
            self.close()
            raise InvalidDocument(f"{path} has no line that is a JSON object with a time")
        self._began = self._reached = self._next.at
        self._started: float | None = None

    def read(self, wall: float) -> list[Entry]:
        """See Source."""
        if self._started is None:
            self._started = wall
        return list(islice(self._due(wall), _READ_LINES))

    def now(self, wall: float) -> float:
        """See Source."""
        if self._speed is None or self._next is None:
            return self._reached
        return self._began + (wall - (self._started or wall)) * self._speed

    def status(self) -> Status:
        """See Source."""
        share = 1.0 if self._next is None or self._raw.closed else min(self._raw.tell() / self._size, 1.0)
        state = "ended" if self._next is None else "playing" if self._speed else "reading"
        return Status("replay", str(self._path), state, share, self._speed, self._refused, self._size, None)

    def close(self) -> None:
        """See Source."""
        self._raw.close()

    def _due(self, wall: float) -> Iterator[Entry]:
        now = self.now(wall)
        while self._next is not None and (self._speed is None or self._next.at <= now):
            entry = self._next
            self._reached = max(self._reached, entry.at)
            self._next = next(self._documents, None)
            yield entry

    def _parsed(self) -> Iterator[Entry]:
        lines = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if self._path.suffix == ".gz" else self._raw
        for line in lines:
            try:
                yield parse(line)
            except InvalidDocument:
                self._refused += 1
        self._raw.close()
