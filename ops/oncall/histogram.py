"""How many log lines there were over time, and how many of them report an error or a warning."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from ops.oncall.logs import Record

_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # in seconds
_MAX_BARS: Final = 60  # each is wide enough on a phone, with those of 1, 3 and 24 hours at whole minutes


def histogram(records: Iterable[Record], start: float, end: float) -> dict[str, Any]:
    """The number of records in equal parts of a time range.

    Args:
        records: in the time range.
        start: of the time range, in seconds since 1970.
        end: of the time range.

    Returns:
        The start of the first part, the length of each in whole seconds, and of each the numbers of errors, of warnings
        and of other records.
    """
    step = next((step for step in _STEPS if end - start <= step * _MAX_BARS), _STEPS[-1])
    first = int(start // step)
    counts = Counter((record.timestamp_ms // (1000 * step), _kind(record)) for record in records)
    bars = range(first, int(end // step) + 1)
    return {"start": first * step, "step": step, "bars": [[counts[bar, kind] for kind in range(3)] for bar in bars]}


def _kind(record: Record) -> int:
    """0 for an error or a failed request, 1 for a warning or a refused request, else 2."""
    level, status = record.fields.get("level"), record.fields.get("status")
    code = status if isinstance(status, int) else 0
    return 0 if level == "error" or code >= 500 else 1 if level == "warning" or code >= 400 else 2
