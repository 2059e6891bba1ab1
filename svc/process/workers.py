"""A parent and its worker processes: one that dies is replaced, and a signal to the parent reaches all."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from svc.logs import names

_log = structlog.get_logger()

_SIGNALS: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_SHORT_LIFE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 1.0  # before a worker that follows a short life, so that no crash loop eats the machine

Work = Callable[[int, bool], None]


def supervise(count: int, work: Work) -> None:
    """Keeps `count` workers running until SIGTERM or SIGINT, and then waits for them; a second signal kills them.

    The caller has to be a process without threads or an event loop: it is forked.

    Args:
        count: how many workers.
        work: what a worker does, given a file descriptor that becomes readable when the parent is gone, and whether
            it is the first worker of all, who speaks for the others.
    """
    parent_lives, parent_keeps = os.pipe()
    # Blocked, the signals wait for sigwait(), and none falls between two lines of this loop.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # some systems drop a blocked signal that has no handler

    def start(*, is_first: bool = False, pause: float = 0) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(parent_keeps)
            _work_and_exit(lambda: work(parent_lives, is_first), pause)
        births[pid] = time.monotonic()

    births: dict[int, float] = {}
    for number in range(count):
        start(is_first=number == 0)
    stopping = False
    while births:
        received = signal.sigwait(_SIGNALS)
        if received != signal.SIGCHLD:
            for pid in births:
                os.kill(pid, signal.SIGKILL if stopping else received)
            stopping = True
            continue
        for pid, status in _dead(births):
            lived = time.monotonic() - births.pop(pid)
            if not stopping:
                _log.error(names.WORKER_EXITED, pid=pid, exit_status=status)
                start(pause=_PAUSE_SECONDS if lived < _SHORT_LIFE_SECONDS else 0)
    os.close(parent_keeps)
    os.close(parent_lives)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _dead(births: dict[int, float]) -> list[tuple[int, int]]:
    """The workers that ended. Only they are asked for: other children's ends are others' business."""
    found = ((pid, os.waitpid(pid, os.WNOHANG)) for pid in births)
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, (dead, status) in found if dead]


def _work_and_exit(work: Callable[[], None], pause: float) -> NoReturn:
    status = 1
    try:
        # A group of its own: a terminal's Ctrl-C reaches the parent alone, which passes it on once.
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        time.sleep(pause)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - logged, with its traceback
        _log.exception(names.WORKER_FAILED, pid=os.getpid())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit(): the parent's frames above, and what they would close, are the parent's.
        os._exit(status)
