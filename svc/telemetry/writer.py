"""Lines to a file descriptor from a thread of its own, so that a reader who stalls or dies slows nobody."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

_GATHER_SECONDS: Final = 0.02  # lines gather so long and go out together: one wake-up for many
_STOP_SECONDS: Final = 2.0  # for what is queued at the end
_ATOMIC_BYTES: Final = 4096  # Linux's PIPE_BUF: so much reaches a pipe whole, whichever process else writes to it

WAITING_MOST_BYTES: Final = 8 * 2**20  # for a reader; at 400 bytes a line, some 20,000 lines


class LineWriter:
    """Takes lines at once and writes them when it can; beyond a bound it drops and counts them.

    Until its thread runs, each line is written on the spot: a process that is going to fork must have no thread.

    Attributes:
        dropped: lines that found no reader.
    """

    def __init__(self, descriptor: int, waiting_most_bytes: int = WAITING_MOST_BYTES) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._most_bytes = waiting_most_bytes
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0  # of lines that are queued or being written
        self._has_work = threading.Event()
        self._is_stopping = threading.Event()
        self._is_threaded = False

    def write(self, line: bytes) -> None:
        """Queues a line, which has to end in a line break; it may be called from any thread."""
        if not self._is_threaded:
            self._write([line])
            return
        with self._lock:
            if self._bytes + len(line) > self._most_bytes:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
        if not self._has_work.is_set():
            self._has_work.set()

    @contextmanager
    def threaded(self) -> Iterator[None]:
        """Writes from a thread meanwhile, and at the end waits, within a bound, until all is written."""
        # A daemon: a reader who has stalled for good does not keep the process.
        thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._is_threaded = True
        thread.start()
        try:
            yield
        finally:
            self._is_stopping.set()
            self._has_work.set()
            thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            self._is_stopping.wait(_GATHER_SECONDS)
            is_last = self._is_stopping.is_set()
            self._has_work.clear()
            with self._lock:
                lines, self._lines = self._lines, []
            self._write(lines)
            with self._lock:
                self._bytes -= sum(map(len, lines))
            if is_last and not self._lines:
                return

    def _write(self, lines: list[bytes]) -> None:
        written = 0
        try:
            for chunk, count in _chunks(lines):
                _write_all(self._descriptor, chunk)
                written += count
        except OSError:  # the reader is gone
            with self._lock:
                self.dropped += len(lines) - written


def _chunks(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Whole lines together, as many as a pipe takes in one piece, and how many those are."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        if gathered and size + len(line) > _ATOMIC_BYTES:
            yield b"".join(gathered), len(gathered)
            gathered, size = [], 0
        gathered.append(line)
        size += len(line)
    if gathered:
        yield b"".join(gathered), len(gathered)


def _write_all(descriptor: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]
