"""Lines of a recording, and when each was told."""

from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import orjson

Document: TypeAlias = dict[str, Any]


class NoDocument(ValueError):
    """A line is no JSON object that tells its time."""


class Told(NamedTuple):
    """A line of a recording.

    Attributes:
        at: when it was told, in seconds since 1970.
        document: what it says.
        line: in its own words.
    """

    at: float
    document: Document
    line: str


def parse(line: bytes) -> Told:
    """A line of a recording.

    Raises:
        NoDocument: it is none.
    """
    try:
        document = orjson.loads(line)
        return Told(_time(document), document, line.decode())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise NoDocument(f"{line[:80]!r} is no document: {error!r}") from None


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
