"""One TCP connection: its requests from the parser to the response, and its limits."""

import asyncio
import re
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, cast

import structlog
from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from svc.answers import Handling, in_task, run
from svc.errors import ServiceError
from svc.http import connections, problems
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import MAX_BODY_BYTES, AnyResponse, Recorder, Request, Response
from svc.http.proxies import parse_address
from svc.logs import names

_log = structlog.get_logger()

MAX_LINE_BYTES: Final = 8190  # the request line, and each header's line
MAX_HEAD_BYTES: Final = 16 * 1024  # all of these together; up to 33 pipelined heads may wait on one connection
# For the rest of a body that no handler reads. A caller whose connection is closed while it still sends may never see
# the response.
LINGER_SECONDS: Final = 2.0
MAX_LINGER_BYTES: Final = 1024 * 1024
MAX_HEADERS: Final = 64
MAX_PIPELINED: Final = 32  # requests that wait for the current one; then nothing more is read

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
_VERSIONS: Final = (HttpVersion10, HttpVersion11)
# https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2
_VALID_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]{0,5})?", re.ASCII)
_HOST: Final = hdrs.HOST

_Head: TypeAlias = RawRequestMessage | ServiceError  # the error where it is not valid HTTP
# Of a request that is not valid HTTP.
_NO_HEAD: Final = RawRequestMessage(
    "UNKNOWN", "/", HttpVersion10, CIMultiDictProxy(CIMultiDict()), (), True, None, False, False, URL("/")
)


class Connection(BaseProtocol):
    """One TCP connection: parses its requests, and handles them one after the other.

    aiohttp's own class runs a task for each connection and each request, with four turns of the event loop for a
    request. This one needs a task only for a request whose handler waits for more than an Answer.

    Args:
        open_connections: the server's.
        lifecycle: decides whether the connection may be kept open.
        recorder: makes the requests, and is told of their end.
        handler: gives the response to a request.
        serving: it is in this set while it is open, or its last request has not ended.

    Attributes:
        lifecycle: see the argument.
        host: the Host header of the last request whose Host is valid; empty at first.
        peer: the address of the other side; empty where it has none, as on a Unix socket.
    """

    _parser: HttpRequestParser | None

    __slots__ = (
        "_awaited_body",
        "_awaited_bytes",
        "_connections",
        "_discarded_bytes",
        "_ended",
        "_handler",
        "_handling",
        "_head_bytes",
        "_ignores_input",
        "_is_answering",
        "_is_closing",
        "_is_open",
        "_message_tail",
        "_messages",
        "_recorder",
        "_request",
        "_serving",
        "_task",
        "host",
        "lifecycle",
        "peer",
    )

    def __init__(
        self,
        open_connections: Connections,
        lifecycle: Lifecycle,
        recorder: Recorder,
        handler: Callable[[Any], Awaitable[AnyResponse]],
        serving: "set[Connection]",
    ) -> None:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(
            self,
            loop,
            # Of a body in 16 KB of 1-byte chunks, aiohttp then parses at most 1024 before they are read.
            MAX_BODY_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,  # bodies are small; a compressed one is a mistake or an attack
            max_msg_queue_size=MAX_PIPELINED,
        )
        super().__init__(loop, parser)
        self.lifecycle = lifecycle
        self.host = ""
        self.peer = ""
        self._connections = open_connections
        self._recorder = recorder
        self._handler = handler
        self._serving = serving
        self._is_open = False  # whether it is among the open connections
        self._messages: deque[tuple[_Head, StreamReader]] = deque()  # that wait for the current request
        self._message_tail = b""  # what the parser has not read, behind a request to upgrade
        self._request: Request | None = None  # the current one, until its response is written
        self._handling: Handling | None = None  # of the current request
        self._task: asyncio.Task[None] | None = None  # the rest of that, where it runs in a task
        self._ended: asyncio.Future[None] | None = None  # of who waits for the end of the current request
        self._is_closing = False  # after the current request, or at once
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
        self._is_open = True
        self._serving.add(self)
        super().connection_made(opened)
        opened.set_write_buffer_limits(_BUFFER_BYTES)
        address = opened.get_extra_info("peername")
        if isinstance(address, tuple):
            self.peer = parse_address(str(address[0]))
            for option, value in _TCP_OPTIONS:
                opened.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, value)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Removes the connection. The current request runs on, since it may have changed something."""
        if not self._is_open:
            return
        self._is_open = False
        self._is_closing = True
        self._connections.remove(self)
        if exc is None:
            # Without an error, aiohttp would assume that the caller has read everything.
            exc = ConnectionResetError("the caller has closed the connection")
        super().connection_lost(exc)
        self._messages.clear()
        self._parser = None
        if self._request is None:
            self._serving.discard(self)
        else:
            self._request.content.set_exception(exc)

    def data_received(self, data: bytes) -> None:
        """Handles received bytes: parts of heads and bodies, or several whole ones."""
        if self._ignores_input or self._is_closing:
            return
        new = self._parse(data)
        if new:
            size, self._head_bytes = self._head_bytes + len(data), 0
            if new > 1 or not 0 < size <= MAX_HEAD_BYTES:
                self._check_head_sizes(new)
            head, body = self._messages[-1]
            if body is not EMPTY_PAYLOAD and not body.is_eof():
                self._awaited_body, self._awaited_bytes = body, body.total_bytes
            elif isinstance(head, RawRequestMessage) and head.upgrade:
                self._decline_upgrade(head, body, data if new == 1 and size == len(data) else b"")
        else:
            self._add_to_incomplete(data)
        self._start_next()

    def _parse(self, data: bytes) -> int:
        """Parses received bytes. Returns how many heads were complete; invalid HTTP counts as one."""
        assert self._parser is not None
        try:
            messages, self._upgraded, self._message_tail = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(_service_error(error))
            return 1
        self._messages.extend(messages)
        if len(self._messages) >= MAX_PIPELINED and not self._buffer_paused:
            self._pause_reading_for_buffer()
        return len(messages)

    def _start_next(self) -> None:
        """Starts to handle the next request, if one has arrived."""
        if self._request is not None or not self._messages or self.transport is None:
            return
        head, body = self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        self._is_answering = True
        self._discarded_bytes = 0
        if isinstance(head, ServiceError):
            request = self._recorder.start(self, _NO_HEAD, body)
            request.refusal = head
        else:
            request = self._recorder.start(self, head, body)
            # Most requests on a connection have the same Host, so this costs 0.1 µs.
            host = head.headers.get(_HOST, "")
            if host != self.host or head.chunked or head.version is not HttpVersion11:
                refusal = _refusal(head, host)
                if refusal:
                    request.refusal = problems.BadRequest(refusal)
                else:
                    self.host = host
        self._request = request
        self._handling = self._handle(request)
        if self._buffer_paused and len(self._messages) <= MAX_PIPELINED // 2:
            self._resume_reading_if_parsed()
        self._run()

    def _resume_reading_if_parsed(self) -> None:
        """Reads on, once what has been read is parsed without filling the queue again."""
        if not self._upgraded:
            self.data_received(b"")
        if len(self._messages) < MAX_PIPELINED:
            self._resume_reading_for_buffer()

    def _run(self) -> None:
        """Runs the current request's handler up to its next wait."""
        assert self._handling is not None
        self._task = run(self._handling, self._run)

    async def _handle(self, request: Request) -> None:
        """Handles a request, from its head to the next one's turn."""
        response: AnyResponse | None = None
        try:
            try:
                response = await self._handler(request)
                whole = response.encode(request) if isinstance(response, Response) else b""
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever passed the dispatcher
                response = self._failed(request, error)
                whole = response.encode(request)
            finally:
                self._recorder.end(request, response)
            self._is_answering = False
            if self._is_open:
                self._connections.set_idle(self)
                if self._head_bytes:
                    self._connections.set_reading_head(self)
            if whole:
                self.write(whole)
            if self._paused:
                await self.drained()
            if not response.keep_alive:
                self._is_closing = True
            elif not request.content.is_eof():
                await self._discard(request.content)
        except ConnectionError:  # the caller has closed the connection
            self._is_closing = True
        finally:
            self._end()

    def _failed(self, request: Request, error: Exception) -> Response:
        """The response to an error that passed the dispatcher; aborts where another response has started."""
        request.error = error
        if request.has_response_started:
            # The status is already sent. Only an aborted connection shows the caller that the rest failed.
            self.abort()
            raise ConnectionAbortedError("the response could not be completed")
        _log.error(names.REQUEST_FAILED, request_id=request.id, exc_info=error)
        response = problems.response(problems.InternalError(), request.id)
        response.keep_alive = False
        return response

    async def _discard(self, body: StreamReader) -> None:
        """Reads the rest of a body that no handler reads, or closes the connection where it does not arrive in time."""
        await in_task()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not body.is_eof():
                    await body.readany()
        except (TimeoutError, web.RequestPayloadError):
            self._is_closing = True

    def _end(self) -> None:
        """Ends a request, and closes the connection or starts the next request."""
        self._request = self._handling = self._task = None
        self._is_answering = False
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if not self._is_open:
            self._serving.discard(self)
        elif self._is_closing:
            self._close_transport()
        elif self._messages:
            self._loop.call_soon(self._start_next)  # not in this call, which may itself be one of many in a row

    def write(self, data: bytes) -> None:
        """Sends data, or buffers it where the caller has not read what was sent before.

        Raises:
            ConnectionError: the caller has closed the connection.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has closed the connection")
        transport.write(data)

    async def drained(self) -> None:
        """Waits until the caller has read enough of what was sent.

        Raises:
            ConnectionError: the caller has closed the connection.
        """
        await self._drain_helper()

    def close(self) -> None:
        """Closes the connection, after the current request if there is one."""
        self._is_closing = True
        self._messages.clear()
        if self._request is None:
            self._close_transport()

    def _close_transport(self) -> None:
        if self.transport is not None:
            self.transport.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Closes the connection, after the current request if that ends in time.

        Args:
            timeout: in seconds.
        """
        self.close()
        if self._request is not None:
            self._ended = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._ended
        if self._task is not None:
            self._task.cancel()
        self._close_transport()

    def eof_received(self) -> bool:
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
        else:
            self._is_closing = True  # after the current request
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
            if behind := data[data.index(b"\r\n\r\n") + 4 + body.total_bytes :]:
                self.data_received(behind)
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
        """Queues an error in place of the next request, and ignores all further input."""
        self._ignores_input = True
        self._messages.append((error, EMPTY_PAYLOAD))

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        self._connections.set_write_paused(self)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        super().resume_writing()
        self._connections.set_write_resumed(self)

    @property
    def has_request(self) -> bool:
        """See connections.OpenConnection."""
        if self.transport is None:
            return False  # what has arrived will not be answered any more
        return self._is_answering or self._paused or bool(self._messages)

    def time_out_head(self) -> None:
        """See connections.OpenConnection."""
        if self._head_bytes and self._request is None:
            self._refuse(problems.HeadTooSlow(f"The head did not arrive within {connections.HEAD_SECONDS:g} seconds."))
            self._start_next()
        else:
            self.abort()

    def abort(self) -> None:
        """See connections.OpenConnection."""
        if self.transport is not None:
            # Not close(), which waits until the caller has read the rest.
            self.transport.abort()


_HEAD_TOO_LARGE: Final = f"The request line and the headers together are larger than {MAX_HEAD_BYTES} bytes."


def _head_size(message: _Head) -> int:
    if isinstance(message, ServiceError):
        return 0
    return len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)


def _service_error(error: HttpProcessingError) -> ServiceError:
    # The parser's message quotes the request, so it stays out of the response.
    if isinstance(error, LineTooLong):
        return problems.BadRequest(f"The request line or a header is longer than {MAX_LINE_BYTES} bytes.")
    return problems.BadRequest()


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
