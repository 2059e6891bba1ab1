"""Builds the service: what it holds, what answers, and which path leads where."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from svc import database
from svc.access import Access
from svc.connections import Connections
from svc.docs import Docs
from svc.edge import Edge
from svc.endpoints import Endpoints
from svc.health import Health
from svc.lifecycle import Lifecycle
from svc.protocol import Server
from svc.proxies import Proxies
from svc.routes import Routes
from svc.settings import Settings
from svc.store import Store
from svc.telemetry.signals import Signals, Silence


@asynccontextmanager
async def build(settings: Settings, lifecycle: Lifecycle, signals: Signals | Silence) -> AsyncIterator[Server]:
    """The service, ready to be given sockets."""
    async with database.connect(settings.database) as connected:
        signals.watch_database(lambda: connected.in_use, lambda: connected.is_away)
        store = Store(connected, settings.database, signals.watch)
        access = Access(settings.api_key_hashes)
        health = Health(store, lifecycle, settings.build)
        docs = Docs(Proxies(settings.trusted_proxies), wants_key=bool(settings.api_key_hashes))
        edge = Edge(routes(Endpoints(store), health, docs, access))
        connections = Connections(settings.max_connections)
        signals.watch_connections(connections)
        yield Server(signals.edge(edge), signals.request, lifecycle, connections)


def routes(clients: Endpoints, health: Health, docs: Docs, access: Access) -> Routes:
    """Which path leads where."""
    return Routes(
        {
            "/getall": {"GET": access.guard(clients.getall)},
            "/add": {"POST": access.guard(clients.add)},
            "/get/{id}": {"GET": access.guard(clients.get)},
            "/healthz": {"GET": health.healthz},
            "/readyz": {"GET": health.readyz},
            "/version": {"GET": health.version},
            "/": {"GET": docs.home},
            "/openapi.json": {"GET": docs.openapi},
            "/docs": {"GET": docs.docs},
            "/docs/{asset}": {"GET": docs.asset},
        }
    )
