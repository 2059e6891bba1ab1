"""Traces, from OTLP's JSON to a waterfall."""

from typing import Any

import pytest

from ops.oncall.traces import TraceStore

ONE, OTHER = "a" * 32, "b" * 32


def span(
    trace_id: str, span_id: str, parent_id: str = "", start: int = 0, end: int = 10, **more: Any
) -> dict[str, Any]:
    """A span as OTLP's JSON has it; times are in milliseconds."""
    times = {"startTimeUnixNano": f"{start}000000", "endTimeUnixNano": f"{end}000000"}
    return {"traceId": trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": span_id, **times, **more}


def export(*spans: dict[str, Any]) -> dict[str, Any]:
    """What a collector is sent."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "clients-api"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def waterfall(store: TraceStore, trace_id: str) -> list[tuple[str, int, float, bool]]:
    """A trace's rows in short: span, depth, offset in ms, and whether it is linked."""
    return [(row.span.span_id, row.depth, row.offset_ms, row.is_linked) for row in store.waterfall(trace_id)]


def test_spans_are_below_their_parents_in_order_of_time() -> None:
    """A waterfall goes down from the root, each span's children in order of their start, whatever came first."""
    store = TraceStore()
    store.add(export(span(ONE, "late", "root", 6, 9), span(ONE, "inner", "early", 2, 3)))
    store.add(export(span(ONE, "root"), span(ONE, "early", "root", 1, 4)))

    assert waterfall(store, ONE) == [
        ("root", 0, 0.0, False),
        ("early", 1, 1.0, False),
        ("inner", 2, 2.0, False),
        ("late", 1, 6.0, False),
    ]


def test_a_batch_is_shown_in_each_trace_that_it_served() -> None:
    """A batch is a child of the first request that it served; in the traces of the others it is a linked row."""
    links = [{"traceId": ONE, "spanId": "first"}, {"traceId": OTHER, "spanId": "second"}]
    store = TraceStore()
    store.add(export(span(ONE, "batch", "first", 2, 5, links=links)))
    store.add(export(span(ONE, "first"), span(OTHER, "second", start=1)))

    assert waterfall(store, ONE) == [("first", 0, 0.0, False), ("batch", 1, 2.0, False)]
    assert waterfall(store, OTHER) == [("second", 0, 0.0, False), ("batch", 1, 1.0, True)]
    assert [root.span_id for root in store.recent(10)] == ["second", "first"]


def test_a_trace_that_began_elsewhere_has_a_root() -> None:
    """A span whose parent was never told of here is the root of what is shown."""
    store = TraceStore()
    store.add(export(span(ONE, "child", "here"), span(ONE, "here", "elsewhere")))

    assert waterfall(store, ONE) == [("here", 0, 0.0, False), ("child", 1, 0.0, False)]
    assert [root.span_id for root in store.recent(10)] == ["here"]


def test_spans_that_are_each_other_s_parent_end() -> None:
    """A circle, which no sane program sends, is shown once round."""
    store = TraceStore()
    store.add(export(span(ONE, "egg", "hen"), span(ONE, "hen", "egg", start=1)))

    assert len(store.recent(10)) == 1
    assert waterfall(store, ONE) == [("egg", 0, 0.0, False), ("hen", 1, 1.0, False)]


def test_values_have_their_kinds() -> None:
    """Whole numbers, which OTLP's JSON writes as text, are numbers again; an error says what it was."""
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


def test_the_oldest_traces_are_given_up() -> None:
    """No more traces are kept than were asked for, and no more spans of one than a person would read."""
    store = TraceStore(most=3)
    for number in range(10):
        store.add(export(span(f"{number:032x}", "root", start=number)))
    store.add(export(*(span(f"{9:032x}", f"child-{number}", "root") for number in range(500))))

    assert len(store) == 3
    assert [int(root.trace_id, 16) for root in store.recent(10)] == [9, 8, 7]
    assert len(store.waterfall(f"{9:032x}")) == 200
    with pytest.raises(KeyError):
        store.waterfall(f"{0:032x}")


def test_traces_can_be_narrowed_down() -> None:
    """Only failed ones, or only slow ones."""
    store = TraceStore()
    store.add(export(span(ONE, "slow", end=50), span(OTHER, "failed", status={"code": 2})))

    assert [root.span_id for root in store.recent(10, least_ms=20)] == ["slow"]
    assert [root.span_id for root in store.recent(10, only_errors=True)] == ["failed"]
    assert len(store.recent(1)) == 1
