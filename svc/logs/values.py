"""Values that JSON cannot hold, as ones that it can."""

from collections.abc import Mapping
from typing import Any, Final

_SMALLEST: Final = -(2**63)
_TOO_LARGE: Final = 2**64


def plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """The same record, with texts in place of the names and values that orjson refuses."""
    return {text(name): _plain(value) for name, value in record.items()}


def _plain(value: object) -> object:
    is_number = type(value) is float or (type(value) is int and _SMALLEST <= value < _TOO_LARGE)
    return value if value is None or type(value) is bool or is_number else text(value)


def text(value: object) -> str:
    """A value as a text in valid UTF-8; never raises, whatever the value does."""
    try:
        return str.encode(str(value), errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - whatever its __str__ raises
        return object.__repr__(value)
