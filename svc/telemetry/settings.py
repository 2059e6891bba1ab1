"""What telemetry the service emits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceSettings:
    """Which requests are traced and how spans are exported; OTEL_* variables that the SDK reads decide the rest.

    Attributes:
        protocol: grpc or http/protobuf; empty where no collector is named, and so nothing is traced.
        ratio: the share of the traces that begin here which is recorded, 0 to 1.
        is_parent_based: whether a trace that began elsewhere is recorded exactly where its parent was.
    """

    protocol: str = ""
    ratio: float = 0.05
    is_parent_based: bool = True


@dataclass(frozen=True)
class TelemetrySettings:
    """What telemetry the service emits.

    Attributes:
        is_on: whether requests are logged, counted and traced; off for measurements only.
        metrics_interval: seconds between two flushes of the metrics.
        traces: which requests are traced and where spans go.
    """

    is_on: bool = True
    metrics_interval: float = 10.0
    traces: TraceSettings = TraceSettings()
