"""The HTTP server: makes a Connection of each TCP connection, and closes all of them at the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser

from svc.http.connection import Connection
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import AnyResponse, Recorder


class Server(web.Server):
    """Creates a Connection for each TCP connection, for aiohttp's runner.

    Args:
        handler: answers requests.
        recorder: makes the requests, and is told of their end.
        lifecycle: decides whether connections may be kept open.
        connections: limits how many may be open, and how long each may stay in a state.
    """

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[AnyResponse]],
        recorder: Recorder,
        lifecycle: Lifecycle,
        connections: Connections,
    ) -> None:
        if HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise RuntimeError(
                "aiohttp's C parser is missing; its Python parser is slower and has had more vulnerabilities"
            )
        self._handler = handler
        self._recorder = recorder
        self._lifecycle = lifecycle
        self._open_connections = connections
        self._serving: set[Connection] = set()  # those that are open, or whose last request has not ended

    @property
    def connections(self) -> list[Connection]:  # type: ignore[override]
        """Those that are open, or whose last request has not ended."""
        return list(self._serving)

    @property
    def new_connections(self) -> int:
        """See Connections."""
        return self._open_connections.new

    def pre_shutdown(self) -> None:
        """Closes each connection, after its current request if there is one."""
        for connection in self.connections:
            connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Closes each connection, after its current request if that ends in time.

        Args:
            timeout: in seconds.
        """
        await asyncio.gather(*(connection.shutdown(timeout) for connection in self.connections))

    def __call__(self) -> Connection:  # type: ignore[override]  # ours has what aiohttp's runner needs
        """A new connection."""
        return Connection(self._open_connections, self._lifecycle, self._recorder, self._handler, self._serving)
