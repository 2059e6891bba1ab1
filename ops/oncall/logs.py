"""The newest log events of two log groups, as in CloudWatch Logs."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final, TypeAlias

LINES: Final = "lines"  # the service's lines
METRICS: Final = "metrics"  # documents in the Embedded Metric Format

Value: TypeAlias = str | float | None

# The fields that Logs Insights finds in an event; the others of the event are missing to a query.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
MAX_FIELDS: Final = 200

_MAX_RECORDS: Final = 50_000  # of a group: about 100 MB
_STREAM: Final = "clients-api-local"


class Timestamp(int):
    """Milliseconds since 1970, formatted as in Logs Insights: in UTC, with a space and no zone."""

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self // 1000, UTC):%Y-%m-%d %H:%M:%S}.{self % 1000:03d}"


class Record:
    """A log event.

    Args:
        timestamp_ms: of the event, since 1970.
        stream: the log stream's name.
        fields: the event, parsed.
        line: the event as it was written.
    """

    __slots__ = ("_found", "fields", "line", "stream", "timestamp_ms")

    def __init__(self, timestamp_ms: int, stream: str, fields: Mapping[str, Any], line: str) -> None:
        self.timestamp_ms = timestamp_ms
        self.stream = stream
        self.fields = fields
        self.line = line
        # Each further field takes a comma. So nearly all events are known to have few fields, without counting them.
        has_many = line.count(",") >= MAX_FIELDS
        self._found = frozenset(islice(_names(fields.items()), MAX_FIELDS)) if has_many else None

    def __getitem__(self, name: str) -> Value:
        """A field by its name in Logs Insights: dots select from objects, numbers from lists; None where it is missing.

        true and false are 1 and 0. An object or a list as a whole has no value. Only the first 200 fields of an event,
        in its own order, have one.
        """
        match name:
            case "@timestamp":
                return Timestamp(self.timestamp_ms)
            case "@message":
                return self.line
            case "@logStream":
                return self.stream
        return None if self._found is not None and name not in self._found else self._field(name)

    def _field(self, name: str) -> Value:
        found: Any = self.fields
        for part in _parts(name):
            if isinstance(found, dict):  # not Mapping, whose check takes five times as long
                found = found.get(part)
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        if isinstance(found, bool):
            return int(found)
        return found if isinstance(found, str | int | float) else None


class LogStore:
    """The newest records of each group.

    Args:
        max_records: the maximum of a group.
    """

    def __init__(self, max_records: int = _MAX_RECORDS) -> None:
        self._groups: dict[str, deque[Record]] = {group: deque(maxlen=max_records) for group in (LINES, METRICS)}
        self._added = dict.fromkeys(self._groups, 0)

    def add(self, record: Mapping[str, Any], line: str) -> None:
        """Adds a line of the recording, parsed and as it was written. A line that is not a log event is ignored.

        Fluent Bit ships the service's lines and its metrics as they were written, each kind to a group of its own.
        """
        if "_aws" in record:
            self._keep(METRICS, record["_aws"]["Timestamp"], record, line)
        elif "event" in record:
            self._keep(LINES, _milliseconds(record["timestamp"]), record, line)

    def _keep(self, group: str, timestamp_ms: int, record: Mapping[str, Any], line: str) -> None:
        self._groups[group].append(Record(timestamp_ms, _STREAM, record, line.strip()))
        self._added[group] += 1

    def recent(self, group: str, since_ms: float, until_ms: float) -> list[Record]:
        """The records of a group from `since_ms` to before `until_ms`, in order of arrival."""
        return [record for record in self._groups[group] if since_ms <= record.timestamp_ms < until_ms]

    def added(self, group: str) -> int:
        """How many records have been added to a group, also those that are no longer kept."""
        return self._added[group]

    def since(self, group: str, added: int) -> list[Record]:
        """The records that came after a number of others, in order of arrival, as far as they are kept."""
        records = self._groups[group]
        count = min(len(records), self._added[group] - added)
        return list(islice(records, len(records) - count, None)) if count > 0 else []


def _names(members: Iterable[tuple[str | int, Any]], prefix: str = "") -> Iterator[str]:
    """The names of all fields in their own order: a.b of an object, a.0 of a list."""
    return chain.from_iterable(_within(f"{prefix}{name}", value) for name, value in members)


def _within(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        return _names(value.items(), f"{name}.")
    if isinstance(value, list):
        return _names(enumerate(value), f"{name}.")
    return iter((name,))


@lru_cache(maxsize=1024)
def _parts(name: str) -> list[str]:
    return name.split(".")


@lru_cache(maxsize=16)  # under load, dozens of lines share a millisecond
def _milliseconds(written: str) -> int:
    moment = datetime.fromisoformat(written)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
