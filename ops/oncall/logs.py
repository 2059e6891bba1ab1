"""The log as CloudWatch Logs holds it: two groups of records, the newest of each."""

from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

APPLICATION: Final = "application"  # the service's lines
METRICS: Final = "metrics"  # documents in the Embedded Metric Format

Value: TypeAlias = str | float | None

_RECORDS_MOST: Final = 50_000  # of a group: about 100 MB, and 2.5 s of the fastest that the service can log
_POD: Final = "clients-api-local"


class Timestamp(int):
    """Milliseconds since 1970, written as Logs Insights writes them: in UTC, with a blank and no zone."""

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self // 1000, UTC):%Y-%m-%d %H:%M:%S}.{self % 1000:03d}"


class Record:
    """A log event.

    Args:
        timestamp_ms: of the event, since 1970.
        stream: the log stream's name.
        fields: the event, parsed.
        line: the event as it was written; empty where that is not kept, since it can be written again.
    """

    __slots__ = ("_line", "fields", "stream", "timestamp_ms")

    def __init__(self, timestamp_ms: int, stream: str, fields: Mapping[str, Any], line: str = "") -> None:
        self.timestamp_ms = timestamp_ms
        self.stream = stream
        self.fields = fields
        self._line = line

    @property
    def message(self) -> str:
        """The event as CloudWatch has it: a line of JSON."""
        return self._line or orjson.dumps(self.fields).decode()

    def __getitem__(self, name: str) -> Value:
        """A field as Logs Insights finds it: by dots into objects, by numbers into lists; None where there is none.

        true and false are 1 and 0. An object or a list is no value, only what is in it is one.
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
            if isinstance(found, dict):  # not Mapping, which takes five times as long to tell
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
        most: records that a group keeps.
        pod: the name of the pod that the lines are said to come from.
    """

    def __init__(self, most: int = _RECORDS_MOST, pod: str = _POD) -> None:
        self._groups: dict[str, deque[Record]] = {APPLICATION: deque(), METRICS: deque()}
        self._of_trace: defaultdict[str, list[Record]] = defaultdict(list)
        self._most = most
        self._kubernetes = {"namespace_name": "clients", "container_name": "clients-api", "pod_name": pod}
        self._stream = f"{pod}-{APPLICATION}"

    def add(self, record: Mapping[str, Any], line: str) -> None:
        """Takes a line of the recording, parsed and as it is; one that is no log event, such as a span, is left out.

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
            kept = Record(_milliseconds(written), self._stream, shipped)
            self._keep(APPLICATION, kept)
            if (trace_id := record.get("trace_id")) is not None:
                self._of_trace[trace_id].append(kept)

    def recent(self, group: str, since_ms: float, until_ms: float) -> list[Record]:
        """A group's records from `since_ms` to just before `until_ms`, in order of their coming."""
        return [record for record in self._groups[group] if since_ms <= record.timestamp_ms < until_ms]

    def of_trace(self, trace_id: str) -> list[Record]:
        """The lines of a trace, in order of their coming.

        Args:
            trace_id: 32 hexadecimal digits.
        """
        return list(self._of_trace.get(trace_id, ()))

    def _keep(self, group: str, record: Record) -> None:
        kept = self._groups[group]
        kept.append(record)
        if len(kept) > self._most:
            self._forget(kept.popleft())

    def _forget(self, record: Record) -> None:
        trace_id = record.fields.get("log_processed", {}).get("trace_id")
        if trace_id is not None:
            lines = self._of_trace[trace_id]
            lines.pop(0)  # what came first goes first
            if not lines:
                del self._of_trace[trace_id]


@lru_cache(maxsize=1024)
def _parts(name: str) -> list[str]:
    return name.split(".")


@lru_cache(maxsize=16)  # under load, dozens of lines share a millisecond
def _milliseconds(written: str) -> int:
    moment = datetime.fromisoformat(written)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
