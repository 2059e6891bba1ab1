"""Settings of telemetry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceSettings:
    """Which requests are traced and how spans are exported. The SDK itself reads the other OTEL_* variables.

    Attributes:
        protocol: grpc or http/protobuf; empty if no collector is configured, and then nothing is traced.
        ratio: the share to record of the traces that begin here, 0 to 1.
        is_parent_based: whether a trace that began elsewhere is recorded exactly if its parent was.
    """

    protocol: str = ""
    ratio: float = 0.05
    is_parent_based: bool = True


@dataclass(frozen=True)
class TelemetrySettings:
    """Which telemetry the service emits.

    Attributes:
        is_on: whether requests are logged, counted and traced; switched off only for measurements.
        metrics_interval: seconds between two flushes of the metrics.
        traces: which requests are traced, and how spans are exported.
    """

    is_on: bool = True
    metrics_interval: float = 10.0
    traces: TraceSettings = TraceSettings()
