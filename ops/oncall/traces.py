"""Traces: spans in OTLP's JSON go in, a list of traces and the waterfall of one come out.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

Attributes: TypeAlias = dict[str, Any]

_KINDS: Final = ("", "internal", "server", "client", "producer", "consumer")
_ERROR: Final = 2  # as Status.code
_SPANS_MOST: Final = 200  # of a trace; a batch may be linked to as many


@dataclass(frozen=True, slots=True)
class Span:
    """A span.

    Attributes:
        parent_id: 16 hexadecimal digits, or empty.
        kind: server, client …, or empty.
        start: in seconds since 1970.
        seconds: how long it took.
        error: the status's words where it is one, else None.
        attributes: its own.
        resource: those of who made it.
        links: ids of trace and span of those that it is linked to.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start: float
    seconds: float
    error: str | None
    attributes: Attributes
    resource: Attributes
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a waterfall.

    Attributes:
        span: what it shows.
        depth: of the span below the trace's root.
        offset_ms: from the trace's start.
        is_linked: whether the span is another trace's, and has a link to this one.
    """

    span: Span
    depth: int
    offset_ms: float
    is_linked: bool


@dataclass(slots=True)
class _Trace:
    spans: dict[str, Span] = field(default_factory=dict)
    linked: dict[str, Span] = field(default_factory=dict)


class TraceStore:
    """The last traces.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int = 5000) -> None:
        self._most = most
        self._traces: OrderedDict[str, _Trace] = OrderedDict()

    def add(self, document: Mapping[str, Any]) -> None:
        """Takes what a collector would be sent.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        for span in _spans(document):
            self._put(self._of(span.trace_id).spans, span)
            for trace_id, _ in span.links:
                if trace_id != span.trace_id:
                    self._put(self._of(trace_id).linked, span)

    def _of(self, trace_id: str) -> _Trace:
        found = self._traces.get(trace_id)
        if found is None:
            found = self._traces[trace_id] = _Trace()
            if len(self._traces) > self._most:
                self._traces.popitem(last=False)
        return found

    @staticmethod
    def _put(spans: dict[str, Span], span: Span) -> None:
        if len(spans) < _SPANS_MOST:
            spans[span.span_id] = span

    def __len__(self) -> int:
        return len(self._traces)

    def recent(self, most: int, *, only_errors: bool = False, least_ms: float = 0.0) -> list[Span]:
        """The roots of traces, the newest first.

        Args:
            most: how many.
            only_errors: whether they have to have failed.
            least_ms: that they have to have taken.
        """
        roots = (_root(trace.spans) for trace in reversed(self._traces.values()) if trace.spans)
        chosen = (
            root for root in roots if root.seconds * 1000 >= least_ms and not (only_errors and root.error is None)
        )
        return sorted(islice(chosen, most), key=lambda root: -root.start)

    def waterfall(self, trace_id: str) -> list[Row]:
        """A trace's spans, each below its parent, and those of other traces that are linked to it.

        Raises:
            KeyError: there is none with this id.
        """
        trace = self._traces[trace_id]
        if not trace.spans:
            raise KeyError(trace_id)
        began = min(span.start for span in trace.spans.values())
        rows = [Row(span, depth, _ms(span.start - began), False) for span, depth in _nested(trace.spans)]
        linked = sorted(trace.linked.values(), key=lambda span: span.start)
        return rows + [Row(span, 1, _ms(span.start - began), True) for span in linked]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _root(spans: Mapping[str, Span]) -> Span:
    """The span that the others are below: the first of those whose parent is not there."""
    return min(_tops(spans), key=lambda span: span.start)


def _tops(spans: Mapping[str, Span]) -> list[Span]:
    """Spans whose parent is not there; where they go round in a circle, all."""
    return [span for span in spans.values() if span.parent_id not in spans] or list(spans.values())


def _nested(spans: Mapping[str, Span]) -> Iterator[tuple[Span, int]]:
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans.values(), key=lambda span: -span.start):
        children[span.parent_id].append(span)
    waiting = [(span, 0) for span in sorted(_tops(spans), key=lambda span: -span.start)]
    told: set[str] = set()
    while waiting:
        span, depth = waiting.pop()
        if span.span_id not in told:
            told.add(span.span_id)
            yield span, depth
            waiting += [(child, depth + 1) for child in children[span.span_id]]


def _spans(document: Mapping[str, Any]) -> Iterator[Span]:
    for of_resource in document["resourceSpans"]:
        resource = _attributes(of_resource.get("resource", {}))
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                yield _span(span, resource)


def _span(span: Mapping[str, Any], resource: Attributes) -> Span:
    start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    status, attributes = span.get("status", {}), _attributes(span)
    failed = status.get("code") == _ERROR
    return Span(
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId", ""),
        name=span["name"],
        kind=_KINDS[span.get("kind", 0)],
        start=start / 1e9,
        seconds=(end - start) / 1e9,
        error=(status.get("message") or str(attributes.get("error.type", "error"))) if failed else None,
        attributes=attributes,
        resource=resource,
        links=tuple((link["traceId"], link["spanId"]) for link in span.get("links", ())),
    )


def _attributes(holder: Mapping[str, Any]) -> Attributes:
    return {attribute["key"]: _value(attribute["value"]) for attribute in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    """A value: OTLP's JSON writes whole numbers as text."""
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "arrayValue":
            return [_value(one) for one in content.get("values", ())]
        return content
    return None
