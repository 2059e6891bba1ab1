"""Errors that no code caught, as log lines: Python itself writes them to stderr, over several lines.

It imports nothing that takes long or may be missing, so that the errors of all other imports are reported, too.
"""

import os
import sys
import threading
from types import TracebackType

from svc.logs import names


def install() -> None:
    """From now on, errors that end the process or a thread, or that Python ignores, are lines of the log.

    The log of people has Python's own report, on stderr.
    """
    if _is_for_people():
        return
    sys.excepthook = _on_exit
    threading.excepthook = _on_thread
    sys.unraisablehook = _on_ignored


def report_failed_start(error: Exception) -> None:
    """Writes a line with the reason; where people read the log, they have it on stderr."""
    if not _is_for_people():
        _write(names.START_FAILED, error, str(error))


def _write(event: str, error: BaseException | None, detail: str, **fields: object) -> None:
    import structlog  # noqa: PLC0415 - see above

    from svc.logs import setup  # noqa: PLC0415
    from svc.logs.writer import LineWriter  # noqa: PLC0415

    if not structlog.is_configured():
        setup.configure(LineWriter(1), readable=False)
    # A new logger each time, since a logger keeps the output that it had first.
    structlog.get_logger().error(event, error=type(error).__name__, detail=setup.shorten(detail), **fields)


def _is_for_people() -> bool:
    log_format = os.environ.get("LOG_FORMAT", "")
    return log_format == "text" or (log_format != "json" and os.isatty(1))


def _on_exit(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    _write(names.UNCAUGHT_ERROR, error, "the process exits", exc_info=error)


def _on_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is not SystemExit:  # which ends the thread, as its code asked for
        name = arguments.thread.name if arguments.thread else "unknown"
        error = arguments.exc_value
        _write(names.UNCAUGHT_ERROR, error, f"the thread {name} ended", exc_info=error)


def _on_ignored(arguments: "sys.UnraisableHookArgs") -> None:
    from svc.logs.values import text  # noqa: PLC0415 - see above

    where = arguments.err_msg or "Exception ignored in"
    error = arguments.exc_value
    _write(names.UNCAUGHT_ERROR, error, f"{where}: {text(arguments.object)}", exc_info=error)
