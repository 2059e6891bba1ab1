"""Spans in the binary form of OTLP's protocol buffers, put together from pieces.

What spans have in common is encoded once, by the protocol's own classes. What differs is packed into place: a message
built field by field costs three times as much, and its memory more than the span.

https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.trace import TraceFlags

from svc.logs import names

_FLAGS: Final = TraceFlags.SAMPLED | SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK

# A field begins with its number, times 8, plus its type: 1 for 8 bytes, 5 for 4, 2 for as many as the next byte says.
_BYTES_8, _BYTES_4, _SOME_BYTES = 1, 5, 2
_TRACE_ID: Final = bytes((1 << 3 | _SOME_BYTES, 16))
_SPAN_ID: Final = bytes((2 << 3 | _SOME_BYTES, 8))
_PARENT_ID: Final = bytes((4 << 3 | _SOME_BYTES, 8))
_TIMES: Final = Struct("<BQBQ")
_START, _END = 7 << 3 | _BYTES_8, 8 << 3 | _BYTES_8
_LINK: Final = Struct("<BB2s16s2s8sBI")
_LINK_TAG, _LINK_BYTES, _LINK_FLAGS = 13 << 3 | _SOME_BYTES, 33, 6 << 3 | _BYTES_4
_SPANS_TAG: Final = bytes((2 << 3 | _SOME_BYTES,))  # in ScopeSpans
_DOUBLE: Final = Struct("<d")


@lru_cache(maxsize=1024)
def common(
    name: str, kind: Span.SpanKind.ValueType, attributes: tuple[tuple[str, str | int], ...], *, is_remote: bool = False
) -> bytes:
    """What many spans have in common.

    Args:
        name: the span's.
        kind: whether it served or asked.
        attributes: in any order.
        is_remote: whether its parent is of another service.
    """
    span = Span(name=name, kind=kind, flags=_FLAGS | _REMOTE if is_remote else _FLAGS)
    return bytes(span.SerializeToString()) + b"".join([attribute(*named) for named in attributes])


def identity(trace_id: str, span_id: str, parent_id: str, ended_at: float, seconds: float) -> bytes:
    """Who a span is, and when.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them.
        parent_id: likewise, or empty.
        ended_at: in seconds since 1970.
        seconds: how long it took.
    """
    ended_ns = int(ended_at * 1e9)
    times = _TIMES.pack(_START, ended_ns - int(seconds * 1e9), _END, ended_ns)
    ids = _TRACE_ID + bytes.fromhex(trace_id) + _SPAN_ID + bytes.fromhex(span_id)
    return ids + _PARENT_ID + bytes.fromhex(parent_id) + times if parent_id else ids + times


def link(trace_id: str, span_id: str) -> bytes:
    """A link to another sampled span, by the digits of its ids."""
    ids = _TRACE_ID, bytes.fromhex(trace_id), _SPAN_ID, bytes.fromhex(span_id)
    return _LINK.pack(_LINK_TAG, _LINK_BYTES, *ids, _LINK_FLAGS, _FLAGS)


def attribute(name: str, value: str | int) -> bytes:
    """An attribute."""
    span = Span()
    found = span.attributes.add(key=name).value
    if isinstance(value, str):
        found.string_value = value
    else:
        found.int_value = value
    return bytes(span.SerializeToString())


def failure(error: str) -> bytes:
    """That a span is of something that failed, and the type of the error."""
    span = Span(status=Status(code=Status.STATUS_CODE_ERROR))
    return bytes(span.SerializeToString()) + attribute(names.ERROR_TYPE, error)


def state(header: str) -> bytes:
    """W3C's tracestate."""
    return bytes(Span(trace_state=header).SerializeToString())


def duration(name: str, seconds: float) -> bytes:
    """An attribute that is a number of seconds."""
    return _duration(name) + _DOUBLE.pack(seconds)


@lru_cache
def _duration(name: str) -> bytes:
    span = Span()
    span.attributes.add(key=name).value.double_value = 1.0
    return bytes(span.SerializeToString())[: -_DOUBLE.size]


def join(pieces: Iterable[bytes]) -> bytes:
    """A span of these pieces, as a field of what the exporter sends."""
    span = b"".join(pieces)
    length, varint = len(span), bytearray()
    while length >= 0x80:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join((_SPANS_TAG, varint, span))
