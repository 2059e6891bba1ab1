"""Stores traces from OTLP's JSON, lists them and computes the waterfall of one.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias

from svc.telemetry.record import PROBES

Attributes: TypeAlias = dict[str, Any]

_KINDS: Final = ("", "internal", "server", "client", "producer", "consumer")
_ERROR: Final = 2  # as Status.code
_MAX_SPANS: Final = 200  # of a trace


@dataclass(frozen=True, slots=True)
class Span:
    """A span.

    Attributes:
        parent_id: 16 hexadecimal digits, or empty.
        kind: server, client …, or empty.
        start: in seconds since 1970.
        seconds: how long it took.
        error: the message of an error status, else None.
        attributes: of the span.
        resource: the attributes of the process that made it.
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


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a waterfall.

    Attributes:
        span: that it shows.
        depth: levels below the root of the trace.
        offset_ms: from the start of the trace.
    """

    span: Span
    depth: int
    offset_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which traces are listed.

    Attributes:
        start: of the time range in which a trace starts, in seconds since 1970.
        end: of the time range.
        route: of the request; empty for all routes.
        status: of the response: a code such as 503, or a class such as 5xx; empty for all.
        min_ms: the minimum duration.
        only_errors: whether to leave out traces without an error.
        with_probes: whether to list requests of probes, where `route` does not name theirs.
        trace_id: the first digits of the ID. Where it is given, the time range and probes do not matter.
    """

    start: float = 0.0
    end: float = inf
    route: str = ""
    status: str = ""
    min_ms: float = 0.0
    only_errors: bool = False
    with_probes: bool = False
    trace_id: str = ""

    def matches(self, root: Span) -> bool:
        """Whether to list the trace with this root."""
        route, code = _route(root), str(root.attributes.get("http.response.status_code", ""))
        is_in_range = self.start <= root.start < self.end and (self.with_probes or self.route or route not in PROBES)
        return bool(
            (root.trace_id.startswith(self.trace_id) if self.trace_id else is_in_range)
            and self.route in {"", route}
            and code.startswith(self.status.rstrip("x"))
            and root.seconds * 1000 >= self.min_ms
            and not (self.only_errors and root.error is None)
        )


class TraceStore:
    """The newest traces.

    Args:
        max_traces: the maximum number of traces.
    """

    def __init__(self, max_traces: int = 5000) -> None:
        self._max_traces = max_traces
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()

    def add(self, document: Mapping[str, Any]) -> None:
        """Adds the spans of an export.

        Raises:
            KeyError, TypeError, ValueError: the export is not valid.
        """
        for span in _spans(document):
            spans = self._traces.setdefault(span.trace_id, {})
            if len(spans) < _MAX_SPANS:
                spans[span.span_id] = span
            if len(self._traces) > self._max_traces:
                self._traces.popitem(last=False)

    def __len__(self) -> int:
        return len(self._traces)

    def find(self, wanted: TraceFilter) -> list[Span]:
        """The root spans of the traces that a filter lets through, newest first."""
        roots = map(_root, self._traces.values())
        return sorted(filter(wanted.matches, roots), key=lambda root: -root.start)

    def routes(self) -> list[str]:
        """The routes of all traces, in alphabetical order."""
        return sorted({_route(_root(spans)) for spans in self._traces.values()})

    def waterfall(self, trace_id: str) -> list[Row]:
        """The spans of a trace, each below its parent.

        Raises:
            KeyError: there is no trace with this id.
        """
        spans = self._traces[trace_id]
        began = min(span.start for span in spans.values())
        return [Row(span, depth, _ms(span.start - began)) for span, depth in _nested(spans)]


def _route(root: Span) -> str:
    return str(root.attributes.get("http.route", root.name))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _root(spans: Mapping[str, Span]) -> Span:
    """The root: the earliest span without a parent in the trace."""
    return min(_tops(spans), key=lambda span: span.start)


def _tops(spans: Mapping[str, Span]) -> list[Span]:
    """The spans without a parent in the trace; all spans where the parents form a circle."""
    return [span for span in spans.values() if span.parent_id not in spans] or list(spans.values())


def _nested(spans: Mapping[str, Span]) -> Iterator[tuple[Span, int]]:
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans.values(), key=lambda span: -span.start):
        children[span.parent_id].append(span)
    waiting = [(span, 0) for span in sorted(_tops(spans), key=lambda span: -span.start)]
    seen: set[str] = set()
    while waiting:
        span, depth = waiting.pop()
        if span.span_id not in seen:
            seen.add(span.span_id)
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
    )


def _attributes(holder: Mapping[str, Any]) -> Attributes:
    return {attribute["key"]: _value(attribute["value"]) for attribute in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    """An attribute's value; OTLP's JSON writes integers as text."""
    for kind, content in value.items():
        if kind == "intValue":
            return int(content)
        if kind == "arrayValue":
            return [_value(one) for one in content.get("values", ())]
        return content
    return None
