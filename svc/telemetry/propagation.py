"""Whose trace a request is part of, and whether that trace is recorded."""

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
    """Where a request says that its trace began.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: of the span that asked, 16 of them; empty where it is not known.
        is_sampled: whether that one is recorded, where it says so.
        state: W3C's tracestate, to be handed on.
    """

    trace_id: str
    parent_id: str
    is_sampled: bool | None
    state: str


def extract(headers: Mapping[str, str]) -> RemoteParent | None:
    """What the headers say, in W3C's words or X-Ray's; None where they say nothing that can be understood."""
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
    """Decides which traces are recorded, as OTEL_TRACES_SAMPLER says.

    Args:
        ratio: of the traces that begin here.
        is_parent_based: whether those that began elsewhere are recorded just where they were recorded there.
    """

    def __init__(self, ratio: float, *, is_parent_based: bool) -> None:
        # As the SDK's TraceIdRatioBased: the id's last 64 bits are below a share of all. Digits of one length sort as
        # their numbers do, and all of them come before g.
        bound = round(ratio * 2**64)
        self._bound = f"{bound:016x}" if bound < 2**64 else "g"
        self._is_parent_based = is_parent_based

    def should_sample(self, trace_id: str, remote_parent: RemoteParent | None = None) -> bool:
        """Whether to record this trace, of 32 hexadecimal digits."""
        if remote_parent is not None and self._is_parent_based and remote_parent.is_sampled is not None:
            return remote_parent.is_sampled
        return trace_id[16:] < self._bound
