"""The saved queries over sampled lines, each of which stands for several requests, and over distributions."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from ops.cloudwatch.queries import FOLDER, read
from ops.oncall import insights
from ops.oncall.insights import Table, query
from ops.oncall.logs import LINES, METRICS, LogStore

QUERIES: Final = {file.stem: read(file) for file in sorted(FOLDER.glob("*.txt"))}

Line = dict[str, Any]


def line(weight: int, route: str = "/get/{id}", status: int = 200, **more: Any) -> Line:
    """A line of a request that stands for some requests, as the service writes it."""
    return {
        "timestamp": "2026-11-24T04:36:12.284Z",
        "event": "request",
        "pod": "pod-1",
        "method": "GET",
        "route": route,
        "status": status,
        "duration_ms": 1.0,
        "database_ms": 0.5,
        "queue_ms": 0.25,
        "batch_size": 2,
        "bytes": 50,
        "sample_weight": weight,
        "trace_id": "2d1c8a5bf6a34e1e8ab5bd4ad7d1b6ae",
        "client": "10.0.0.1",
        **more,
    }


LINES_OF_A_MINUTE: Final = (
    line(90),
    line(8, duration_ms=20.0, queue_ms=15.0, slot_ms=4.0, pod="pod-2"),
    line(2, duration_ms=200.0, queue_ms=60.0, database_ms=100.0, batch_size=61),
    line(7, "/add", 503, error="DatabaseBusy", client="10.0.0.2", request_id="load-1", duration_ms=500.0),
    line(3, "/add", 503, error="DatabaseBusy", client="10.0.0.2", pod="pod-2", duration_ms=400.0),
    {"timestamp": "2026-11-24T04:36:12.284Z", "event": "started", "pod": "pod-1"},
)


def ask(name: str, *events: Line, **replaced: str) -> list[dict[str, Any]]:
    """The rows of a saved query, each with its values by column."""
    store, saved = LogStore(), QUERIES[name]
    for event in events:
        store.add(event, json.dumps(event))
    text = saved.text
    for old, new in replaced.items():
        text = text.replace(old.replace("_", "-"), new)
    table: Table = insights.run(insights.parse(text), store.recent(saved.group, 0, float("inf")))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def aggregates(name: str) -> Iterator[query.Call]:
    """The aggregates of a saved query."""
    for command in insights.parse(QUERIES[name].text).commands:
        for expression, _ in query.steps(command) if isinstance(command, query.Stats) else ():
            yield from (one for one in query.parts(expression) if isinstance(one, query.Call))


@pytest.mark.parametrize("name", [name for name, saved in QUERIES.items() if 'event = "request"' in saved.text])
def test_no_query_counts_lines_as_requests(name: str) -> None:
    """Neither a count nor an average nor a percentile has weights. A sum has, by multiplication."""
    found = list(aggregates(name))
    sums = [one for one in found if one.name == "sum"]

    assert not {"count", "avg", "pct"} & {one.name for one in found}
    assert [one for one in sums if query.Field("sample_weight") not in query.parts(one)] == []


@pytest.mark.parametrize(
    ("name", "column", "counts"),
    [
        ("batches", "route", {"/get/{id}": 100, "/add": 10}),
        ("callers", "who", {"10.0.0.1": 100, "10.0.0.2": 10}),
        ("error-kinds", "error", {"DatabaseBusy": 10}),
        ("errors-by-route", "status", {503: 10}),
        ("latency-breakdown", "route", {"/get/{id}": 100, "/add": 10}),
        ("latency-by-route", "route", {"/get/{id}": 100, "/add": 10}),
        ("shed", "route", {"/add": 10}),
    ],
)
def test_the_weights_of_lines_add_up_to_requests(name: str, column: str, counts: dict[Any, int]) -> None:
    """A query counts the requests for which lines stand."""
    assert {row[column]: row["requests"] for row in ask(name, *LINES_OF_A_MINUTE)} == counts


def test_averages_and_shares_are_weighted() -> None:
    """A line that stands for 90 requests counts 90 times."""
    (gets,) = (row for row in ask("latency-by-route", *LINES_OF_A_MINUTE) if row["route"] == "/get/{id}")
    assert gets["average_ms"] == pytest.approx((90 * 1 + 8 * 20 + 2 * 200) / 100)
    assert (gets["percent_over_10_ms"], gets["percent_over_100_ms"], gets["percent_over_1_s"]) == (10, 2, 0)
    assert gets["slowest_ms"] == 200

    (parts,) = (row for row in ask("latency-breakdown", *LINES_OF_A_MINUTE) if row["route"] == "/get/{id}")
    assert parts["queue_avg"] == pytest.approx((90 * 0.25 + 8 * 15 + 2 * 60) / 100)
    assert parts["service_avg"] == pytest.approx((90 * 0.25 + 8 * 4.5 + 2 * 40) / 100)
    assert (parts["percent_queue_over_50_ms"], parts["percent_service_over_50_ms"]) == (2, 0)

    (batches,) = (row for row in ask("batches", *LINES_OF_A_MINUTE) if row["route"] == "/get/{id}")
    assert (batches["batch_avg"], batches["batch_largest"]) == ((98 * 2 + 2 * 61) / 100, 61)

    (shed,) = ask("shed", *LINES_OF_A_MINUTE)
    assert (shed["average_ms"], shed["pods"]) == (pytest.approx((7 * 500 + 3 * 400) / 10), 2)

    first, second = ask("callers", *LINES_OF_A_MINUTE)
    assert (first["waited"], first["longest_wait_ms"], first["bytes_sent"]) == (8, 4, 100 * 50)
    assert (second["refused_or_failed"], second["failed"]) == (10, 10)


def test_a_request_is_found_by_either_id() -> None:
    """A caller's own ID is in request_id. Without one, the trace's ID is the request's."""
    for given in ("load-1", "f" * 32):
        found = ask("one-request", line(1), line(1, trace_id="f" * 32, request_id="load-1"), REQUEST_ID=given)
        assert [row["xray_trace_id"] for row in found] == ["1-ffffffff-" + "f" * 24]
    assert [row["id"] for row in ask("faults", *LINES_OF_A_MINUTE)] == ["2d1c8a5bf6a34e1e8ab5bd4ad7d1b6ae", "load-1"]


def test_a_trace_is_found_in_either_form() -> None:
    """X-Ray's form has a date of its own, and the line's has 32 digits."""
    for given in ("2d1c8a5bf6a34e1e8ab5bd4ad7d1b6ae", "1-2d1c8a5b-f6a34e1e8ab5bd4ad7d1b6ae"):
        (found,) = ask("one-trace", line(1), line(1, trace_id="f" * 32), TRACE_ID=given)
        assert found["xray_trace_id"] == "1-2d1c8a5b-f6a34e1e8ab5bd4ad7d1b6ae"


# Metrics.


def document(pod: str, **metrics: Any) -> Line:
    """A document of metrics: what it is about stands before its distributions."""
    about = {"pod": pod, "node": "node-1", "build": "abc", "Operation": "get"}
    return {"_aws": {"Timestamp": 1_795_600_800_000, "CloudWatchMetrics": []}, **about, **metrics}


def distribution(count: int, total: float, largest: float) -> Line:
    """A distribution in the Embedded Metric Format, with as many values as one may have."""
    values = [largest * number / 100 for number in range(1, 101)]
    return {"Values": values, "Counts": [1] * 100, "Max": largest, "Min": 0.0, "Count": count, "Sum": total}


def test_metrics_are_read_as_distributions() -> None:
    """Averages are over all samples, and a distribution with the most values hides no number that stands before it."""
    numbers = {"ProcessCpu": 50.0, "ProcessMemory": 80e6, "OpenFiles": 40, "Shed": 3, "Faults": 2, "LogLinesDropped": 1}
    calm = document("calm", **numbers, EventLoopLag={"Max": 2.0, "Count": 100, "Sum": 50.0}, InFlight={"Max": 3})
    noisy = document("noisy", **numbers, EventLoopLag={"Max": 90.0, "Count": 100, "Sum": 900.0}, InFlight={"Max": 9})
    documents = [calm, {**noisy, "Connections": distribution(100, 5e3, 100.0)}, noisy]

    first, second = ask("noisy-pod", *documents)
    assert (first["pod"], first["lag_avg_ms"], first["lag_max_ms"], first["in_flight"]) == ("noisy", 9, 90, 9)
    assert (first["cpu_percent_of_a_core"], first["memory_mb"], first["files"], first["shed"]) == (50, 80, 40, 6)
    assert (second["pod"], second["lag_avg_ms"], second["faults"]) == ("calm", 0.5, 2)
    assert [(row["build"], row["pods"]) for row in ask("deployments", *documents)] == [("abc", 2)]
    assert [(row["pod"], row["lines_dropped"]) for row in ask("dropped-lines", *documents)] == [
        ("noisy", 2),
        ("calm", 1),
    ]


def test_round_trips_are_averaged_over_all_of_them() -> None:
    """A document of 900 round trips weighs more than one of 100."""
    rare = document("pod-1", RoundTrip={"Max": 9.0, "Count": 100, "Sum": 500.0}, BatchSize={"Count": 100, "Sum": 100})
    busy = document("pod-1", RoundTrip={"Max": 4.0, "Count": 900, "Sum": 900.0}, BatchSize={"Count": 900, "Sum": 4e3})
    waits = {"QueueWait": {"Max": 2.0, "Count": 1000, "Sum": 250.0}}

    (found,) = ask("round-trips", {**rare, **waits}, {**busy, **waits})
    assert (found["Operation"], found["round_trips"], found["round_trip_max_ms"]) == ("get", 1000, 9)
    assert (found["round_trip_avg_ms"], found["batch_avg"], found["queue_wait_avg_ms"]) == (1.4, 4.1, 0.25)


def test_each_query_is_of_a_known_group() -> None:
    """No query reads a field by the name under which Fluent Bit ships other pods' lines."""
    assert {saved.group for saved in QUERIES.values()} == {LINES, METRICS}
    assert [name for name, saved in QUERIES.items() if re.search(r"log_processed|kubernetes\.", saved.text)] == []
