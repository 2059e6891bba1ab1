"""Structured logs of the service and its libraries: one JSON object per line, or a readable form for a terminal."""

import logging
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
import structlog

from svc.logs import console, names
from svc.logs.values import plain, text
from svc.logs.writer import LineWriter

_TRACEBACK_END_CHARACTERS: Final = 1500  # kept at each end, so that a line fits into one atomic write to a pipe
_MAX_TEXT_CHARACTERS: Final = 800  # of any other text that this service did not write

_HOST: Final = socket.gethostname()  # of a pod, it is its name
_pod = _HOST  # of this process

_Record: TypeAlias = MutableMapping[str, Any]


def pod(worker: int | None = None) -> str:
    """The name of this process's pod, or of a worker's: of several workers, each is a pod of its own."""
    return _pod if worker is None else f"{_HOST}-{worker}"


def become_worker(number: int) -> None:
    """From here on, this process is the pod of that worker."""
    global _pod  # noqa: PLW0603 - of the whole process, as logging is
    _pod = pod(number)


def configure(writer: LineWriter, *, readable: bool) -> None:
    """Sends all logging to the writer: structlog's records and the standard library's.

    From then on no call of a logger raises, whatever it is given: an error in logging must not stop the program.

    Args:
        writer: takes the lines.
        readable: whether lines are for a terminal, instead of JSON.
    """
    render = console.renderer() if readable else _json

    def finish(_: Any, level: str, record: _Record) -> bytes:
        if (error := record.pop("exc_info", None)) is not None:
            record[names.EXCEPTION] = _traceback(error if isinstance(error, BaseException) else sys.exc_info()[1])
        return render({**_head(level, text(record.pop(names.EVENT, None))), **record})

    structlog.configure(
        processors=[finish],
        wrapper_class=Logger,
        logger_factory=lambda *_: _Output(writer, render),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(writer, render)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


_LEVELS: Final = {"exception": "error", "warn": "warning"}
_Levels: Any = structlog.make_filtering_bound_logger(logging.INFO)  # a class made at run time


def _tolerant(level: str) -> Callable[..., None]:
    """The method of structlog for a level. Where it raises, as for a wrong `%` format, the event is written anyway."""
    log = getattr(_Levels, level)

    def log_or_explain(self: "Logger", event: object = None, /, *arguments: object, **fields: Any) -> None:
        try:
            log(self, event, *arguments, **fields)
        except Exception as error:  # noqa: BLE001 - as in every handler, an error in logging must not stop the program
            self.write_all([_failure(level, text(event), error)])

    return log_or_explain


class Logger(_Levels):  # type: ignore[misc]
    """structlog's logger, with a fast path for many records at once."""

    info = _tolerant("info")
    warning = _tolerant("warning")
    error = _tolerant("error")
    exception = _tolerant("exception")
    critical = _tolerant("critical")

    def write_all(self, records: Iterable[dict[str, Any]]) -> None:
        """Writes complete records, which begin with the fields of every line.

        structlog's processors copy a record several times, which costs 3 µs more per record.
        """
        self._logger.write_all(records)


def _head(level: str, event: str, created: float | None = None) -> dict[str, Any]:
    """The fields of every line. They come first because people read the lines, too."""
    return {
        names.TIMESTAMP: timestamp(int(1000 * (created or time.time()))),
        names.LEVEL: _LEVELS.get(level, level),
        names.EVENT: event,
        names.POD: pod(),
    }


def _failure(level: str, event: str, error: Exception, **fields: str) -> dict[str, Any]:
    """The line in place of one that could not be made."""
    return {
        **_head(level, event),
        **fields,
        names.ERROR: type(error).__name__,
        names.DETAIL: f"the rest of this line could not be logged: {shorten(error)}",
    }


class _Output:
    """The logger that structlog wraps: its methods, one per level, take a finished line."""

    def __init__(self, writer: LineWriter, render: console.Render) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write
        self._writer = writer
        self._render = render

    def write_all(self, records: Iterable[_Record]) -> None:
        render = self._render
        lines = [render(record) for record in records]
        self._writer.write(b"".join(lines), len(lines))


class _Bridge(logging.Handler):
    """Writes the standard library's records in the same form as the service's own."""

    def __init__(self, writer: LineWriter, render: console.Render) -> None:
        super().__init__()
        self._writer = writer
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception as error:  # noqa: BLE001 - such as a message with a wrong `%` format
            message = f"{shorten(record.msg)} ({record.filename}, line {record.lineno})"
            named = {names.LOGGER: record.name, names.MESSAGE: message}
            line = _failure(record.levelname.lower(), names.LIBRARY, error, **named)
        self._writer.write(self._render(line))

    @staticmethod
    def _line(record: logging.LogRecord) -> _Record:
        line = {
            **_head(record.levelname.lower(), names.LIBRARY, record.created),
            names.LOGGER: record.name,
            names.MESSAGE: record.getMessage()[:_MAX_TEXT_CHARACTERS],
        }
        if record.exc_info:
            line[names.EXCEPTION] = _traceback(record.exc_info[1])
        return line


def shorten(value: object) -> str:
    """A text that this service did not write, or another value as a text, truncated so that it fits into a line."""
    return text(value)[:_MAX_TEXT_CHARACTERS]


def _json(record: _Record) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, from bytes that are not UTF-8, or an object that JSON cannot hold
        return orjson.dumps(plain(record), option=orjson.OPT_APPEND_NEWLINE)


def _traceback(error: BaseException | None) -> str:
    try:
        lines = "".join(traceback.format_exception(error)) if error else ""
    except Exception:  # noqa: BLE001 - what was logged as an error is none, or its causes are nested too deeply
        lines = text(error)
    if len(lines) <= 2 * _TRACEBACK_END_CHARACTERS:
        return lines
    return f"{lines[:_TRACEBACK_END_CHARACTERS]}\n[…]\n{lines[-_TRACEBACK_END_CHARACTERS:]}"


@lru_cache(maxsize=2)  # under load, dozens of lines share a millisecond
def timestamp(milliseconds: int) -> str:
    """The timestamp of a log line, from milliseconds since 1970."""
    seconds, remainder = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{remainder:03d}Z"
