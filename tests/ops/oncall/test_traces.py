"""Traces: from OTLP's JSON to a waterfall."""

from typing import Any, Final

import pytest

from ops.oncall.traces import TraceFilter, TraceStore

ONE, OTHER = "a" * 32, "b" * 32


def span(
    trace_id: str, span_id: str, parent_id: str = "", start: int = 0, end: int = 10, **more: Any
) -> dict[str, Any]:
    """A span in OTLP's JSON; the arguments are in milliseconds."""
    times = {"startTimeUnixNano": f"{start}000000", "endTimeUnixNano": f"{end}000000"}
    return {"traceId": trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": span_id, **times, **more}


def export(*spans: dict[str, Any]) -> dict[str, Any]:
    """An export to a collector."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "clients-api"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def waterfall(store: TraceStore, trace_id: str) -> list[tuple[str, int, float]]:
    """The rows of a trace: span, depth and offset in ms."""
    return [(row.span.span_id, row.depth, row.offset_ms) for row in store.waterfall(trace_id)]


def test_spans_are_below_their_parents_in_order_of_start() -> None:
    """The order of arrival does not matter."""
    store = TraceStore()
    store.add(export(span(ONE, "late", "root", 6, 9), span(ONE, "inner", "early", 2, 3)))
    store.add(export(span(ONE, "root"), span(ONE, "early", "root", 1, 4)))

    assert waterfall(store, ONE) == [
        ("root", 0, 0.0),
        ("early", 1, 1.0),
        ("inner", 2, 2.0),
        ("late", 1, 6.0),
    ]


def test_the_newest_traces_come_first() -> None:
    """Each is listed by its root."""
    store = TraceStore()
    store.add(export(span(ONE, "batch", "first", 2, 5), span(ONE, "first"), span(OTHER, "second", start=1)))

    assert [root.span_id for root in store.find(TraceFilter())] == ["second", "first"]


def test_a_span_with_an_unknown_parent_is_a_root() -> None:
    """Its parent is in another service."""
    store = TraceStore()
    store.add(export(span(ONE, "child", "here"), span(ONE, "here", "elsewhere")))

    assert waterfall(store, ONE) == [("here", 0, 0.0), ("child", 1, 0.0)]
    assert [root.span_id for root in store.find(TraceFilter())] == ["here"]


def test_spans_that_are_each_others_parents_are_shown_once() -> None:
    """A circle of parents does not loop forever."""
    store = TraceStore()
    store.add(export(span(ONE, "egg", "hen"), span(ONE, "hen", "egg", start=1)))

    assert len(store.find(TraceFilter())) == 1
    assert waterfall(store, ONE) == [("egg", 0, 0.0), ("hen", 1, 1.0)]


def test_attributes_and_errors_are_parsed() -> None:
    """Integers, which OTLP's JSON writes as text, become numbers. An error has its message."""
    attributes = [
        {"key": "http.response.status_code", "value": {"intValue": "503"}},
        {"key": "clients.queue.duration", "value": {"doubleValue": 0.5}},
        {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"boolValue": True}]}}},
    ]
    store = TraceStore()
    status = {"code": 2, "message": "DatabaseBusy"}
    store.add(export(span(ONE, "root", attributes=attributes, kind=2, status=status)))

    (row,) = store.waterfall(ONE)
    assert row.span.attributes == {
        "http.response.status_code": 503,
        "clients.queue.duration": 0.5,
        "tags": ["a", True],
    }
    assert (row.span.kind, row.span.error, row.span.resource) == (
        "server",
        "DatabaseBusy",
        {"service.name": "clients-api"},
    )


def test_the_oldest_traces_are_dropped() -> None:
    """At most the configured number of traces is kept, and at most 200 spans of each."""
    store = TraceStore(max_traces=3)
    for number in range(10):
        store.add(export(span(f"{number:032x}", "root", start=number)))
    store.add(export(*(span(f"{9:032x}", f"child-{number}", "root") for number in range(500))))

    assert len(store) == 3
    assert [int(root.trace_id, 16) for root in store.find(TraceFilter())] == [9, 8, 7]
    assert len(store.waterfall(f"{9:032x}")) == 200
    with pytest.raises(KeyError):
        store.waterfall(f"{0:032x}")


ERROR: Final = {"code": 2}


def answered(status: int, route: str) -> dict[str, Any]:
    """What a span has of a response and its request."""
    code = {"key": "http.response.status_code", "value": {"intValue": str(status)}}
    return {"attributes": [code, {"key": "http.route", "value": {"stringValue": route}}]}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (TraceFilter(), "cba"),
        (TraceFilter(with_probes=True), "dcba"),
        (TraceFilter(route="/readyz"), "d"),
        (TraceFilter(route="/add"), "b"),
        (TraceFilter(status="503"), "b"),
        (TraceFilter(status="5xx"), "cb"),
        (TraceFilter(status="4xx"), ""),
        (TraceFilter(min_ms=20), "a"),
        (TraceFilter(only_errors=True), "c"),
        (TraceFilter(start=1, end=2), "b"),
        (TraceFilter(trace_id="dd", start=99), "d"),
        (TraceFilter(trace_id="d", status="200"), ""),
        (TraceFilter(status="5xx", route="/add", trace_id="b" * 32), "b"),
    ],
)
def test_traces_can_be_filtered(wanted: TraceFilter, found: str) -> None:
    """By time, route, status, duration, error and ID. Probes are left out, unless the filter names them."""
    store = TraceStore()
    spans = [
        span("a" * 32, "slow", end=50),
        span("b" * 32, "add", start=1000, end=1005, **answered(503, "/add")),
        span("c" * 32, "failed", start=2000, end=2001, status=ERROR, **answered(500, "/get/{id}")),
        span("d" * 32, "probe", start=3000, end=3001, **answered(503, "/readyz")),
    ]
    store.add(export(*spans))

    assert "".join(root.trace_id[0] for root in store.find(wanted)) == found
    assert store.routes() == ["/add", "/get/{id}", "/readyz", "slow"]
