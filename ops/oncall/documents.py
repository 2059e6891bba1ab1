"""Parses the lines of a recording."""

from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import orjson

Document: TypeAlias = dict[str, Any]


class InvalidDocument(ValueError):
    """The line is not a JSON object with a time."""


class Entry(NamedTuple):
    """A line of a recording.

    Attributes:
        at: its time, in seconds since 1970.
        document: the parsed line.
        line: as it was written.
    """

    at: float
    document: Document
    line: str


def parse(line: bytes) -> Entry:
    """Parses a line of a recording.

    Raises:
        InvalidDocument: it is not a JSON object with a time.
    """
    try:
        document = orjson.loads(line)
        return Entry(_time(document), document, line.decode())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvalidDocument(f"{line[:80]!r} is not a JSON object with a time: {error!r}") from None


def _time(document: Document) -> float:
    if "_aws" in document:
        return float(document["_aws"]["Timestamp"]) / 1000
    if "resourceSpans" in document:
        return max(
            int(span["endTimeUnixNano"])
            for of_resource in document["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope["spans"]
        ) / 1e9  # fmt: skip
    return datetime.fromisoformat(document["timestamp"]).timestamp()
