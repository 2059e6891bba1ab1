"""Log lines for people: each record is one row of their terminal, and its traceback is below."""

import os
import shutil
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias
from unicodedata import combining, east_asian_width

import structlog

from svc.logs import names
from svc.logs.values import plain

COLUMNS: Final = 120  # of a row, where stdout is no terminal that has a width

_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"

_Fields: TypeAlias = Mapping[str, Any]
_Cell: TypeAlias = tuple[str, str]  # the level whose colour it has, "dim" or "", and the text
Render: TypeAlias = Callable[[MutableMapping[str, Any]], bytes]


def renderer() -> Render:
    """A function that renders a record for people; in colours where stdout is a terminal, unless NO_COLOR is set."""
    has_colors = os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    styles = {**structlog.dev.ConsoleRenderer.get_default_level_styles(), "dim": _DIM} if has_colors else {}

    def render(record: MutableMapping[str, Any]) -> bytes:
        fields = plain(record)
        traceback = [_printable(line) for line in str(fields.pop(names.EXCEPTION, "")).splitlines()]
        columns = shutil.get_terminal_size((COLUMNS, 0)).columns
        row = _row([*_head(fields), *_rest(fields, traceback)], columns, styles)
        return "".join(f"{line}\n" for line in (row, *traceback)).encode()

    return render


def _head(fields: _Fields) -> list[_Cell]:
    """The time of day in UTC, and the level."""
    level = _text(fields, names.LEVEL)
    return [("dim", _text(fields, names.TIMESTAMP).rpartition("T")[2]), (level, f"{level:7}")]


def _rest(fields: _Fields, traceback: list[str]) -> list[_Cell]:
    duration = fields.get(names.DURATION_MS)
    if fields.get(names.EVENT) == names.REQUEST and isinstance(duration, int | float):
        return _request(fields, duration)
    return [("", _text(fields, names.EVENT)), *_causes(fields, traceback), *_others(fields)]


def _request(fields: _Fields, duration: float) -> list[_Cell]:
    status = _text(fields, names.STATUS)
    weight, error = fields.get(names.SAMPLE_WEIGHT), _text(fields, names.ERROR)
    return [
        ("", f"{_text(fields, names.METHOD):6}"),
        ("", f"{_text(fields, names.ROUTE):13}"),
        ({"4": "warning", "5": "error"}.get(status[:1], ""), status),
        ("", f"{duration:9.2f} ms"),
        ("", f"batch {_text(fields, names.BATCH_SIZE):>3}"),
        *([("", f"weight {weight}")] if weight not in (None, 1) else []),
        *([("error", error)] if error else []),
        ("dim", _text(fields, names.REQUEST_ID) or _text(fields, names.TRACE_ID)),
    ]


def _causes(fields: _Fields, traceback: list[str]) -> list[_Cell]:
    """What went wrong, as in the last line of a traceback; or what a library says."""
    if names.MESSAGE in fields:
        return [("", f"{_text(fields, names.LOGGER)}: {_text(fields, names.MESSAGE)}")]
    texts = [_text(fields, name) for name in (names.ERROR, names.DETAIL)]
    return [("", ": ".join(filter(None, texts)) or "".join(traceback[-1:]))]


_SHOWN: Final = frozenset(
    (names.TIMESTAMP, names.LEVEL, names.EVENT, names.ERROR, names.DETAIL, names.LOGGER, names.MESSAGE)
)


def _others(fields: _Fields) -> list[_Cell]:
    """The other fields; the pod only at a start, with the process's ID."""
    hidden = _SHOWN if fields.get(names.EVENT) == names.STARTED else {*_SHOWN, names.POD}
    return [("dim", f"{_printable(name)}={_text(fields, name)}") for name in fields if name not in hidden]


def _row(cells: list[_Cell], columns: int, styles: Mapping[str, str]) -> str:
    """The cells that have a text, side by side, cut at the end of the row."""
    cells = [cell for cell in cells if cell[1]]
    rest = _cut(" ".join(text for _, text in cells), columns)
    row = ""
    for name, text in cells:
        part, rest = rest[: len(text)], rest[len(text) :]
        style = styles.get(name) if part else None
        row += f"{style}{part}{_RESET}" if style else part
        row, rest = row + rest[:1], rest[1:]  # the space between two cells
    return row


def _cut(text: str, columns: int) -> str:
    """As much of the text as fits, with an ellipsis where that is not all."""
    width = end = 0
    for position, character in enumerate(text):
        width += _width(character)
        if width <= columns - 1:
            end = position + 1
        if width > columns:
            return f"{text[:end]}…"
    return text


def _width(character: str) -> int:
    """The columns that a terminal needs for it."""
    return 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1


def _text(fields: _Fields, name: str) -> str:
    return _printable(str(fields.get(name, "")))


def _printable(text: str) -> str:
    """The text without line breaks, and without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
