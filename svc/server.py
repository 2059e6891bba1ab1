"""Sockets and signals: serve until told to stop, say so, finish what is in flight, close."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web

from svc import app, connections, workers
from svc.lifecycle import Lifecycle
from svc.settings import Settings
from svc.telemetry import logs, names, signals
from svc.telemetry.writer import LineWriter

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # not made for every platform
    new_event_loop = asyncio.new_event_loop

_log = structlog.get_logger()

_BACKLOG: Final = 1024
# Python's oldest generation of objects has little garbage, since what ends is freed at once or found while it is young.
# To walk through it takes 50 ms for 4,000 connections, in which nobody is answered: it is done a hundredth as often.
_COLLECT: Final = (700, 10, 1000)

Greet = Callable[[int], None]


class CannotListen(Exception):
    """The address cannot be listened on."""


def run(settings: Settings, greet: Greet) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        settings: with a database named.
        greet: called with the port once it is listened on.

    Raises:
        CannotListen: with the reason.
    """
    output = LineWriter(sys.stdout.fileno(), is_shared=settings.workers > 1)
    if settings.log_format == "auto":
        settings = replace(settings, log_format="text" if sys.stdout.isatty() else "json")
    logs.configure(output, readable=settings.log_format == "text")
    settings = _bounded(settings)
    if settings.workers == 1:
        _work(settings, settings.port, greet, output)
        return
    with _reserve(settings.host, settings.port) as reserved:
        port: int = reserved.getsockname()[1]
        workers.supervise(
            settings.workers,
            lambda parent_lives, is_first: _work(
                settings, port, greet if is_first else _say_nothing, output, parent_lives
            ),
        )


def _bounded(settings: Settings) -> Settings:
    """With as many connections as the system lets a process have."""
    possible = connections.afford(settings.max_connections)
    if possible < settings.max_connections:
        _log.warning(names.CONNECTIONS_BOUNDED, max_connections=possible, wanted=settings.max_connections)
    return replace(settings, max_connections=possible)


def _say_nothing(_: int) -> None:
    """How the other workers greet."""


def _work(settings: Settings, port: int, greet: Greet, output: LineWriter, parent_lives: int | None = None) -> None:
    with output.threaded(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(settings, port, greet, output, parent_lives))
        _log.info(names.STOPPED, lines_dropped=output.dropped)


async def _serve(settings: Settings, port: int, greet: Greet, output: LineWriter, parent_lives: int | None) -> None:
    stop = _stop_signal(parent_lives)
    lifecycle = Lifecycle()
    async with signals.running(settings, output) as told, app.build(settings, lifecycle, told) as server:
        runner = web.ServerRunner(server, shutdown_timeout=settings.shutdown_seconds)
        await runner.setup()
        try:
            shared = parent_lives is not None
            site = web.TCPSite(runner, settings.host, port, backlog=_BACKLOG, reuse_port=shared)
            try:
                await site.start()
            except OSError as error:
                raise _cannot_listen(settings.host, port, error) from error
            # What lives as long as the process is no garbage: the collector need not walk through it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT)
            greet(runner.addresses[0][1])
            keys = len(settings.api_key_hashes)
            _log.info(names.STARTED, port=runner.addresses[0][1], build=settings.build, api_keys=keys)
            received = await stop
            _log.info(names.STOPPING, signal=received.name)
            # From here on, /readyz says no and every answer closes its connection, so that callers go elsewhere.
            lifecycle.draining = True
            if received is signal.SIGTERM:
                # Balancers need a while to see it. A person's Ctrl-C does not wait for them.
                await asyncio.sleep(settings.drain_seconds)
        finally:
            await runner.cleanup()


def _stop_signal(parent_lives: int | None) -> asyncio.Future[signal.Signals]:
    """The first signal to stop, which also makes the next one deadly."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()

    def received(number: signal.Signals) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)
        if not stop.done():
            stop.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    if parent_lives is not None:

        def parent_died() -> None:
            loop.remove_reader(parent_lives)
            received(signal.SIGTERM)

        loop.add_reader(parent_lives, parent_died)
    return stop


def _reserve(host: str, port: int) -> socket.socket:
    """A bound socket that keeps the port for the workers, who come and go, and never listens itself."""
    family, _, _, _, address = _resolve(host, port)
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Sharing a port with a stranger's SO_REUSEPORT would take turns with it: first see that nobody is there.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise _cannot_listen(host, port, error) from error
    return reserved


def _resolve(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]  # type: ignore[return-value]
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(f"cannot listen on {host} port {port}: {error.strerror or error}; set HOST or PORT to another")
