"""Values as numbers and as texts, their order and their equality."""

import math
import re
from typing import Any, Final

from ops.oncall.logs import Value

_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_CHUNKS: Final = re.compile(r"\d+|\D+")


def number(value: Value) -> float | None:
    """A value as a number, also from a text such as `parse` finds; None where it is none, or not finite."""
    found = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    return None if found is None or isinstance(found, str) or not math.isfinite(found) else found


def text(value: Any) -> str:
    """A value as a text; true is 1 and false is 0."""
    return str(int(value) if isinstance(value, bool) else value)


def order(value: Value) -> tuple[int, float, list[tuple[str, int, str]]]:
    """The sort key of a value: missing values first, then texts by chunks of digits and of others, then numbers.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Sort.html
    """
    if value is None:
        return 0, 0.0, []
    found = number(value)
    if found is not None:
        return 2, found, []
    chunks = _CHUNKS.findall(text(value))
    return 1, 0.0, [("0", len(chunk), chunk) if chunk[0].isdecimal() else (chunk, 0, "") for chunk in chunks]


def equal(one: Value, other: Value) -> bool:
    """Whether two values are equal; a missing value equals nothing."""
    if one is None or other is None:
        return False
    return one == other if isinstance(one, str) == isinstance(other, str) else number(one) == number(other)
