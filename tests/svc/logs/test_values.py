"""No log call raises, whatever it is given, and each call leaves one valid line."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter

LOGGER: Final = logging.getLogger("some.library")


class Broken:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BrokenError(Broken, Exception):
    """An error that cannot be shown."""


def endless() -> list[Any]:
    """A list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


def nested() -> list[Any]:
    """More lists in one another than Python's stack has frames."""
    found: list[Any] = []
    for _ in range(1100):
        found = [found]
    return found


def chained() -> BaseException:
    """An error whose cause cannot be shown."""
    error = ValueError("outer")
    error.__cause__ = BrokenError()
    return error


ODD: Final = st.one_of(
    st.none(),
    st.text(),
    st.text(st.characters(categories=["Cs"]), min_size=1),
    st.floats(),
    st.integers(-(2**80), 2**80),
    st.binary(),
    st.dates(),
    st.builds(Broken),
    st.builds(BrokenError),
    st.builds(endless),
    st.builds(nested),
    st.builds(object),
)
KEYS: Final = st.one_of(st.text(), st.integers(), st.binary())
VALUES: Final = st.one_of(ODD, st.lists(ODD, max_size=2), st.dictionaries(KEYS, ODD, max_size=2))
FIELDS: Final = st.dictionaries(st.text(), VALUES, max_size=3)
ERRORS: Final = st.one_of(st.booleans(), VALUES, st.builds(ValueError, VALUES), st.builds(chained))
FORMATS: Final = st.one_of(st.sampled_from(["%d", "%s %s", "%(name)s", "%", "%q", "100 %"]), VALUES)


def lines_of(use: Callable[[], None], *, readable: bool = False) -> list[bytes]:
    """The lines that a function logs."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as output:
        logs.configure(LineWriter(write_end), readable=readable)
        try:
            use()
        finally:
            os.close(write_end)
        return output.read().splitlines(keepends=True)


def record_of(use: Callable[[], None]) -> dict[str, Any]:
    """The one line that a function logs, parsed."""
    (line,) = lines_of(use)
    record: dict[str, Any] = json.loads(line)
    assert line.endswith(b"\n")
    assert isinstance(record["event"], str)
    assert isinstance(record["level"], str)
    return record


@pytest.mark.usefixtures("log")
@given(event=VALUES, fields=FIELDS, error=ERRORS)
def test_a_line_of_the_service_has_any_event_fields_and_error(event: Any, fields: dict[str, Any], error: Any) -> None:
    """Also a field that has the name of an argument of structlog's."""
    record_of(lambda: structlog.get_logger().error(event, **{**fields, "exc_info": error}))


@pytest.mark.usefixtures("log")
@given(event=FORMATS, arguments=st.lists(VALUES, min_size=1, max_size=3))
def test_a_wrong_format_is_a_line_of_the_service(event: Any, arguments: list[Any]) -> None:
    """The event is written as it is, with the reason."""
    record_of(lambda: structlog.get_logger().warning(event, *arguments))


@pytest.mark.usefixtures("log")
@given(message=FORMATS, arguments=st.lists(VALUES, max_size=3), error=ERRORS)
def test_a_line_of_a_library_has_any_message_arguments_and_error(
    message: Any, arguments: list[Any], error: Any
) -> None:
    """A message that does not fit its arguments is a line, not a traceback on stderr."""
    record = record_of(lambda: LOGGER.error(message, *arguments, exc_info=error))

    assert (record["event"], record["level"], record["logger"]) == (names.LIBRARY, "error", "some.library")


@pytest.mark.usefixtures("log")
@given(records=st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_one_odd_record_of_many_costs_no_other(records: list[dict[Any, Any]]) -> None:
    """Each record has its line."""
    found = lines_of(lambda: structlog.get_logger().write_all(records))

    assert len(found) == len(records)
    assert all(isinstance(json.loads(line), dict) for line in found)


@pytest.mark.usefixtures("log")
@given(event=FORMATS, fields=FIELDS, error=ERRORS)
def test_a_line_for_a_terminal_holds_anything(event: Any, fields: dict[str, Any], error: Any) -> None:
    """As the lines of JSON do."""

    def use() -> None:
        structlog.get_logger().error(event, **{**fields, "exc_info": error})
        structlog.get_logger().error(event, 1)
        LOGGER.error(event, 1, exc_info=error)

    assert len(lines_of(use, readable=True)) >= 3


@pytest.mark.usefixtures("log")
def test_a_value_that_json_cannot_hold_is_a_text() -> None:
    """What can be kept is kept, and an object that cannot be shown has its type."""
    found = {"big": 2**70, "bytes": b"\xff", "lone": "\ud800", "broken": Broken(), "list": endless(), "fine": 1.5}
    record = record_of(lambda: structlog.get_logger().info(names.STARTED, **found))

    assert {name: record[name] for name in ("big", "bytes", "lone", "list", "fine")} == {
        "big": str(2**70),
        "bytes": r"b'\xff'",
        "lone": r"\ud800",
        "list": "[[...]]",
        "fine": 1.5,
    }
    assert f"{__name__}.Broken object" in record["broken"]


@pytest.mark.usefixtures("log")
def test_a_wrong_format_names_its_place_and_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is written to stderr, where nobody would look for it."""
    of_library = record_of(lambda: LOGGER.warning("took %d ms", "long"))
    of_service = record_of(lambda: structlog.get_logger().warning("took %d ms", "long"))

    assert of_library["message"].startswith(f"took %d ms ({Path(__file__).name}, line ")
    assert of_service["event"] == "took %d ms"
    for record in (of_library, of_service):
        assert record["level"] == "warning"
        assert record["error"] == "TypeError"
        assert "%d format" in record["detail"]
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("log")
def test_an_error_that_cannot_be_shown_has_its_traceback() -> None:
    """Its type is in there, and the line where it was raised."""

    def fail() -> None:
        raise BrokenError

    def use() -> None:
        try:
            fail()
        except BrokenError:
            structlog.get_logger().exception(names.REQUEST_FAILED)

    assert "BrokenError: <exception str() failed>" in record_of(use)["exception"]
