"""Builds the service in reading order: telemetry, database, endpoints, routes, server."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

import structlog

from svc.clients.endpoints import Endpoints
from svc.clients.store import Store
from svc.http import hosts
from svc.http.access import Access
from svc.http.connections import Connections, limit_to_open_files
from svc.http.cors import Cors
from svc.http.dispatcher import Dispatcher
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request
from svc.http.protocol import Server
from svc.http.proxies import Proxies
from svc.http.routes import Find, Routes
from svc.http.slots import Slots
from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres import database
from svc.process import server
from svc.settings import Settings
from svc.site.docs import Docs
from svc.site.health import Health
from svc.telemetry import setup as telemetry
from svc.telemetry.setup import NoTelemetry, Telemetry

_log = structlog.get_logger()


def serve(settings: Settings, greet: Callable[[int], None]) -> None:
    """Serves until SIGTERM, SIGHUP or SIGINT; a second one ends the process at once.

    Args:
        settings: with the database's URL.
        greet: called once with the port, when the first worker listens on it.

    Raises:
        CannotListen: with the reason.
    """
    output = LineWriter(sys.stdout.fileno(), is_shared=settings.server.workers > 1)
    if settings.log_format == "auto":
        settings = replace(settings, log_format="text" if sys.stdout.isatty() else "json")
    logs.configure(output, readable=settings.log_format == "text")
    settings = _limit_connections(settings)

    def started(port: int, is_first: bool) -> None:
        if is_first:
            greet(port)
        _log.info(
            names.STARTED, pid=os.getpid(), port=port, build=settings.build, api_keys=len(settings.api_key_hashes)
        )

    server.run(settings.server, lambda lifecycle: build(settings, lifecycle, output), started, output)


def _limit_connections(settings: Settings) -> Settings:
    """The settings, with no more connections than this process can open files for."""
    possible = limit_to_open_files(settings.max_connections)
    if possible < settings.max_connections:
        _log.warning(names.CONNECTIONS_LIMITED, max_connections=possible, configured=settings.max_connections)
    return replace(settings, max_connections=possible)


@asynccontextmanager
async def build(settings: Settings, lifecycle: Lifecycle, output: LineWriter) -> AsyncIterator[Server]:
    """The service, ready for its sockets; its resources are released in the reverse order."""
    proxies = Proxies(settings.trusted_proxies)
    async with (
        _telemetry(settings, proxies, output) as telemetry,
        database.connect(settings.database) as connected,
    ):
        telemetry.observe_database(lambda: connected.in_use, lambda: connected.is_unavailable)
        store = Store(connected, settings.database, settings.max_concurrent, telemetry.on_round_trip)
        access = Access(settings.api_key_hashes)
        health = Health(store, lifecycle, settings.build)
        docs = Docs(proxies, requires_key=bool(settings.api_key_hashes))
        find = _find(settings, routes(Endpoints(store), health, docs, access))
        dispatcher = Dispatcher(find, lambda: _slots(settings, access, proxies))
        connections = Connections(settings.max_connections, settings.keepalive_seconds)
        telemetry.observe_connections(connections)
        yield Server(dispatcher, telemetry.recorder, lifecycle, connections)


def _telemetry(
    settings: Settings, proxies: Proxies, output: LineWriter
) -> AbstractAsyncContextManager[Telemetry | NoTelemetry]:
    if not settings.telemetry.is_on:
        return nullcontext(NoTelemetry())
    # Metrics documents are for machines, and would only clutter a log for people.
    metrics_output = None if settings.log_format == "text" else output
    return telemetry.running(settings.telemetry, settings.build, settings.database.dsn, proxies, metrics_output)


def _find(settings: Settings, routes: Routes) -> Find:
    """Finds the handler of a request; it checks only what the settings ask for."""
    find = hosts.only_loopback(routes.find) if settings.accepts_only_loopback_hosts else routes.find
    return Cors(settings.cors_origins).wrap(find) if settings.cors_origins else find


def _slots(settings: Settings, access: Access, proxies: Proxies) -> Slots:
    def identify(request: Request) -> str:
        return access.caller(request) or proxies.caller(request)

    return Slots(settings.max_concurrent, settings.max_queue, settings.slot_seconds, identify)


def routes(clients: Endpoints, health: Health, docs: Docs, access: Access) -> Routes:
    """Which path leads to which handler."""
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
        },
        with_query=("/getall", "/add"),
    )
