"""Encodes spans as OTLP protocol buffers, from pieces.

Fields that many spans share are encoded once, by the protocol's own classes, and cached. Fields that differ are packed
directly: a message that is built field by field costs three times as much CPU, and uses more memory than the span.

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

# A field begins with a tag: its number times 8, plus its wire type. Type 1 has 8 bytes, and type 2 begins with its
# length.
_BYTES_8, _DELIMITED = 1, 2
_TRACE_ID: Final = bytes((1 << 3 | _DELIMITED, 16))
_SPAN_ID: Final = bytes((2 << 3 | _DELIMITED, 8))
_PARENT_ID: Final = bytes((4 << 3 | _DELIMITED, 8))
_TIMES: Final = Struct("<BQBQ")
_START, _END = 7 << 3 | _BYTES_8, 8 << 3 | _BYTES_8
_SPANS_TAG: Final = bytes((2 << 3 | _DELIMITED,))  # in ScopeSpans
_DOUBLE: Final = Struct("<d")


@lru_cache(maxsize=1024)
def common(
    name: str, kind: Span.SpanKind.ValueType, attributes: tuple[tuple[str, str | int], ...], *, is_remote: bool = False
) -> bytes:
    """The fields that many spans share.

    Args:
        name: the span's name.
        kind: server or client.
        attributes: in any order.
        is_remote: whether the parent span is in another service.
    """
    span = Span(name=name, kind=kind, flags=_FLAGS | _REMOTE if is_remote else _FLAGS)
    return bytes(span.SerializeToString()) + b"".join([attribute(*named) for named in attributes])


def identity(trace_id: str, span_id: str, parent_id: str, ended_at: float, seconds: float) -> bytes:
    """A span's IDs and times.

    Args:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        parent_id: 16 hexadecimal digits, or empty.
        ended_at: in seconds since 1970.
        seconds: the duration.
    """
    ended_ns = int(ended_at * 1e9)
    times = _TIMES.pack(_START, ended_ns - int(seconds * 1e9), _END, ended_ns)
    ids = _TRACE_ID + bytes.fromhex(trace_id) + _SPAN_ID + bytes.fromhex(span_id)
    return ids + _PARENT_ID + bytes.fromhex(parent_id) + times if parent_id else ids + times


def attribute(name: str, value: str | int) -> bytes:
    """An attribute."""
    span = Span()
    encoded = span.attributes.add(key=name).value
    if isinstance(value, str):
        encoded.string_value = value
    else:
        encoded.int_value = value
    return bytes(span.SerializeToString())


def failure(error: str) -> bytes:
    """The error status of a span, and the type of the error."""
    span = Span(status=Status(code=Status.STATUS_CODE_ERROR))
    return bytes(span.SerializeToString()) + attribute(names.ERROR_TYPE, error)


def state(header: str) -> bytes:
    """The W3C tracestate."""
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
    """Joins the pieces of a span into a field of ScopeSpans, the message that holds spans."""
    span = b"".join(pieces)
    length, varint = len(span), bytearray()
    while length >= 0x80:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join((_SPANS_TAG, varint, span))
