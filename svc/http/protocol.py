"""The HTTP server: aiohttp's low-level server with this service's connections, limits and messages."""

import asyncio
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from svc.http.connection import LINGER_SECONDS, MAX_LINE_BYTES, Connection
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request

MAX_HEADERS: Final = 64
_NEVER_SECONDS: Final = 24 * 3600.0


class Server(web.Server):
    """Creates a Connection for each TCP connection.

    Args:
        handler: answers requests.
        request_class: the class of the requests.
        lifecycle: decides whether connections may be kept open.
        connections: limits how many may be open, and how long each may stay in a state.
    """

    def __init__(
        self, handler: Any, request_class: type[Request], lifecycle: Lifecycle, connections: Connections
    ) -> None:
        if HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise RuntimeError(
                "aiohttp's C parser is missing; its Python parser is slower and has had more vulnerabilities"
            )
        super().__init__(handler, request_factory=self._request)
        self._request_class = request_class
        self._lifecycle = lifecycle
        self._open_connections = connections  # web.Server has another `_connections`

    def __call__(self) -> Connection:
        return Connection(
            self._open_connections,
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=_NEVER_SECONDS,  # instead of aiohttp's timer per connection; see Connections
            tcp_keepalive=False,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,  # bodies are small; a compressed one is a mistake or an attack
        )

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        assert isinstance(connection, Connection)
        connection.request_started()
        return self._request_class(
            self._lifecycle, connection.peer, message, payload, connection, writer, task, self._loop
        )
