"""The store of log events: which it keeps, and which fields of an event a query finds."""

import json
from collections.abc import Iterable
from typing import Any, Final

from ops.oncall.logs import LINES, MAX_FIELDS, METRICS, LogStore, Record

NOON: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC, in milliseconds


def record(fields: dict[str, Any]) -> Record:
    return Record(NOON, "stream", fields, json.dumps(fields))


def stored(*lines: dict[str, Any], max_records: int = 10) -> LogStore:
    store = LogStore(max_records)
    for line in lines:
        store.add(line, f"{json.dumps(line)}\n")
    return store


def test_events_are_stored_as_they_were_written() -> None:
    """A line and a metric document are events of their own groups, with nothing added. Spans are no log events."""
    line = {"timestamp": "2026-01-01T12:00:00.007Z", "event": "request", "pod": "pod-1", "status": 200}
    document = {"pod": "pod-1", "_aws": {"Timestamp": NOON, "CloudWatchMetrics": []}}
    store = stored(line, document, {"resourceSpans": []})

    ((of_line,), (of_metrics,)) = (store.recent(group, 0, float("inf")) for group in (LINES, METRICS))
    assert (of_line["@message"], of_metrics["@message"]) == (json.dumps(line), json.dumps(document))
    assert (of_line["pod"], of_line["status"]) == ("pod-1", 200)
    assert str(of_line["@timestamp"]) == "2026-01-01 12:00:00.007"
    assert of_metrics.timestamp_ms == NOON


def test_the_oldest_records_are_dropped() -> None:
    """A group keeps a maximum of records."""
    lines = [{"event": "request", "timestamp": f"2026-01-01T12:00:00.00{number}Z"} for number in range(6)]
    store = stored(*lines, max_records=3)

    def numbers(found: Iterable[Record]) -> list[int]:
        return [one.timestamp_ms - NOON for one in found]

    assert numbers(store.recent(LINES, 0, float("inf"))) == [3, 4, 5]
    assert numbers(store.recent(LINES, NOON + 4, NOON + 5)) == [4]
    assert store.recent(METRICS, 0, float("inf")) == []


def test_only_the_first_200_fields_of_an_event_are_found() -> None:
    """In the event's own order, with each element of a list and each member of an object as a field."""
    event = {
        "pod": "pod-1",
        "Latency": [float(number) for number in range(100)],
        "RoundTrip": {"Values": [1.5] * 95, "Max": 7, "Min": 1, "Count": 95, "Sum": 2.5},
        "build": "abc",
    }
    found = record(event)
    names = ["pod", *(f"Latency.{number}" for number in range(100)), *(f"RoundTrip.Values.{at}" for at in range(95))]
    names += [f"RoundTrip.{name}" for name in ("Max", "Min", "Count", "Sum")]

    assert len(names) == MAX_FIELDS == 200
    assert [name for name in names if found[name] is None] == []
    assert found["build"] is None
    assert record({"build": "abc", **event})["build"] == "abc"
    assert record({"build": "abc", **event})["RoundTrip.Sum"] is None


def test_commas_in_texts_are_no_fields() -> None:
    """An event with few fields and a long text has all of them."""
    found = record({"exception": ", " * 500, "build": "abc"})

    assert (found["build"], found["exception"]) == ("abc", ", " * 500)
