"""The histogram of log lines."""

from typing import Any

import pytest

from ops.oncall.histogram import histogram
from ops.oncall.logs import Record


def lines(*found: tuple[float, dict[str, Any]]) -> list[Record]:
    return [Record(int(seconds * 1000), "stream", fields, "") for seconds, fields in found]


def test_lines_are_counted_by_time_and_by_what_they_report() -> None:
    """Errors and failed requests, warnings and refused requests, and others; whole seconds start each part."""
    records = lines(
        (100.5, {"level": "error"}),
        (100.9, {"level": "info", "status": 503}),
        (101.0, {"level": "warning"}),
        (101.1, {"level": "info", "status": 404}),
        (102.3, {"level": "info", "status": 200}),
        (102.4, {"status": "none"}),
        (102.5, {}),
    )

    assert histogram(records, 100.4, 103.2) == {
        "start": 100,
        "step": 1,
        "bars": [[2, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]],
    }


@pytest.mark.parametrize(
    ("seconds", "step", "bars"), [(1, 1, 2), (300, 5, 61), (900, 15, 61), (10_800, 300, 37), (86_400, 1800, 49)]
)
def test_the_parts_are_as_many_as_a_phone_can_show(seconds: int, step: int, bars: int) -> None:
    """From a second to a day. The first and the last may reach beyond the range."""
    found = histogram((), 1_000_000 * 3600, 1_000_000 * 3600 + seconds)

    assert (found["step"], len(found["bars"])) == (step, bars)
