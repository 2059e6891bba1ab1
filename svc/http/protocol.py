"""HTTP as this service speaks it: aiohttp's low-level server with our connections, our limits and our messages."""

import asyncio
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from svc.http.connection import LINE_MAX_BYTES, LINGER_SECONDS, Connection
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request

HEADERS_MAX: Final = 64
_NEVER_SECONDS: Final = 24 * 3600.0


class Server(web.Server):
    """Makes a Connection for each TCP connection.

    Args:
        handler: answers requests.
        request_class: what they are made as.
        lifecycle: says whether connections may be kept.
        connections: says how many there may be, and how long each may keep the service waiting.
    """

    def __init__(
        self, handler: Any, request_class: type[Request], lifecycle: Lifecycle, connections: Connections
    ) -> None:
        if HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise RuntimeError("aiohttp's C parser is missing; its Python one is slower and has had more holes")
        super().__init__(handler, request_factory=self._request)
        self._request_class = request_class
        self._lifecycle = lifecycle
        self._open = connections

    def __call__(self) -> Connection:
        return Connection(
            self._open,
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=_NEVER_SECONDS,  # of aiohttp's own timers, one a connection; see Connections
            tcp_keepalive=False,
            lingering_time=LINGER_SECONDS,
            max_line_size=LINE_MAX_BYTES,
            max_field_size=LINE_MAX_BYTES,
            max_headers=HEADERS_MAX,
            auto_decompress=False,  # bodies are small; a compressed one can only be a bomb or a mistake
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
        connection.request_started(payload)
        return self._request_class(
            self._lifecycle, connection.peer, message, payload, connection, writer, task, self._loop
        )
