"""Log lines for people: one row of the terminal each, with what a person needs."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unicodedata import east_asian_width
from urllib.error import HTTPError

import pytest

from ops.common.ports import free_port
from svc.logs import console, names
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

HEAD = {"timestamp": "2026-11-30T09:22:22.123Z", "level": "warning", "pod": "clients-api-5f7c9d8b6-x2x4z"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST = {
    **HEAD,
    "event": names.REQUEST,
    "method": "OPTIONS",
    "route": "/docs/{asset}",
    "status": 200,
    "duration_ms": 21_999.123,
    "database_ms": 2000.0,
    "queue_ms": 1000.0,
    "batch_size": 128,
    "bytes": 1_000_000,
    "sample_weight": 1,
    "trace_id": TRACE_ID,
    "sampled": True,
    "client": "2001:db8:85a3:8d3:1319:8a2e:370:7348",
}
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in y\nValueError: invalid\n'
LARGE: dict[str, object] = {
    names.ERROR: "ClientCannotSerializeInputError",
    names.DETAIL: "connection to the server was refused " * 20,
    names.SERVER: "a.example:5432,b.example:5432",
    names.LOGGER: "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    names.MESSAGE: "a message of a library\n" * 30,
    names.PID: 4_194_304,
    names.PORT: 65_535,
    names.EXIT_STATUS: -9,
    names.BUILD: "0123456789abcdef0123456789abcdef01234567",
    names.EXCEPTION: TRACEBACK,
}
COLOR = re.compile(r"\x1b\[\d+m")


def rows(record: dict[str, Any]) -> list[str]:
    return console.renderer()(record).decode().splitlines()


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests did not run on a terminal, whose width would count."""
    monkeypatch.setattr(os, "isatty", lambda _: False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.parametrize("event", sorted(names.EVENTS))
def test_each_event_is_one_row_of_120_columns(event: str) -> None:
    """With the longest texts that it may have; a traceback is below."""
    row, *below = rows({**HEAD, "event": event, **LARGE})

    assert len(row) <= 120
    assert row.startswith(f"09:22:22.123Z warning {event} ")
    assert below == TRACEBACK.splitlines()


def test_the_row_of_a_request_has_what_a_person_looks_for() -> None:
    """Time, level, method, route, status, milliseconds, batch and the whole ID of its trace."""
    (row,) = rows(REQUEST)

    assert row.split() == [
        *("09:22:22.123Z", "warning", "OPTIONS", "/docs/{asset}", "200", "21999.12", "ms", "batch", "128", TRACE_ID)
    ]
    assert len(row) <= 120


def test_the_columns_of_requests_are_aligned() -> None:
    """Short values are padded."""
    short = {"method": "GET", "route": "/", "duration_ms": 0.4, "batch_size": 0}
    one, two = (rows({**REQUEST, "method": "DELETE", **fields})[0] for fields in ({}, short))

    assert len(one) == len(two)
    assert one.index(" ms batch") == two.index(" ms batch")


def test_a_failed_request_has_its_error_and_the_start_of_its_id() -> None:
    """The caller's own ID comes before that of the trace; the ID is last, so that it is what is cut."""
    fields = {"status": 503, "error": "DatabaseUnavailable", "sample_weight": 12_345, "request_id": "r" * 128}
    (row,) = rows({**REQUEST, **fields})

    assert " 503 " in row
    assert re.search(r" weight 12345 DatabaseUnavailable r{8,}…$", row)
    assert len(row) <= 120


def test_the_error_of_an_event_has_its_type_and_cause() -> None:
    """Those of the fields, or the last line of the traceback."""
    unavailable = {"event": names.DATABASE_UNAVAILABLE, "error": "ConnectionRefusedError", "detail": "refused"}
    failed = {"event": names.REQUEST_FAILED, "route": "/get/{id}", "exception": TRACEBACK}

    assert rows({**HEAD, **unavailable})[0].endswith(" database_unavailable ConnectionRefusedError: refused")
    assert rows({**HEAD, **failed})[0].endswith(" request_failed ValueError: invalid route=/get/{id}")


def test_only_a_start_names_the_pod() -> None:
    """Every line of JSON has it."""
    started, stopping = (rows({**HEAD, "event": event, "pid": 7})[0] for event in (names.STARTED, names.STOPPING))

    assert started.endswith(f" started pod={HEAD['pod']} pid=7")
    assert stopping.endswith(" stopping pid=7")


@pytest.mark.parametrize("columns", [1, 20, 40, 80, 119])
def test_a_narrow_terminal_has_one_row_too(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ends in an ellipsis."""
    monkeypatch.setenv("COLUMNS", str(columns))
    (row,) = rows({**REQUEST, "request_id": "r" * 128})

    assert len(row) == columns
    assert row.endswith("…")


def test_wide_characters_count_twice_and_combining_ones_not_at_all() -> None:
    """As terminals show them."""
    (row,) = rows({**HEAD, "event": names.LIBRARY, "logger": "x", "message": "致命的 😀 e\u0301 " * 30})

    assert 119 <= sum(2 if east_asian_width(c) in "WF" else c != "\u0301" for c in row) <= 120


def test_no_text_controls_the_terminal() -> None:
    """Line breaks and escape sequences are spaces, also in a traceback, which keeps its lines."""
    hostile = "\x1b[2J\r\n\x07\u202e\x9b31m"
    row, *below = rows({**HEAD, "event": hostile, hostile: hostile, "exception": f"one{hostile}\ntwo"})

    assert all(line.isprintable() for line in (row, *below))
    assert below[-1] == "two"


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, Callable[[str], str]]]:
    """A terminal of this width: the descriptor for a program, and a function that reads until a pattern is shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown = ""

    def read_until(pattern: str) -> str:
        nonlocal shown
        end = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, COLOR.sub("", shown)):
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 2**16).decode()
        return shown

    try:
        yield theirs, read_until
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [120, 72])
@pytest.mark.parametrize(
    ("variables", "has_colors"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_start_a_request_and_an_error_fit_into_a_real_terminal(
    columns: int, variables: dict[str, str], has_colors: bool
) -> None:
    """Its width is that of the window; colours are shown unless NO_COLOR is set, or the terminal has none."""
    database = f"postgresql://u:p@127.0.0.1:{free_port()}/d"
    with terminal(columns) as (stdout, read_until):
        service = Service({**variables, "DATABASE_URL": database, "DRAIN_SECONDS": "0"}, stdout=stdout)
        try:
            service.wait_until_listening()
            with suppress(HTTPError):
                urllib.request.urlopen(f"{service.url}/get/1")
            read_until(r"/get/\{id\} +503 .*\n")
            service.stop()
            shown = read_until("stopped .*\n")
        finally:
            service.end()
    found = COLOR.sub("", shown).splitlines()

    assert max(map(len, found)) <= columns
    assert [sum(f" {event} " in row for row in found) for event in ("started", "database_unavailable")] == [1, 1]
    assert any(re.search(r" started pod=\S+ pid=\d+", row) for row in found)
    assert bool(COLOR.search(shown)) == has_colors
