"""What a process does before its slow imports: it handles signals to stop, and opens missing standard streams."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# nohup has SIGHUP ignored, so that a process outlives its terminal.
STOP_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    *(() if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)),
)


def exit_at_once_on_signals() -> None:
    """From now on, a signal to stop ends the process without cleanup. Its status is 128 + the signal's number.

    Without a handler, the kernel ignores these signals for the process with ID 1, the first one of a container.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda received, _: os._exit(128 + received))


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """In this context, a signal to stop ends what runs as Ctrl-C does, with its cleanup. The status is the same."""
    last = signal.SIGINT

    def interrupt(received: int, _: object) -> None:
        nonlocal last
        last = signal.Signals(received)
        signal.raise_signal(signal.SIGINT)  # asyncio cancels its tasks on this one only

    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else interrupt)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + last)


def open_standard_streams() -> None:
    """Opens /dev/null in place of stdin, stdout or stderr where it is closed.

    Otherwise, the next socket or file would get its descriptor, and what is meant for a stream would go there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w")  # None where it was closed
    sys.stderr = sys.stderr or os.fdopen(2, "w")
