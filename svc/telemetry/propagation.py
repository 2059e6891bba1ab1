"""The trace that a request is part of, and whether that trace is recorded."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C: Final = TraceContextTextMapPropagator()
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


def extract(headers: Mapping[str, str]) -> RemoteParent | None:
    """The parent that the headers name, in W3C's or X-Ray's format; None if there is no valid one."""
    parent = trace.get_current_span(_W3C.extract(headers)).get_span_context()
    if parent.is_valid:
        state = parent.trace_state.to_header()
        return RemoteParent(f"{parent.trace_id:032x}", f"{parent.span_id:016x}", parent.trace_flags.sampled, state)
    header = headers.get("X-Amzn-Trace-Id", "")
    root, parent_span, sampled = _XRAY_ROOT.search(header), _XRAY_PARENT.search(header), _XRAY_SAMPLED.search(header)
    if root is None or (trace_id := root[1] + root[2]) == "0" * 32:
        return None
    return RemoteParent(trace_id, parent_span[1] if parent_span else "", sampled[1] == "1" if sampled else None, "")


class Sampler:
    """Decides which traces are recorded, as OTEL_TRACES_SAMPLER configures.

    Args:
        ratio: the share to record of the traces that begin here.
        is_parent_based: whether a trace that began elsewhere is recorded exactly if its parent was.
    """

    def __init__(self, ratio: float, *, is_parent_based: bool) -> None:
        # As in the SDK's TraceIdRatioBased, the ID's last 64 bits must be below the ratio's share of 2**64. Strings of
        # 16 hexadecimal digits sort like their numbers, and all of them sort before "g".
        bound = round(ratio * 2**64)
        self._bound = f"{bound:016x}" if bound < 2**64 else "g"
        self._is_parent_based = is_parent_based

    def should_sample(self, trace_id: str, remote_parent: RemoteParent | None = None) -> bool:
        """Whether to record this trace, of 32 hexadecimal digits."""
        if remote_parent is not None and self._is_parent_based and remote_parent.is_sampled is not None:
            return remote_parent.is_sampled
        return trace_id[16:] < self._bound
