"""Settings of telemetry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceSettings:
    """Which requests are traced and how spans are exported. The SDK itself reads the other OTEL_* variables.

    Attributes:
        protocol: grpc or http/protobuf; empty if no collector is configured, and then nothing is traced.
        ratio: the maximum share to record of the traces that begin here, 0 to 1. With 0, none are recorded; otherwise
            those of failed and slow requests are, whatever the share.
        is_parent_based: whether a trace that began elsewhere is recorded exactly if its parent was.
        per_second: the maximum number to record of the traces that begin here, apart from failed and slow requests; 0
            is without a limit, also for these.
    """

    protocol: str = ""
    ratio: float = 0.05
    is_parent_based: bool = True
    per_second: float = 0.1


@dataclass(frozen=True)
class TelemetrySettings:
    """Which telemetry the service emits.

    Attributes:
        is_on: whether requests are logged, counted and traced; switched off only for measurements.
        lines_per_second: the lines of requests to write, apart from failed and slow ones; 0 is one for each request.
        metrics_interval: seconds between two flushes of the metrics.
        traces: which requests are traced, and how spans are exported.
    """

    is_on: bool = True
    lines_per_second: float = 10.0
    metrics_interval: float = 10.0
    traces: TraceSettings = TraceSettings()
