"""A parent process and its workers: a worker that exits is replaced, and signals to the parent reach all workers."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import structlog

from svc.logs import names
from svc.logs import setup as logs
from svc.process.startup import STOP_SIGNALS

_log = structlog.get_logger()

_SIGNALS: Final = {signal.SIGCHLD, *STOP_SIGNALS}
_SHORT_LIFE_SECONDS: Final = 10.0
# Before a worker that replaces a short-lived one, so that a crash loop does not use up the CPU.
_PAUSE_SECONDS: Final = 1.0

Work = Callable[[int, bool], None]


def supervise(count: int, work: Work) -> None:
    """Keeps `count` workers running until a signal to stop, and then waits for them. A second signal kills them.

    It forks, so the calling process must have neither threads nor an event loop.

    Args:
        count: the number of workers.
        work: what a worker does. Its arguments are a file descriptor that becomes readable when the parent has exited,
            and whether this is the first worker of all, which prints the greeting.
    """
    # The parent alone keeps the pipe's write end, which closes when it exits.
    parent_pipe, write_end = os.pipe()
    # Blocked signals stay pending until sigwait(), so none is lost between two iterations of the loop.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # some systems drop a blocked signal that has no handler

    def start(number: int, *, is_first: bool = False, pause: float = 0) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            logs.become_worker(number)
            _work_and_exit(lambda: work(parent_pipe, is_first), pause)
        running[pid] = number, time.monotonic()

    running: dict[int, tuple[int, float]] = {}
    for number in range(1, count + 1):
        start(number, is_first=number == 1)
    stopping = False
    while running:
        received = signal.sigwait(_SIGNALS)
        if received != signal.SIGCHLD:
            for pid in running:
                os.kill(pid, signal.SIGKILL if stopping else received)
            stopping = True
            continue
        for pid, status in _exited(running):
            number, started_at = running.pop(pid)
            if not stopping:
                _log.error(names.WORKER_EXITED, pod=logs.pod(number), pid=pid, exit_status=status)
                is_short = time.monotonic() - started_at < _SHORT_LIFE_SECONDS
                start(number, pause=_PAUSE_SECONDS if is_short else 0)
    os.close(write_end)
    os.close(parent_pipe)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _exited(workers: Iterable[int]) -> list[tuple[int, int]]:
    """The workers that have exited, with their statuses. The code that started other child processes waits for them."""
    found = ((pid, os.waitpid(pid, os.WNOHANG)) for pid in workers)
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, (exited, status) in found if exited]


def _work_and_exit(work: Callable[[], None], pause: float) -> NoReturn:
    status = 1
    try:
        # In its own process group, the worker gets a terminal's Ctrl-C only once, from the parent.
        os.setpgid(0, 0)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # the parent's handlers do its cleanup
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        time.sleep(pause)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - logged, with its traceback
        _log.exception(names.WORKER_FAILED, pid=os.getpid())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit(), which would also run the cleanup of the frames that belong to the parent.
        os._exit(status)
