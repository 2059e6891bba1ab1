"""Sockets and signals: serve until a signal to stop, drain, finish the requests in flight, close."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, TypeAlias

import structlog
from aiohttp import web

from svc.http.lifecycle import Lifecycle
from svc.http.protocol import Server
from svc.logs import names
from svc.logs.writer import LineWriter
from svc.process import sockets, startup, workers
from svc.process.settings import ServerSettings

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop
except ImportError:  # not available for every platform
    new_event_loop = asyncio.new_event_loop

_log = structlog.get_logger()

# Nearly all objects are freed at once, so there is little garbage to collect. Each of thousands of waiting requests has
# dozens of objects: the default of 700 new objects between two collections would take 15 % more CPU with 2,000 busy
# connections. A full collection takes 50 ms with 4,000 connections, during which no request is answered, so it runs a
# hundredth as often as by default.
_COLLECT: Final = (10_000, 10, 1000)

_HANDSHAKE_SECONDS: Final = 0.2  # until handshakes that have begun are complete: most round trips take less
_MAX_LAST_SECONDS: Final = 2.0  # for callers who connect and send no request
_CHECK_SECONDS: Final = 0.02

Build: TypeAlias = Callable[[Lifecycle], AbstractAsyncContextManager[Server]]
Started: TypeAlias = Callable[[int, bool], None]


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
    with sockets.reserved(settings.host, settings.port) as port:
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
        if stop.done():
            return  # no caller has connected yet
        runner = web.ServerRunner(server, shutdown_timeout=settings.shutdown_seconds)
        await runner.setup()
        listening = sockets.listen(settings.host, port, is_shared=parent_pipe is not None)
        try:
            for one in listening:
                await web.SockSite(runner, one, backlog=sockets.BACKLOG).start()  # it listens again
            # The objects that exist now live as long as the process, so the collector need not visit them again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT)
            started(listening[0].getsockname()[1])
            received = await stop
            _log.info(names.STOPPING, signal=received.name)
            # From here on, /readyz answers 503 and every response closes its connection, so that callers go elsewhere.
            lifecycle.draining = True
            if received is not signal.SIGINT:
                # Balancers need a while to notice. A person's Ctrl-C does not wait for them.
                await asyncio.sleep(settings.drain_seconds)
                await _serve_the_last_callers(runner, listening, server)
        finally:
            await runner.cleanup()


async def _serve_the_last_callers(runner: web.ServerRunner, listening: list[socket.socket], server: Server) -> None:
    """Accepts the last connections, stops listening, and waits until each of them has its first response.

    A connection is reset where it waits in the accept queue when its listening socket is closed, or has sent a request
    that was not read when it is closed itself. A caller who cannot connect may try another server.
    """
    for one in listening:
        sockets.ignore_handshakes(one)
    with suppress(TimeoutError):
        async with asyncio.timeout(_MAX_LAST_SECONDS):
            await asyncio.sleep(_HANDSHAKE_SECONDS)
            while any(map(sockets.count_unaccepted, listening)):  # noqa: ASYNC110 - the kernel sets no event
                await asyncio.sleep(_CHECK_SECONDS)
            for site in runner.sites:
                await site.stop()
            await asyncio.sleep(_CHECK_SECONDS)  # the event loop adds an accepted connection in its next turn
            while server.new_connections:  # noqa: ASYNC110 - an event would cost each request a step
                await asyncio.sleep(_CHECK_SECONDS)


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
