"""Writes lines to a file descriptor from a separate thread, so that a stalled or dead reader slows no request."""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final

_COLLECT_SECONDS: Final = 0.02  # lines are collected for this long, then written together
_STOP_SECONDS: Final = 2.0  # to write what is queued at the end
_DIRECT_SECONDS: Final = 1.0  # without the thread, the longest that a write waits for a reader who stalls
_ATOMIC_BYTES: Final = 4096  # Linux's PIPE_BUF: a larger write to a pipe may mix with other processes' writes

MAX_QUEUED_BYTES: Final = 8 * 2**20  # about 18,000 lines of 450 bytes
RESERVED_BYTES: Final = 2**20  # beyond that, for metrics, which count the lines that were dropped


class LineWriter:
    """Queues lines without blocking and writes them in the background. If the queue is full, it drops and counts lines.

    Before the thread starts and after it has ended, each line is written immediately, or dropped where the reader
    stalls for 1 s: a process that will fork must not have a thread.

    The descriptor may be non-blocking: another process that shares it can set this at any time.

    Args:
        descriptor: the file descriptor to write to.
        max_queued_bytes: the size of the queue.
        is_shared: whether other processes write to it, too. Then each write is small enough to be atomic, so that lines
            of different processes do not mix.

    Attributes:
        dropped: lines that could not be written.
    """

    def __init__(self, descriptor: int, max_queued_bytes: int = MAX_QUEUED_BYTES, *, is_shared: bool = False) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._max_queued_bytes = max_queued_bytes
        self._is_shared = is_shared
        # Python may run a destructor or a signal's handler anywhere, also inside these methods, and what it logs comes
        # here, too. So the lock may be taken twice, and the thread waits at a queue that allows the same.
        self._lock = threading.RLock()
        # One buffer, not a list of lines: a line's memory is freed at once, and reused while it is in the CPU cache.
        self._queued = bytearray()
        self._writing_bytes = 0
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._is_stopping = threading.Event()
        self._is_threaded = False
        self._is_in_line = False  # an error ended the last write inside a line

    def write(self, lines: bytes, count: int = 1) -> None:
        """Queues lines; each must end in a line break. Any thread may call it.

        Args:
            lines: one line or several.
            count: the number of lines.
        """
        if not self._enqueue(lines, self._max_queued_bytes):
            with self._lock:
                self.dropped += count

    def offer(self, line: bytes) -> bool:
        """Queues a line, if need be in the reserved space. Returns whether there was room; if not, counts no drop."""
        return self._enqueue(line, self._max_queued_bytes + RESERVED_BYTES)

    def _enqueue(self, lines: bytes, max_bytes: int) -> bool:
        if not self._is_threaded:
            self._write(lines, _DIRECT_SECONDS)
            return True
        with self._lock:
            queued_bytes = len(self._queued)
            if queued_bytes + self._writing_bytes + len(lines) > max_bytes:
                return False
            self._queued += lines
        if not queued_bytes:
            self._wake_ups.put(None)
        return True

    @contextmanager
    def threaded(self) -> Iterator[None]:
        """Writes from a thread while the context is open. At the end, waits up to 2 s until all lines are written."""
        # A daemon thread, so that a reader that stalled for good does not keep the process alive.
        thread = threading.Thread(target=self._run, name="line-writer", daemon=True)
        self._is_threaded = True
        thread.start()
        try:
            yield
        finally:
            self._is_stopping.set()
            self._wake_ups.put(None)
            thread.join(_STOP_SECONDS)
            # The last lines of a process, such as the error that ends it. Where the reader stalls, they are lost.
            self._is_threaded = thread.is_alive()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake_ups.get()
            is_last = self._is_stopping.wait(_COLLECT_SECONDS)
            with self._lock:
                lines, self._queued = self._queued, bytearray()
                self._writing_bytes = len(lines)
            self._write(lines)
            with self._lock:
                self._writing_bytes = 0

    def _write(self, lines: bytes | bytearray, wait_seconds: float | None = None) -> None:
        written = 0
        try:
            if self._is_in_line:
                self._write_part(b"\n", wait_seconds)
                self._is_in_line = False
            with memoryview(lines) as view:
                while written < len(lines):
                    written += self._write_part(view[written : self._end_of_write(lines, written)], wait_seconds)
        except OSError:  # the reader has closed the pipe, the disk is full, or the reader stalls for too long
            if written:
                self._is_in_line = not lines.endswith(b"\n", 0, written)
            with self._lock:
                # A line that lacks only its break is not dropped: the next write begins with a break.
                self.dropped += lines.count(b"\n", written + self._is_in_line)

    def _write_part(self, part: bytes | memoryview, wait_seconds: float | None) -> int:
        """Writes at least one byte, and returns how many.

        Args:
            part: the bytes to write.
            wait_seconds: the longest to wait for the reader; None is without a limit.

        Raises:
            OSError: they cannot be written; TimeoutError where the reader stalls for too long.
        """
        if wait_seconds is not None:
            self._wait_until_writable(wait_seconds)
        while True:
            try:
                return os.write(self._descriptor, part)
            except BlockingIOError:  # a non-blocking pipe is full
                self._wait_until_writable(wait_seconds)

    def _wait_until_writable(self, seconds: float | None) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if not poll.poll(None if seconds is None else seconds * 1000):
            raise TimeoutError("the reader stalls")

    def _end_of_write(self, lines: bytes | bytearray, start: int) -> int:
        """Where to end the next write: after the last line break that fits, or inside a line that is too long."""
        if not self._is_shared:
            return len(lines)
        return lines.rfind(b"\n", start, start + _ATOMIC_BYTES) + 1 or start + _ATOMIC_BYTES
