"""All telemetry of a worker process, from its first request to its last: log lines, metrics and traces."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from opentelemetry.sdk.resources import Resource

from svc.http.connections import Connections
from svc.http.messages import Recorder
from svc.http.proxies import Proxies
from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres import dsn as dsns
from svc.postgres.batching import OnRoundTrip
from svc.telemetry import traces
from svc.telemetry.metrics import Metrics
from svc.telemetry.recorder import RequestRecorder
from svc.telemetry.request_log import RequestLog
from svc.telemetry.sampling import TraceSampler
from svc.telemetry.settings import TelemetrySettings
from svc.telemetry.traces import Traces


class Telemetry:
    """The hooks that the service calls so that its requests are recorded.

    Args:
        settings: which traces are recorded.
        proxies: the trusted proxies.
        metrics: count requests.
        traces: take spans; None if nothing is traced.

    Attributes:
        recorder: records the requests.
    """

    def __init__(self, settings: TelemetrySettings, proxies: Proxies, metrics: Metrics, traces: Traces | None) -> None:
        self._metrics = metrics
        self._traces = traces
        sampler = TraceSampler(settings.traces)
        self.request_log = RequestLog(settings.lines_per_second, metrics, sampler, traces)
        self.recorder = RequestRecorder(
            proxies if proxies.any_trusted else None, sampler if traces else None, self.request_log
        )
        metrics.gauge(names.IN_FLIGHT, lambda: self.recorder.in_flight)

    def on_round_trip(self, operation: str, summary: str, sql: str) -> OnRoundTrip:
        """The hook for the round trips of a database operation.

        Args:
            operation: its name, which is its metrics' dimension.
            summary: its SQL command and table.
            sql: its SQL.
        """
        if self._traces is not None:
            self._traces.add_operation(operation, summary, sql)
        return self._metrics.on_round_trip(operation)

    def observe_database(self, in_use: Callable[[], int], is_unavailable: Callable[[], bool]) -> None:
        """Samples the number of connections in use, and whether the database is unavailable."""
        self._metrics.gauge(names.CONNECTIONS_IN_USE, in_use)
        self._metrics.gauge(names.DATABASE_IS_UNAVAILABLE, lambda: int(is_unavailable()))

    def observe_connections(self, connections: Connections) -> None:
        """Samples the number of callers' connections, and counts those that the service closed."""
        self._metrics.gauge(names.CONNECTIONS, lambda: connections.count)
        self._metrics.counter(names.CONNECTIONS_SHED, lambda: connections.shed)
        self._metrics.counter(names.CONNECTIONS_TIMED_OUT, lambda: connections.timed_out)


class NoTelemetry:
    """The same hooks, for a service that does not record requests."""

    recorder = Recorder()

    def on_round_trip(self, _operation: str, _summary: str, _sql: str) -> None:
        """No hook."""

    def observe_database(self, in_use: Callable[[], int], is_unavailable: Callable[[], bool]) -> None:
        """Samples nothing."""

    def observe_connections(self, connections: Connections) -> None:
        """Samples nothing."""


@asynccontextmanager
async def running(
    settings: TelemetrySettings, build: str, dsn: str, proxies: Proxies, metrics_output: LineWriter | None
) -> AsyncIterator[Telemetry]:
    """Records requests while the context is open, and flushes the rest at its end.

    Args:
        settings: which telemetry is emitted.
        build: the build, which is the service.version of resources.
        dsn: of the database, for its spans.
        proxies: the trusted proxies.
        metrics_output: takes the metrics; None if they are not written.
    """
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to this, and override it.
    resource = Resource.create(
        {"service.name": "clients-api", "service.version": build, "host.name": socket.gethostname()}
    )
    async with AsyncExitStack() as stack:
        exported = None
        if settings.traces.protocol:
            exported = await stack.enter_async_context(
                traces.running(settings.traces, resource, database_attributes(dsn), proxies)
            )
        metrics = Metrics(metrics_output, _properties(resource))
        await stack.enter_async_context(metrics.running(settings.metrics_interval))
        telemetry = Telemetry(settings, proxies, metrics, exported)
        stack.callback(telemetry.request_log.close)
        yield telemetry


def _properties(resource: Resource) -> dict[str, str]:
    """The fields that identify the sender of a metrics document, whose log group adds no metadata."""
    attributes = resource.attributes
    properties = {
        names.BUILD: attributes["service.version"],
        names.POD: logs.pod(),
        names.NODE: attributes.get("k8s.node.name"),
        names.CLUSTER: attributes.get("k8s.cluster.name"),
    }
    return {name: str(value) for name, value in properties.items() if value}


def database_attributes(dsn: str) -> dict[str, str | int]:
    """Attributes of all database spans."""
    parsed = dsns.parse(dsn)
    port = parsed.parameters["port"]
    attributes: dict[str, str | int] = {
        names.DB_SYSTEM: "postgresql",
        names.OLD_DB_SYSTEM: "postgresql",
        names.DB_NAMESPACE: parsed.database,
        names.OLD_DB_NAME: parsed.database,
        names.SERVER_ADDRESS: parsed.parameters["host"],
        names.SERVER_PORT: int(port) if port.isdigit() else port,
    }
    host, port = parsed.addresses[0]
    if not host.startswith("/"):  # X-Ray's exporter has no use for a Unix socket
        host = f"[{host}]" if ":" in host else host
        attributes[names.OLD_DB_CONNECTION] = f"postgresql://{host}:{port}"
    return attributes
