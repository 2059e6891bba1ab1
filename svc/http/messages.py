"""Requests, each with its id, and responses."""

import json
import random
import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import HttpVersion, HttpVersion10, hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import istr

from svc.errors import ServiceError

if TYPE_CHECKING:
    from svc.http.connection import Connection
    from svc.http.slots import Slots

MAX_BODY_BYTES: Final = 16 * 1024  # the longest name and money, escaped, take less than 4 KB

_X_REQUEST_ID: Final = istr("X-Request-Id")  # an istr is the fastest key for a header
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Names and amounts are only for the caller, and may change at any time, so no cache may keep them.
_NO_STORE: Final = "no-store"
_NONE: Final[Mapping[str, str]] = {}
_NO_CONTENT: Final = HTTPStatus.NO_CONTENT  # as a member of its class, it costs a call in Python 3.11
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Request:
    """A request, with its id.

    Args:
        connection: that it arrived on.
        message: its parsed head.
        body: receives the body.

    Attributes:
        connection: see the argument.
        method: as the caller wrote it.
        rel_url: its path and query.
        headers: its headers.
        content: its body.
        peer: the address of the other side of its connection; empty where it has none, as on a Unix socket.
        trace_id: of the trace that it is part of, 32 hexadecimal digits.
        id: the caller's X-Request-Id where it is valid, otherwise the trace_id.
        route: the template of its path, such as `/get/{id}`, once it is found.
        path_parameter: the value of the route's parameter; empty where it has none.
        caller: the name of its API key's caller; empty where it has no known key.
        slots: where it holds a slot; None while it holds none.
        slot_seconds: how long it waited for slots.
        refusal: why it was refused as a whole, such as invalid HTTP; None where it was not.
        error: why it failed; None where it did not.
        response_headers: of its response, in addition to those that every response has.
        has_response_started: whether part of a response in parts has been sent.
    """

    slots: "Slots | None"
    route: str = "unknown"
    path_parameter: str = ""
    caller: str = ""
    refusal: ServiceError | None = None
    error: Exception | None = None
    response_headers: Mapping[str, str] = _NONE
    has_response_started: bool = False

    def __init__(self, connection: "Connection", message: RawRequestMessage, body: StreamReader) -> None:
        self.connection = connection
        self._message = message
        self.content = body
        self.method = message.method
        # The host of an absolute URL is not used.
        self.rel_url = message.url.relative() if message.url.absolute else message.url
        self.headers = headers = message.headers
        self.slots = None
        self.slot_seconds = 0.0
        self.peer = connection.peer
        given = headers.get(_X_REQUEST_ID)
        self.trace_id = f"{random.getrandbits(128):032x}"
        self.id = given if given and _REQUEST_ID.fullmatch(given) else self.trace_id

    def join_trace(self, trace_id: str) -> None:
        """Joins a trace that began at the caller."""
        if self.id == self.trace_id:
            self.id = trace_id
        self.trace_id = trace_id

    def add_round_trip(self, round_trip: Any, queue_seconds: float) -> None:
        """A hook for each round trip to the database; see batching.RoundTripObserver. Here, it does nothing."""

    def response_started(self) -> None:
        """A hook for the start of a response in parts."""
        self.has_response_started = True

    @property
    def has_route(self) -> bool:
        """Whether its path is one of the service's."""
        return self.route.startswith("/")

    @property
    def is_connected(self) -> bool:
        """Whether its caller can get a response."""
        return self.connection.transport is not None

    @property
    def body_exists(self) -> bool:
        """Whether it has a body, which may be empty."""
        return self.content is not EMPTY_PAYLOAD

    @property
    def version(self) -> HttpVersion:
        """The version of HTTP."""
        return self._message.version

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may serve another request after this one."""
        return not (self._message.should_close or self.connection.lifecycle.draining)


class Response:
    """A whole response with its body in memory, sent in one piece.

    Attributes:
        body: its bytes.
        content_type: the media type of the body; empty where there is no body.
        status: the HTTP status.
        headers: in addition to those that every response has.
        cache_control: what caches may do with it.
        keep_alive: whether the connection may serve another request; final once the response is encoded.
    """

    __slots__ = ("body", "cache_control", "content_type", "headers", "keep_alive", "status")

    def __init__(
        self,
        body: bytes,
        content_type: str,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] = _NONE,
        cache_control: str = _NO_STORE,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.status = status
        self.headers = headers
        self.cache_control = cache_control
        self.keep_alive = True

    @property
    def body_length(self) -> int:
        """The size of the body in bytes."""
        return len(self.body)

    def encode(self, request: Request) -> bytes:
        """The head and the body, as they are sent."""
        self.keep_alive = self.keep_alive and request.keep_alive
        length = "" if self.status == _NO_CONTENT else f"Content-Length: {len(self.body)}\r\n"
        start = _start(self.status, self.content_type, self.cache_control)
        head = _head(request, start, length, self.headers, keep_alive=self.keep_alive)
        return head if request.method == hdrs.METH_HEAD else head + self.body


class StreamedResponse:
    """A response whose body is sent in parts, as they are made.

    Args:
        request: that it responds to.
        content_type: the media type of the body.
        headers: in addition to those that every response has.

    Attributes:
        status: the HTTP status.
        body_length: the bytes of the body that were sent.
        keep_alive: whether the connection may serve another request.
    """

    status: Final = HTTPStatus.OK

    def __init__(self, request: Request, content_type: str, headers: Mapping[str, str]) -> None:
        self.body_length = 0
        self._has_body = request.method != hdrs.METH_HEAD
        self._is_chunked = request.version != HttpVersion10
        # In HTTP/1.0, the end of the connection is the end of the body.
        self.keep_alive = request.keep_alive and (self._is_chunked or not self._has_body)
        self._connection = request.connection
        length = "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""
        start = _start(self.status, content_type, _NO_STORE)
        self._connection.write(_head(request, start, length, headers, keep_alive=self.keep_alive))
        request.response_started()

    async def write(self, part: bytes) -> None:
        """Sends a part of the body, which is not empty. Waits where the caller has not read the parts before it.

        Raises:
            ConnectionError: the caller has closed the connection.
        """
        self.body_length += len(part)
        self._connection.write(b"%x\r\n%b\r\n" % (len(part), part) if self._is_chunked else part)
        await self._connection.drained()

    def end(self) -> None:
        """Ends the body.

        Raises:
            ConnectionError: the caller has closed the connection.
        """
        if self._has_body and self._is_chunked:
            self._connection.write(b"0\r\n\r\n")


AnyResponse: TypeAlias = Response | StreamedResponse


class Recorder:
    """Makes the requests, and is told of their end. This one records nothing."""

    def start(self, connection: "Connection", message: RawRequestMessage, body: StreamReader) -> Request:
        """A request whose head is complete; for the arguments, see Request."""
        return Request(connection, message, body)

    def end(self, request: Any, response: AnyResponse | None) -> None:
        """A request of `start` has ended.

        Args:
            request: whose `error` is set where it failed.
            response: None where the caller has closed the connection, or the rest of a response could not be sent.
        """


def _head(request: Request, start: str, length: str, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    """The bytes of a head.

    Args:
        request: that it responds to.
        start: the status line, and the headers that depend on nothing else.
        length: the header that tells the body's end.
        headers: in addition to the request's own `response_headers`.
        keep_alive: whether the connection stays open.
    """
    others = ""
    if headers or request.response_headers:
        others = "".join([_line(*header) for header in {**request.response_headers, **headers}.items()])
    if not keep_alive:
        others += "Connection: close\r\n"
    elif request.version == HttpVersion10:
        others += "Connection: keep-alive\r\n"
    date = _http_date(int(time.time()))
    return f"{start}{length}Date: {date}\r\nX-Request-Id: {request.id}\r\n{others}\r\n".encode()


@lru_cache(maxsize=64)
def _start(status: int, content_type: str, cache_control: str) -> str:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n",
        _line("Content-Type", content_type) if content_type else "",
        # A name may contain markup, and no browser may guess that a response is HTML.
        _line("X-Content-Type-Options", "nosniff"),
        _line("Cache-Control", cache_control),
    ]
    return "".join(lines)


def _line(name: str, value: str) -> str:
    if not value.isprintable():  # a line break would start another header
        raise ValueError(f"the header {name} has a control character")
    return f"{name}: {value}\r\n"


def json_body(value: object) -> bytes:
    """The value as a body: JSON in UTF-8 without spaces, as PostgreSQL writes it, and a line break for terminals."""
    return f"{_encode(value)}\n".encode(errors="backslashreplace")  # as JSON escapes a lone surrogate


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
