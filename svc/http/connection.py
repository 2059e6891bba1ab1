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
from svc.logs import names

_log = structlog.get_logger()

LINE_MAX_BYTES: Final = 8190  # the request line, and each header's line
HEAD_MAX_BYTES: Final = 16 * 1024  # all of these together: a caller may have 33 heads wait, one behind the other
# For what is left of a body that nobody wants: a caller who is closed on while it sends may not see the answer.
LINGER_SECONDS: Final = 2.0
LINGER_MAX_BYTES: Final = 1024 * 1024

_BUFFER_BYTES: Final = 16 * 1024  # of answers that are not read: so many wait here, and as many in the kernel
# How long the kernel tries to get across what it has, our request_answered closed or not.
# Its keep-alive probes, every two hours, are left out: nothing here waits for as long.
_TCP_OPTIONS: Final = [
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_NOTSENT_LOWAT", _BUFFER_BYTES),
        ("TCP_USER_TIMEOUT", int(connections.WRITE_SECONDS * 1000)),
    )
    if hasattr(socket, name)  # not every platform has them
]

_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % problems.RETRY_AFTER_SECONDS
)
_receive: Final = web.RequestHandler.data_received  # super() costs 0.05 µs a request


class Connection(web.RequestHandler):
    """One TCP connection.

    Attributes:
        peer: the address at its other request_answered; empty where it has none.
    """

    __slots__ = (
        "_body",
        "_connections",
        "_head_bytes",
        "_is_answering",
        "_is_refused",
        "_open_transport",
        "_unwanted_bytes",
        "peer",
    )

    def __init__(self, connections: Connections, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._connections = connections
        self._open_transport: asyncio.Transport | None = (
            None  # for as long as it is open, where aiohttp forgets it earlier
        )
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that is being answered, or was last
        self._is_answering = False
        self._head_bytes = 0  # of a head that has arrived in part
        self._unwanted_bytes = 0  # of a body whose request has been answered
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Adds a new connection, or refuses it."""
        opened = cast(asyncio.Transport, transport)  # uvloop's is one, but not by its class
        if not self._connections.add(self):
            # No request of it was read, so this answers none; but a caller or a balancer can tell it from a crash.
            opened.write(_FULL)
            opened.close()
            return
        self._open_transport = opened
        super().connection_made(opened)
        opened.set_write_buffer_limits(_BUFFER_BYTES)
        address = opened.get_extra_info("peername")
        self.peer = ""
        if isinstance(address, tuple):
            self.peer = str(address[0])
            for option, value in _TCP_OPTIONS:
                opened.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Removes the connection."""
        if self._open_transport is not None:
            self._open_transport = None
            self._connections.remove(self)
        if exc is None and self.writing_paused:
            exc = ConnectionResetError("the answer was not read")  # else aiohttp would take it for read
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what has arrived: a part of a head, of a body, or several of both."""
        if self._is_refused:
            return
        before = self._request_count
        _receive(self, data)
        new = self._request_count - before
        if new == 1 and 0 < self._head_bytes + len(data) <= HEAD_MAX_BYTES:
            self._head_bytes = 0
        elif new:
            self._head_bytes = 0
            self._check_head_sizes(new)
        elif (self._messages[-1][1] if self._messages else self._body).is_eof():
            self._add_to_head(len(data))
        elif not self._is_answering:
            self._unwanted_bytes += len(data)
            if self._unwanted_bytes > LINGER_MAX_BYTES:
                self.abort()

    def _add_to_head(self, size: int) -> None:
        self._head_bytes += size
        self._connections.set_reading_head(self)
        if self._head_bytes > HEAD_MAX_BYTES:
            self._refuse(problems.BadRequest(_HEAD_TOO_LARGE))

    def _check_head_sizes(self, new: int) -> None:
        """Refuses the first of the new requests whose head is too large, and all that follow."""
        for place in range(len(self._messages) - new, len(self._messages)):
            if _head_size(self._messages[place][0]) > HEAD_MAX_BYTES:
                while len(self._messages) > place:
                    self._messages.pop()
                self._refuse(problems.BadRequest(_HEAD_TOO_LARGE))
                return

    def _refuse(self, error: ServiceError) -> None:
        """Answers what has not arrived as a request, and reads no more."""
        self._is_refused = True
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

    def request_started(self, body: StreamReader) -> None:
        """The next request is being answered."""
        self._is_answering = True
        self._body = body
        self._unwanted_bytes = 0

    def request_answered(self) -> None:
        """The request has a response, which is written next."""
        self._is_answering = False
        if self._open_transport is not None:
            self._connections.set_idle(self)
            if self._head_bytes:
                self._connections.set_reading_head(self)

    @property
    def has_request(self) -> bool:
        """See connections.OpenConnection."""
        if self._task_handler is None or self.transport is None:
            return False  # whatever is there, it is not going to be answered
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
            # Not close(), which waits until the caller has read what is left.
            self._open_transport.abort()

    def _make_error_handler(self, err_info: Any) -> Callable[[Request], Awaitable[AnyResponse]]:  # type: ignore[override]
        # What is not HTTP takes the same way as every request, so that it is answered and recorded like them.
        dispatcher: Any = self._request_handler
        err_info.exc.__traceback__ = None  # as in Dispatcher: its frames know this connection

        async def refuse(request: Request) -> AnyResponse:
            request.refuse(_not_http(err_info.exc))
            response: AnyResponse = await dispatcher(request)
            return response

        return refuse

    def handle_error(  # type: ignore[override]  # see Response
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - likewise
    ) -> Response:
        """The answer where an error passed the dispatcher, or none at all where another one has begun."""
        assert isinstance(request, Request)
        if isinstance(exc, ConnectionError):
            raise exc  # the caller is gone, which is no fault of ours and has been recorded
        if request.answering:
            # The status is sent. Only an aborted connection still says that the rest failed.
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the answer could not be finished")
        _log.error(names.REQUEST_FAILED, request_id=request.id, exc_info=exc)
        answer = problems.response(problems.InternalError(), request.id)
        answer.keep_alive = False
        return answer


_HEAD_TOO_LARGE: Final = f"The request line and the headers together are larger than {HEAD_MAX_BYTES} bytes."


def _head_size(message: RawRequestMessage | _ErrInfo) -> int:
    if isinstance(message, _ErrInfo):
        return 0
    return len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)


def _not_http(error: BaseException | None) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    # The parser's own words quote the request, so they are not for an answer.
    if isinstance(error, LineTooLong):
        return problems.BadRequest(f"The request line or a header is longer than {LINE_MAX_BYTES} bytes.")
    return problems.BadRequest()
