"""Converts trace exports from protocol buffers to OTLP's JSON.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import base64
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS: Final = ("traceId", "spanId", "parentSpanId")


def as_json(request: ExportTraceServiceRequest) -> tuple[dict[str, Any], int]:
    """An export in OTLP's JSON, and the number of its spans."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    spans = [
        span
        for resource in document.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]
    for span in spans:
        for name in _IDS:
            if name in span:  # protocol buffers' own JSON encodes bytes in base 64
                span[name] = base64.b64decode(span[name]).hex()
    return document, len(spans)
