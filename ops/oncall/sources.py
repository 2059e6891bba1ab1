"""Where lines come from: a recording that grows, or one that was made before."""

import gzip
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final, Protocol, cast

from ops.oncall.lines import NoDocument, Told, parse

_READ_BYTES: Final = 256 * 1024  # some 10 ms of work; the page is answered in between
_READ_LINES: Final = 500  # likewise


@dataclass(frozen=True)
class Status:
    """How a source is doing.

    Attributes:
        kind: follow or replay.
        path: of the recording.
        state: waiting (there is no file), reading (there is more), playing, live or ended.
        share: of the file that was read, 0 to 1.
        speed: how much faster than it happened; None for as it happens, or all at once.
        refused: lines that were no documents.
    """

    kind: str
    path: str
    state: str
    share: float
    speed: float | None
    refused: int


def put_aside(path: Path) -> Path:
    """Where a recording goes that has grown too large, and another begins in its place."""
    return path.with_suffix(f".1{path.suffix}")


class Source(Protocol):
    """What documents come from."""

    def read(self, wall: float) -> list[Told]:
        """The next ones, where there are any by this time of the clock on the wall."""

    def now(self, wall: float) -> float:
        """The time on the page: the recording's own, where it is replayed."""

    def status(self) -> Status:
        """How it is doing."""

    def close(self) -> None:
        """Closes its file."""


class Follow:
    """Follows a recording while it is written: from its beginning, through truncation and rotation.

    What was put aside before it is read first.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._paths = [put_aside(path), path]  # of which the first was not yet read
        self._file: IO[bytes] | None = None
        self._rest = b""
        self._refused = 0
        self._share = 0.0
        self._is_behind = False

    def read(self, wall: float) -> list[Told]:  # noqa: ARG002 - it comes as it comes
        """See Source."""
        if self._file is None and not self._open():
            return []
        file = cast("IO[bytes]", self._file)
        data = file.read(_READ_BYTES)
        size = os.fstat(file.fileno()).st_size
        self._is_behind = len(data) == _READ_BYTES
        self._share = min(file.tell() / size, 1.0) if size else 1.0
        if not data and self._is_another(file, size):
            file.close()
            self._file = None
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return list(self._parsed(lines))

    def now(self, wall: float) -> float:
        """See Source."""
        return wall

    def status(self) -> Status:
        """See Source."""
        state = "waiting" if self._file is None else "reading" if self._is_behind else "live"
        return Status("follow", str(self._path), state, self._share, None, self._refused)

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
        self._rest = b""
        return self._file is not None

    def _is_another(self, file: IO[bytes], size: int) -> bool:
        """Whether the file was cut, or another is in its place."""
        try:
            there = self._path.stat()
        except OSError:
            return False  # what is open may still grow
        return there.st_ino != os.fstat(file.fileno()).st_ino or size < file.tell()

    def _parsed(self, lines: list[bytes]) -> Iterator[Told]:
        for line in lines:
            try:
                yield parse(line)
            except NoDocument:
                self._refused += 1


class Replay:
    """Plays a recording again.

    Args:
        path: of the file; one that ends in .gz is compressed.
        speed: how much faster than it happened; None for all at once.

    Raises:
        OSError: there is no such file.
        NoDocument: it has none to begin with.
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
            raise NoDocument(f"{path} has no line that tells its time")
        self._began = self._reached = self._next.at
        self._started: float | None = None

    def read(self, wall: float) -> list[Told]:
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
        return Status("replay", str(self._path), state, share, self._speed, self._refused)

    def close(self) -> None:
        """See Source."""
        self._raw.close()

    def _due(self, wall: float) -> Iterator[Told]:
        now = self.now(wall)
        while self._next is not None and (self._speed is None or self._next.at <= now):
            told = self._next
            self._reached = max(self._reached, told.at)
            self._next = next(self._documents, None)
            yield told

    def _parsed(self) -> Iterator[Told]:
        lines = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if self._path.suffix == ".gz" else self._raw
        for line in lines:
            try:
                yield parse(line)
            except NoDocument:
                self._refused += 1
        self._raw.close()
