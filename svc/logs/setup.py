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

from svc.logs import names
from svc.logs.writer import LineWriter

_TRACEBACK_END_CHARACTERS: Final = 1500  # kept at each end, so that a line fits into one atomic write to a pipe
_MAX_TEXT_CHARACTERS: Final = 800  # of any other text that this service did not write

POD: Final = socket.gethostname()  # of a pod, it is its name

_Record: TypeAlias = MutableMapping[str, Any]
Render: TypeAlias = Callable[[_Record], bytes]


def configure(writer: LineWriter, *, readable: bool) -> None:
    """Sends all logging to the writer: structlog's records and the standard library's.

    Args:
        writer: takes the lines.
        readable: whether lines are for a terminal, instead of JSON.
    """
    render = console_renderer() if readable else _json

    def finish(_: Any, level: str, record: _Record) -> bytes:
        if (error := record.pop("exc_info", None)) is not None:
            record[names.EXCEPTION] = _traceback(error if isinstance(error, BaseException) else sys.exc_info()[1])
        # These fields come first because people read the lines, too.
        first = {
            names.TIMESTAMP: timestamp(time.time_ns() // 1_000_000),
            names.LEVEL: _LEVELS.get(level, level),
            names.EVENT: record.pop(names.EVENT),
            names.POD: POD,
        }
        return render({**first, **record})

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


class Logger(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc]  # a class made at run time
    """structlog's logger, with a fast path for many records at once."""

    def write_all(self, records: Iterable[dict[str, Any]]) -> None:
        """Writes complete records, which begin with the fields of every line.

        structlog's processors copy a record several times, which costs 3 µs more per record.
        """
        self._logger.write_all(records)


class _Output:
    """The logger that structlog wraps: its methods, one per level, take a finished line."""

    def __init__(self, writer: LineWriter, render: Render) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write
        self._writer = writer
        self._render = render

    def write_all(self, records: Iterable[_Record]) -> None:
        render = self._render
        lines = [render(record) for record in records]
        self._writer.write(b"".join(lines), len(lines))


class _Bridge(logging.Handler):
    """Writes the standard library's records in the same form as the service's own."""

    def __init__(self, writer: LineWriter, render: Render) -> None:
        super().__init__()
        self._writer = writer
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {
                names.TIMESTAMP: timestamp(int(record.created * 1000)),
                names.LEVEL: record.levelname.lower(),
                names.EVENT: names.LIBRARY,
                names.POD: POD,
                names.LOGGER: record.name,
                names.MESSAGE: record.getMessage()[:_MAX_TEXT_CHARACTERS],
            }
            if record.exc_info:
                fields[names.EXCEPTION] = _traceback(record.exc_info[1])
            self._writer.write(self._render(fields))
        except Exception:  # noqa: BLE001 - as in every handler, an error in logging must not stop the program
            self.handleError(record)


def shorten(text: object) -> str:
    """Truncates a text that this service did not write, so that it fits into a line."""
    return str(text)[:_MAX_TEXT_CHARACTERS]


def _json(record: _Record) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, from bytes that are not UTF-8, or an object that JSON cannot hold
        return orjson.dumps({name: _plain(value) for name, value in record.items()}, option=orjson.OPT_APPEND_NEWLINE)


def _plain(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    return str(value).encode(errors="backslashreplace").decode()


def console_renderer() -> Render:
    """A function that renders a record for a terminal. The function removes the traceback from the record."""
    renderer = structlog.dev.ConsoleRenderer(colors=True, sort_keys=False, timestamp_key=names.TIMESTAMP)

    def render(record: _Record) -> bytes:
        exception = record.pop(names.EXCEPTION, None)
        line = renderer(None, "", record)
        text = f"{line}\n{exception.rstrip()}\n" if exception else f"{line}\n"
        return text.encode(errors="backslashreplace")

    return render


def _traceback(error: BaseException | None) -> str:
    text = "".join(traceback.format_exception(error)) if error else ""
    if len(text) <= 2 * _TRACEBACK_END_CHARACTERS:
        return text
    return f"{text[:_TRACEBACK_END_CHARACTERS]}\n[…]\n{text[-_TRACEBACK_END_CHARACTERS:]}"


@lru_cache(maxsize=2)  # under load, dozens of lines share a millisecond
def timestamp(milliseconds: int) -> str:
    """The timestamp of a log line, from milliseconds since 1970."""
    seconds, remainder = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{remainder:03d}Z"
