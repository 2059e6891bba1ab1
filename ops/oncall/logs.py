"""The newest log events of two log groups, as in CloudWatch Logs."""

from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

APPLICATION: Final = "application"  # the service's lines
METRICS: Final = "metrics"  # documents in the Embedded Metric Format

Value: TypeAlias = str | float | None

_MAX_RECORDS: Final = 50_000  # of a group: about 100 MB, and 2.5 s of the service's highest log rate
_POD: Final = "clients-api-local"


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
        line: the event as it was written; empty where `message` serializes the fields instead.
    """

    __slots__ = ("_line", "fields", "stream", "timestamp_ms")

    def __init__(self, timestamp_ms: int, stream: str, fields: Mapping[str, Any], line: str = "") -> None:
        self.timestamp_ms = timestamp_ms
        self.stream = stream
        self.fields = fields
        self._line = line

    @property
    def message(self) -> str:
        """The event as CloudWatch stores it: a line of JSON."""
        return self._line or orjson.dumps(self.fields).decode()

    def __getitem__(self, name: str) -> Value:
        """A field by its name in Logs Insights: dots select from objects, numbers from lists; None where it is missing.

        true and false are 1 and 0. An object or a list as a whole has no value.
        https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
        """
        match name:
            case "@timestamp":
                return Timestamp(self.timestamp_ms)
            case "@message":
                return self.message
            case "@logStream":
                return self.stream
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
        pod: the name of the pod in the records.
    """

    def __init__(self, max_records: int = _MAX_RECORDS, pod: str = _POD) -> None:
        self._groups: dict[str, deque[Record]] = {APPLICATION: deque(), METRICS: deque()}
        self._by_trace: defaultdict[str, list[Record]] = defaultdict(list)
        self._max_records = max_records
        self._kubernetes = {"namespace_name": "clients", "container_name": "clients-api", "pod_name": pod}
        self._stream = f"{pod}-{APPLICATION}"

    def add(self, record: Mapping[str, Any], line: str) -> None:
        """Adds a line of the recording, parsed and as it was written. A line that is not a log event is ignored.

        A line of the service is kept in the shape in which Fluent Bit's kubernetes filter ships it, with `merge_log`
        and `merge_log_key: log_processed`: https://docs.fluentbit.io/manual/data-pipeline/filters/kubernetes
        """
        if "_aws" in record:
            self._keep(METRICS, Record(record["_aws"]["Timestamp"], self._stream, record, line.strip()))
        elif "event" in record:
            written = record["timestamp"]
            shipped = {
                "time": written,
                "stream": "stdout",
                "log_processed": record,
                "kubernetes": self._kubernetes,
            }
            added = Record(_milliseconds(written), self._stream, shipped)
            self._keep(APPLICATION, added)
            if (trace_id := record.get("trace_id")) is not None:
                self._by_trace[trace_id].append(added)

    def recent(self, group: str, since_ms: float, until_ms: float) -> list[Record]:
        """The records of a group from `since_ms` to before `until_ms`, in order of arrival."""
        return [record for record in self._groups[group] if since_ms <= record.timestamp_ms < until_ms]

    def of_trace(self, trace_id: str) -> list[Record]:
        """The log lines of a trace, in order of arrival.

        Args:
            trace_id: 32 hexadecimal digits.
        """
        return list(self._by_trace.get(trace_id, ()))

    def _keep(self, group: str, record: Record) -> None:
        kept = self._groups[group]
        kept.append(record)
        if len(kept) > self._max_records:
            self._remove(kept.popleft())

    def _remove(self, record: Record) -> None:
        trace_id = record.fields.get("log_processed", {}).get("trace_id")
        if trace_id is not None:
            lines = self._by_trace[trace_id]
            lines.pop(0)  # records are removed in order of arrival
            if not lines:
                del self._by_trace[trace_id]


@lru_cache(maxsize=1024)
def _parts(name: str) -> list[str]:
    return name.split(".")


@lru_cache(maxsize=16)  # under load, dozens of lines share a millisecond
def _milliseconds(written: str) -> int:
    moment = datetime.fromisoformat(written)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
