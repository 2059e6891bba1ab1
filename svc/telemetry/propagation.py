"""The trace of another service that a request is part of."""

import logging
import re
from typing import Final, NamedTuple

from multidict import MultiMapping
from opentelemetry import trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C: Final = TraceContextTextMapPropagator()
# It warns of each tracestate that is not valid, so that a caller could add a line for each of its requests.
logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
# https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
_XRAY_ROOT: Final = re.compile(r"\bRoot=1-([0-9a-f]{8})-([0-9a-f]{24})\b")
_XRAY_PARENT: Final = re.compile(r"\bParent=([0-9a-f]{16})\b")
_XRAY_SAMPLED: Final = re.compile(r"\bSampled=([01])\b")


class RemoteParent(NamedTuple):
    """The parent span of a request, in another service.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: the parent span's ID, 16 hexadecimal digits; empty if unknown.
        is_sampled: whether the parent span is recorded; None if unknown.
        state: the W3C tracestate, which is passed on.
    """

    trace_id: str
    parent_id: str
    is_sampled: bool | None
    state: str


class _Headers(Getter[MultiMapping[str]]):
    """Reads all headers of a name, where the propagator's own getter reads the first one only."""

    def get(self, carrier: MultiMapping[str], key: str) -> list[str] | None:
        """The values of the headers. Two `traceparent` are none, since nobody can know which one is right."""
        values = carrier.getall(key, None)
        return None if values and len(values) > 1 and key == "traceparent" else values

    def keys(self, carrier: MultiMapping[str]) -> list[str]:
        return list(carrier)


_HEADERS: Final = _Headers()


def extract(headers: MultiMapping[str]) -> RemoteParent | None:
    """The parent that the headers name, in W3C's or X-Ray's format; None if there is no valid one.

    Several `tracestate` headers are one list, and one that is not valid is dropped: https://www.w3.org/TR/trace-context
    """
    parent = trace.get_current_span(_W3C.extract(headers, getter=_HEADERS)).get_span_context()
    if parent.is_valid:
        state = parent.trace_state.to_header()
        return RemoteParent(f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.trace_flags.sampled, state)
    header = headers.get("X-Amzn-Trace-Id", "")
    root, parent_span, sampled = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header), _XRAY_SAMPLED.search(header)
    if root is None or (trace_id := root[1] + root[2]) == "0" * 32:
        return None
    return RemoteParent(trace_id, parent_span[1] if parent_span else "", sampled[1] == "1" if sampled else None, "")
