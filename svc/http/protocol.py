"""The HTTP server: aiohttp's low-level server with this service's connections, limits and messages."""

import asyncio
import re
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from svc.http.connection import LINGER_SECONDS, MAX_LINE_BYTES, Connection
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import MAX_BODY_BYTES, Request
from svc.http.problems import BadRequest

MAX_HEADERS: Final = 64
_NEVER_SECONDS: Final = 24 * 3600.0
_HOST: Final = hdrs.HOST
_VERSIONS: Final = (HttpVersion10, HttpVersion11)
# https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2
_VALID_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?", re.ASCII)


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

    @property
    def new_connections(self) -> int:
        """See Connections."""
        return self._open_connections.new

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
            # Of a body in 16 KB of 1-byte chunks, aiohttp then parses at most 1024 before they are read.
            read_bufsize=MAX_BODY_BYTES,
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
        request = self._request_class(
            self._lifecycle, connection.peer, message, payload, connection, writer, task, self._loop
        )
        # Most requests on a connection have the same Host, so this costs 0.1 µs.
        host = message.headers.get(_HOST, "")
        if host != connection.host or message.chunked or message.version is not HttpVersion11:
            refusal = _refusal(message, host)
            if refusal:
                request.refuse(BadRequest(refusal))
            else:
                connection.host = host
        return request


def _refusal(message: RawRequestMessage, host: str) -> str | None:
    """Why a request that the parser accepts is refused: another server may read it in another way."""
    if message.version not in _VERSIONS:
        return "The version is not HTTP/1.1 or HTTP/1.0."
    if not _VALID_HOST.fullmatch(host):
        return "The Host header is not a host, or a host and a port."
    if message.chunked and message.version == HttpVersion10:
        return "HTTP/1.0 has no Transfer-Encoding."
    if message.chunked and message.headers[hdrs.TRANSFER_ENCODING].lower() != "chunked":
        return "The only supported Transfer-Encoding is chunked."
    return None
