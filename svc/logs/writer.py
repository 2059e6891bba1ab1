"""Lines to a file descriptor from a thread of its own, so that a reader who stalls or dies slows nobody."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_GATHER_SECONDS: Final = 0.02  # lines gather so long and go out together: one wake-up for many
_STOP_SECONDS: Final = 2.0  # for what is queued at the end
_ATOMIC_BYTES: Final = 4096  # Linux's PIPE_BUF: so much reaches a pipe whole, whichever process else writes to it

MAX_QUEUED_BYTES: Final = 8 * 2**20  # for a reader; at 450 bytes a line, some 18,000 lines
RESERVED_BYTES: Final = 2**20  # beyond that, for lines that tell what was lost


class LineWriter:
    """Takes lines at once and writes them when it can; beyond a bound it drops and counts them.

    Until its thread runs, each line is written on the spot: a process that is going to fork must have no thread.

    Args:
        descriptor: where to.
        max_queued_bytes: the bound on what waits.
        is_shared: whether other processes write there too. Then lines go out in pieces that no other's can break.

    Attributes:
        dropped: lines that found no reader.
    """

    def __init__(self, descriptor: int, max_queued_bytes: int = MAX_QUEUED_BYTES, *, is_shared: bool = False) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._max_queued_bytes = max_queued_bytes
        self._is_shared = is_shared
        self._lock = threading.Lock()
        # One buffer, not a list of lines: a line's memory is free at once, and the next one finds it in the cache.
        self._queued = bytearray()
        self._writing_bytes = 0
        self._has_work = threading.Event()
        self._is_stopping = threading.Event()
        self._is_threaded = False

    def write(self, lines: bytes, count: int = 1) -> None:
        """Queues so many lines, each of which has to end in a line break; it may be called from any thread."""
        if not self._enqueue(lines, self._max_queued_bytes):
            with self._lock:
                self.dropped += count

    def offer(self, line: bytes) -> bool:
        """Queues a line for which the reserve is kept, and says whether there was room; if not, none counts as lost."""
        return self._enqueue(line, self._max_queued_bytes + RESERVED_BYTES)

    def _enqueue(self, lines: bytes, max_bytes: int) -> bool:
        if not self._is_threaded:
            self._write(lines)
            return True
        with self._lock:
            queued_bytes = len(self._queued)
            if queued_bytes + self._writing_bytes + len(lines) > max_bytes:
                return False
            self._queued += lines
        if not queued_bytes:
            self._has_work.set()
        return True

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
        is_last = False
        while not is_last:
            self._has_work.wait()
            is_last = self._is_stopping.wait(_GATHER_SECONDS)
            self._has_work.clear()
            with self._lock:
                lines, self._queued = self._queued, bytearray()
                self._writing_bytes = len(lines)
            self._write(lines)
            with self._lock:
                self._writing_bytes = 0

    def _write(self, lines: bytes | bytearray) -> None:
        written = 0
        try:
            with memoryview(lines) as view:
                while written < len(lines):
                    written += os.write(self._descriptor, view[written : self._end_of_piece(lines, written)])
        except OSError:  # the reader is gone
            with self._lock:
                self.dropped += lines.count(b"\n", written)

    def _end_of_piece(self, lines: bytes | bytearray, start: int) -> int:
        """Where to end the next write: behind the last line break that fits, or amid a line that is longer."""
        if not self._is_shared:
            return len(lines)
        return lines.rfind(b"\n", start, start + _ATOMIC_BYTES) + 1 or start + _ATOMIC_BYTES
