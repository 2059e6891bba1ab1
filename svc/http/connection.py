"""One TCP connection: aiohttp's protocol with our limits and our error responses."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from svc.errors import ServiceError
from svc.http import connections, problems
from svc.http.connections import Connections
from svc.http.messages import AnyResponse, Request, Response
from svc.http.proxies import parse_address
from svc.logs import names

_log = structlog.get_logger()

MAX_LINE_BYTES: Final = 8190  # the request line, and each header's line
MAX_HEAD_BYTES: Final = 16 * 1024  # all of these together; up to 33 pipelined heads may wait on one connection
# For the rest of a body that no handler reads. A caller whose connection is closed while it still sends may never see
# the response.
LINGER_SECONDS: Final = 2.0
MAX_LINGER_BYTES: Final = 1024 * 1024

_BUFFER_BYTES: Final = 16 * 1024  # of responses that the caller has not read; as many again wait in the kernel
# TCP_USER_TIMEOUT limits how long the kernel tries to deliver what it has, even after we have closed the socket.
# TCP keep-alive is off: its probes come every two hours, and no connection here stays unused for that long.
_TCP_OPTIONS: Final = [
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", _BUFFER_BYTES),
        ("TCP_USER_TIMEOUT", int(connections.WRITE_SECONDS * 1000)),
    )
    if hasattr(socket, name)  # some platforms lack them
]

_TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % problems.RETRY_AFTER_SECONDS
)
_receive: Final = web.RequestHandler.data_received  # super() costs 0.05 µs a request


class Connection(web.RequestHandler):
    """One TCP connection.

    Attributes:
        host: the Host header of the last request whose Host is valid; empty at first.
        peer: the address of the other side; empty where it has none, as on a Unix socket.
    """

    __slots__ = (
        "_awaited_body",
        "_awaited_bytes",
        "_connections",
        "_discarded_bytes",
        "_head_bytes",
        "_ignores_input",
        "_is_answering",
        "_open_transport",
        "host",
        "peer",
    )

    def __init__(self, connections: Connections, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.host = ""
        self._connections = connections
        # Set until the connection is closed; aiohttp's own `transport` may be None earlier.
        self._open_transport: asyncio.Transport | None = None
        self._awaited_body: StreamReader | None = None  # of the newest request, while it is incomplete
        self._awaited_bytes = 0  # received of it
        self._is_answering = False
        self._head_bytes = 0  # received of an incomplete head
        self._discarded_bytes = 0  # received of a body after the response to its request
        self._ignores_input = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Adds a new connection, or refuses it where there are too many."""
        opened = cast(asyncio.Transport, transport)  # uvloop's transport has its methods, but not its class
        if not self._connections.add(self):
            # No request was read, so this responds to none. It shows a caller or a balancer that this is no crash.
            opened.write(_TOO_MANY_CONNECTIONS)
            opened.close()
            return
        self._open_transport = opened
        super().connection_made(opened)
        opened.set_write_buffer_limits(_BUFFER_BYTES)
        address = opened.get_extra_info("peername")
        self.peer = ""
        if isinstance(address, tuple):
            self.peer = parse_address(str(address[0]))
            for option, value in _TCP_OPTIONS:
                opened.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Removes the connection."""
        if self._open_transport is not None:
            self._open_transport = None
            self._connections.remove(self)
        if exc is None and self.writing_paused:
            # Without an error, aiohttp would assume that the caller has read everything.
            exc = ConnectionResetError("the response was not read")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handles received bytes: parts of heads and bodies, or several whole ones."""
        if self._ignores_input:
            return
        before = self._request_count
        _receive(self, data)
        new = self._request_count - before
        if not new:
            self._add_to_incomplete(data)
            return
        size, self._head_bytes = self._head_bytes + len(data), 0
        if new > 1 or not 0 < size <= MAX_HEAD_BYTES:
            self._check_head_sizes(new)
        message, body = self._messages[-1]
        if body is not EMPTY_PAYLOAD and not body.is_eof():
            self._awaited_body, self._awaited_bytes = body, body.total_bytes
        elif isinstance(message, RawRequestMessage) and message.upgrade:
            self._decline_upgrade(message, body, data if new == 1 and size == len(data) else b"")

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's always closes the connection
        """The caller sends no more, but may still read: each request that has arrived gets its response.

        Returns:
            Whether the connection stays open for that.
        """
        if self._awaited_body is not None:
            self._awaited_body.set_exception(web.RequestPayloadError("the rest of the body is missing"))
            self._awaited_body.feed_eof()
        if self._messages:
            message, body = self._messages[-1]
            if isinstance(message, RawRequestMessage):  # after the other kind, an error, the connection closes anyway
                self._messages[-1] = message._replace(should_close=True), body
        elif self.has_request:
            self.close()  # after the current request
        return self.has_request

    def _decline_upgrade(self, message: RawRequestMessage, body: StreamReader, data: bytes) -> None:
        """Parses what follows a request to upgrade, as without its header: no connection is ever upgraded.

        Args:
            message: the head of that request, the newest one.
            body: its body.
            data: the received bytes, where they start with that request; otherwise none.
        """
        if self._upgraded:
            self._parse_tail()
        elif data and not message.chunked:  # aiohttp has dropped the rest, but its position is known
            data = data.lstrip(b"\r\n")
            if rest := data[data.index(b"\r\n\r\n") + 4 + body.total_bytes :]:
                self.data_received(rest)
        else:  # if there is a rest, the caller sends it again on another connection
            self._messages[-1] = message._replace(should_close=True), body

    def _parse_tail(self) -> None:
        """Parses what aiohttp has kept of the input behind a request to upgrade."""
        assert self._parser is not None
        self._upgraded = False
        self._parser.set_upgraded(False)
        tail, self._message_tail = self._message_tail, b""
        if tail:
            self.data_received(tail)

    def _add_to_incomplete(self, data: bytes) -> None:
        """Adds received bytes to an incomplete body or head."""
        body = self._awaited_body
        if self._upgraded:
            self._awaited_body = None
            self._parse_tail()
        elif body is None:
            self._add_to_head(len(data))
        elif body.is_eof():
            self._awaited_body = None
            head_bytes = len(data) - (body.total_bytes - self._awaited_bytes)
            # A chunked body has other bytes, too, and the last of them is a line feed.
            if head_bytes and not data.endswith(b"\n"):
                self._add_to_head(head_bytes)
        else:
            self._awaited_bytes = body.total_bytes
            if not self._is_answering:
                self._discarded_bytes += len(data)
                if self._discarded_bytes > MAX_LINGER_BYTES:
                    self.abort()

    def _add_to_head(self, size: int) -> None:
        self._head_bytes += size
        self._connections.set_reading_head(self)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(problems.BadRequest(_HEAD_TOO_LARGE))

    def _check_head_sizes(self, new: int) -> None:
        """Refuses the first of the new requests whose head is too large, and all that follow."""
        for index in range(len(self._messages) - new, len(self._messages)):
            if _head_size(self._messages[index][0]) > MAX_HEAD_BYTES:
                while len(self._messages) > index:
                    self._messages.pop()
                self._refuse(problems.BadRequest(_HEAD_TOO_LARGE))
                return

    def _refuse(self, error: ServiceError) -> None:
        """Responds with an error in place of the next request, and ignores all further input."""
        self._ignores_input = True
        self._messages.append((_ErrInfo(status=0, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        self._connections.set_write_paused(self)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        super().resume_writing()
        self._connections.set_write_resumed(self)

    def request_started(self) -> None:
        """The next request is being handled."""
        self._is_answering = True
        self._discarded_bytes = 0

    def request_answered(self) -> None:
        """The current request has a response, which is written next."""
        self._is_answering = False
        if self._open_transport is not None:
            self._connections.set_idle(self)
            if self._head_bytes:
                self._connections.set_reading_head(self)

    @property
    def has_request(self) -> bool:
        """See connections.OpenConnection."""
        if self._task_handler is None or self.transport is None:
            return False  # what has arrived will not be answered any more
        return self._is_answering or self._paused or bool(self._messages)

    def time_out_head(self) -> None:
        """See connections.OpenConnection."""
        if self._head_bytes and self._waiter is not None:
            self._refuse(problems.HeadTooSlow(f"The head did not arrive within {connections.HEAD_SECONDS:g} seconds."))
        else:
            self.abort()

    def abort(self) -> None:
        """See connections.OpenConnection."""
        if self._open_transport is not None:
            # Not close(), which waits until the caller has read the rest.
            self._open_transport.abort()

    def _make_error_handler(self, err_info: Any) -> Callable[[Request], Awaitable[AnyResponse]]:  # type: ignore[override]
        # Invalid HTTP passes through the dispatcher like every request, so that it is answered and recorded like them.
        dispatcher: Any = self._request_handler
        err_info.exc.__traceback__ = None  # as in Dispatcher: its frames refer to this connection

        async def refuse(request: Request) -> AnyResponse:
            request.refuse(_service_error(err_info.exc))
            response: AnyResponse = await dispatcher(request)
            return response

        return refuse

    def handle_error(  # type: ignore[override]  # see Response
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> Response:
        """The response to an error that passed the dispatcher; aborts where another response has started."""
        assert isinstance(request, Request)
        if isinstance(exc, ConnectionError):
            raise exc  # the caller has closed the connection, which is recorded and is not an error of the service
        if request.has_response_started:
            # The status is already sent. Only an aborted connection shows the caller that the rest failed.
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the response could not be completed")
        _log.error(names.REQUEST_FAILED, request_id=request.id, exc_info=exc)
        response = problems.response(problems.InternalError(), request.id)
        response.keep_alive = False
        return response


_HEAD_TOO_LARGE: Final = f"The request line and the headers together are larger than {MAX_HEAD_BYTES} bytes."


def _head_size(message: RawRequestMessage | _ErrInfo) -> int:
    if isinstance(message, _ErrInfo):
        return 0
    return len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)


def _service_error(error: BaseException | None) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    # The parser's message quotes the request, so it stays out of the response.
    if isinstance(error, LineTooLong):
        return problems.BadRequest(f"The request line or a header is longer than {MAX_LINE_BYTES} bytes.")
    return problems.BadRequest()
