"""Sockets and signals: serve until a signal to stop, drain, finish the requests in flight, close."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

import structlog
from aiohttp import web

from svc.http.lifecycle import Lifecycle
from svc.logs import names
from svc.logs.writer import LineWriter
from svc.process import startup, workers
from svc.process.settings import ServerSettings

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # not available for every platform
    new_event_loop = asyncio.new_event_loop

_log = structlog.get_logger()

_BACKLOG: Final = 1024
# Python's oldest generation of objects has little garbage, since most objects are freed at once or collected young.
# A full collection takes 50 ms with 4,000 connections, during which no request is answered, so it runs a hundredth as
# often as by default.
_COLLECT: Final = (700, 10, 1000)

Build: TypeAlias = Callable[[Lifecycle], AbstractAsyncContextManager[web.Server]]
Started: TypeAlias = Callable[[int, bool], None]


class CannotListen(Exception):
    """The service cannot listen on the address."""


def run(settings: ServerSettings, build: Build, started: Started, output: LineWriter) -> None:
    """Serves until SIGTERM, SIGHUP or SIGINT; a second one ends the process at once.

    Args:
        settings: where to listen, and how to stop.
        build: builds the service of one worker process.
        started: a hook that each worker calls with its port and whether it is the first worker of all.
        output: takes the log; its thread runs while a worker serves.

    Raises:
        CannotListen: with the reason.
    """
    if settings.workers == 1:
        _work(settings, settings.port, build, lambda port: started(port, True), output)
        return
    with _reserve(settings.host, settings.port) as reserved:
        port: int = reserved.getsockname()[1]
        workers.supervise(
            settings.workers,
            lambda parent_pipe, is_first: _work(
                settings, port, build, lambda port: started(port, is_first), output, parent_pipe
            ),
        )


def _work(  # noqa: PLR0917 - one call, in one place
    settings: ServerSettings,
    port: int,
    build: Build,
    started: Callable[[int], None],
    output: LineWriter,
    parent_pipe: int | None = None,
) -> None:
    with output.threaded(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(settings, port, build, started, parent_pipe))
        _log.info(names.STOPPED, lines_dropped=output.dropped)


async def _serve(
    settings: ServerSettings, port: int, build: Build, started: Callable[[int], None], parent_pipe: int | None
) -> None:
    stop = _stop_signal(parent_pipe)
    lifecycle = Lifecycle()
    async with build(lifecycle) as server:
        runner = web.ServerRunner(server, shutdown_timeout=settings.shutdown_seconds)
        await runner.setup()
        try:
            shared = parent_pipe is not None
            site = web.TCPSite(runner, settings.host, port, backlog=_BACKLOG, reuse_port=shared)
            try:
                await site.start()
            except OSError as error:
                raise _cannot_listen(settings.host, port, error) from error
            # The objects that exist now live as long as the process, so the collector need not visit them again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT)
            started(runner.addresses[0][1])
            received = await stop
            _log.info(names.STOPPING, signal=received.name)
            # From here on, /readyz answers 503 and every response closes its connection, so that callers go elsewhere.
            lifecycle.draining = True
            if received is not signal.SIGINT:
                # Balancers need a while to notice. A person's Ctrl-C does not wait for them.
                await asyncio.sleep(settings.drain_seconds)
        finally:
            await runner.cleanup()


def _stop_signal(parent_pipe: int | None) -> asyncio.Future[signal.Signals]:
    """The first signal to stop. After it, a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()

    def received(number: signal.Signals) -> None:
        for other in startup.STOP_SIGNALS:
            loop.remove_signal_handler(other)
        startup.exit_at_once_on_signals()
        if not stop.done():
            stop.set_result(number)

    for number in startup.STOP_SIGNALS:
        loop.add_signal_handler(number, received, number)
    if parent_pipe is not None:

        def parent_died() -> None:
            loop.remove_reader(parent_pipe)
            received(signal.SIGTERM)

        loop.add_reader(parent_pipe, parent_died)
    return stop


def _reserve(host: str, port: int) -> socket.socket:
    """A bound socket that keeps the port while workers are replaced. It never listens itself."""
    family, _, _, _, address = _resolve(host, port)
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Another program with SO_REUSEPORT on this port would get a share of the connections. Without that option, to
        # bind to a port in use fails.
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
