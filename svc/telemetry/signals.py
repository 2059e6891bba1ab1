"""The signals together, from the first request to the last: logs, metrics and traces."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from opentelemetry.sdk.resources import Resource

from svc import dsn
from svc.batching import Trip, Watch
from svc.connections import Connections
from svc.messages import Request
from svc.proxies import Proxies
from svc.routes import Handler
from svc.settings import Settings
from svc.telemetry import names, traces
from svc.telemetry.edge import Edge
from svc.telemetry.entry import Entry
from svc.telemetry.journal import Journal
from svc.telemetry.metrics import Metrics
from svc.telemetry.origin import Sampler
from svc.telemetry.traces import Traces
from svc.telemetry.writer import LineWriter


class Signals:
    """What the service is built with, so that it tells of itself.

    Args:
        settings: whose word is taken, and which traces are recorded.
        metrics: where to count.
        traces: where spans go; None where they go nowhere.
    """

    def __init__(self, settings: Settings, metrics: Metrics, traces: Traces | None) -> None:
        self._proxies = Proxies(settings.trusted_proxies) if settings.trusted_proxies else None
        self._sampler = Sampler(settings.traces.ratio, is_parent_based=settings.traces.is_parent_based)
        self._metrics = metrics
        self._traces = traces
        self.journal = Journal(metrics, traces)
        metrics.gauge(names.IN_FLIGHT, lambda: self.journal.in_flight)

    request = Entry

    def edge(self, inner: Handler) -> Edge:
        """The edge around the service's own."""
        return Edge(inner, self._proxies, self._sampler if self._traces else None, self.journal)

    def watch(self, operation: str, summary: str, sql: str) -> Watch:
        """Who is told of the trips of an operation of the database: its name, its SQL in short, and its SQL."""
        count = self._metrics.watch(operation)
        if self._traces is None:
            return count
        record = self._traces.watch(summary, sql)

        def watch(trip: Trip) -> None:
            count(trip)
            record(trip)

        return watch

    def watch_database(self, in_use: Callable[[], int], is_away: Callable[[], bool]) -> None:
        """Looks at the number of connections that are at work, and at whether the database answers."""
        self._metrics.gauge(names.CONNECTIONS_IN_USE, in_use)
        self._metrics.gauge(names.DATABASE_IS_AWAY, lambda: int(is_away()))

    def watch_connections(self, connections: Connections) -> None:
        """Looks at how many callers are connected, and at how many were cut off."""
        self._metrics.gauge(names.CONNECTIONS, lambda: connections.count)
        self._metrics.counter(names.CONNECTIONS_SHED, lambda: connections.shed)
        self._metrics.counter(names.CONNECTIONS_TIMED_OUT, lambda: connections.timed_out)


class Silence:
    """What the service is built with where it is to tell nothing."""

    request = Request

    def edge(self, inner: Handler) -> Handler:
        """The service's own edge."""
        return inner

    def watch(self, _operation: str, _summary: str, _sql: str) -> None:
        """Nobody."""

    def watch_database(self, in_use: Callable[[], int], is_away: Callable[[], bool]) -> None:
        """Does not look."""

    def watch_connections(self, connections: Connections) -> None:
        """Likewise."""


@asynccontextmanager
async def running(settings: Settings, output: LineWriter) -> AsyncIterator[Signals | Silence]:
    """Tells meanwhile; what is left to be told at the end goes out first."""
    if not settings.telemetry:
        yield Silence()
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to this, and overrule it.
    resource = Resource.create(
        {"service.name": "clients-api", "service.version": settings.build, "host.name": socket.gethostname()}
    )
    async with AsyncExitStack() as stack:
        sent = None
        if settings.traces.protocol:
            sent = await stack.enter_async_context(traces.running(settings.traces, resource, _database(settings)))
        # Among lines for people, documents for machines would only be in the way.
        metrics = Metrics(None if settings.log_format == "text" else output, _properties(resource))
        await stack.enter_async_context(metrics.running(settings.metrics_interval))
        signals = Signals(settings, metrics, sent)
        stack.callback(signals.journal.tell)
        yield signals


def _properties(resource: Resource) -> dict[str, str]:
    """Who tells, for a document that reaches its log group without the rest of the log's."""
    said = resource.attributes
    found = {
        names.BUILD: said["service.version"],
        names.POD: said.get("k8s.pod.name", said["host.name"]),
        names.NODE: said.get("k8s.node.name"),
        names.CLUSTER: said.get("k8s.cluster.name"),
    }
    return {name: str(value) for name, value in found.items() if value}


def _database(settings: Settings) -> dict[str, str | int]:
    """Attributes of all spans of the database."""
    named = dsn.parse(settings.database.dsn)
    port = named.parameters["port"]
    return {
        names.DB_SYSTEM: "postgresql",
        names.OLD_DB_SYSTEM: "postgresql",
        names.DB_NAMESPACE: named.database,
        names.OLD_DB_NAME: named.database,
        names.SERVER_ADDRESS: named.parameters["host"],
        names.SERVER_PORT: int(port) if port.isdigit() else port,
    }
