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

from aiohttp import HttpVersion10, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy, istr

from svc.errors import ServiceError
from svc.http.lifecycle import Lifecycle

if TYPE_CHECKING:
    from svc.http.slots import Slots

MAX_BODY_BYTES: Final = 16 * 1024  # the longest name and money, escaped, take less than 4 KB

_X_REQUEST_ID: Final = istr("X-Request-Id")  # an istr is the fastest key for a header
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Names and amounts are only for the caller, and may change at any time, so no cache may keep them. It costs 0.1 µs.
_NO_STORE: Final = "no-store"
_NONE: Final[Mapping[str, str]] = {}
_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


class Request(web.BaseRequest):
    """A request, with its id.

    Attributes:
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
    """

    # Not in the __dict__, since Python shares its keys between instances only up to 30.
    __slots__ = ("slot_seconds", "slots")

    slots: "Slots | None"
    slot_seconds: float
    route: str = "unknown"
    path_parameter: str = ""
    caller: str = ""
    refusal: ServiceError | None = None
    error: Exception | None = None
    response_headers: Mapping[str, str] = _NONE

    def __init__(self, lifecycle: Lifecycle, peer: str, message: RawRequestMessage, *parts: Any) -> None:
        if message.url.absolute:  # its host is not used, and aiohttp would decode it, which fails for some
            message = message._replace(url=message.url.relative())
        super().__init__(message, *parts, client_max_size=MAX_BODY_BYTES)
        self._lifecycle = lifecycle
        self.slots = None
        self.slot_seconds = 0.0
        self.peer = peer
        given = message.headers.get(_X_REQUEST_ID)
        self.trace_id = f"{random.getrandbits(128):032x}"
        self.id = given if given and _REQUEST_ID.fullmatch(given) else self.trace_id

    def refuse(self, refusal: ServiceError) -> None:
        """Records that it is not valid HTTP, and why."""
        self.refusal = refusal
        self._headers = _NO_HEADERS  # aiohttp gives such a request a dict, which lacks the methods of headers

    def join_trace(self, trace_id: str) -> None:
        """Joins a trace that began at the caller."""
        if self.id == self.trace_id:
            self.id = trace_id
        self.trace_id = trace_id

    def add_round_trip(self, round_trip: Any, queue_seconds: float) -> None:
        """A hook for each round trip to the database; see batching.RoundTripObserver. Here, it does nothing."""

    @property
    def has_route(self) -> bool:
        """Whether its path is one of the service's."""
        return self.route.startswith("/")

    @property
    def has_response_started(self) -> bool:
        """Whether part of the response has been sent."""
        return self.writer.output_size > 0

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may serve another request after this one."""
        return not (self._message.should_close or self._lifecycle.draining)

    def _finish(self) -> None:
        # aiohttp calls this once there is a response, to clean up multipart bodies, which this service does not accept.
        self.protocol.request_answered()  # type: ignore[attr-defined]  # a Connection, whose module imports this one

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # aiohttp calls this just before it sends the headers of one of its own responses, such as a StreamResponse.
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = _NO_STORE
        response.headers["X-Request-Id"] = self.id
        response.headers.update(self.response_headers)
        del response.headers["Server"]  # it names the versions of aiohttp and Python
        if self.version == HttpVersion10 and hdrs.CONNECTION not in response.headers:
            # aiohttp does not promise to keep the connection, since only its end marks the end of a body without a
            # length. But it would not close it either.
            response.force_close()


class Response:
    """A whole response with its body in memory, sent in one piece.

    aiohttp's web.Response can be changed, compressed, chunked and sent in parts, which costs 7 µs more per request, of
    37. This class has only what aiohttp's connection needs. For a response in parts, use web.StreamResponse.

    Attributes:
        body: its bytes.
        content_type: the media type of the body.
        status: the HTTP status.
        headers: in addition to those that every response has.
        keep_alive: whether the connection may serve another request; final once the response is prepared.
    """

    __slots__ = ("_writer", "body", "content_type", "headers", "keep_alive", "status")

    def __init__(
        self,
        body: bytes,
        content_type: str,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.status = status
        self.headers = headers
        self.keep_alive = True

    @property
    def body_length(self) -> int:
        """The size of the body in bytes."""
        return len(self.body)

    async def prepare(self, request: Request) -> None:
        """Passes the status and the headers to the connection, which sends them together with the body."""
        headers = {
            "Content-Type": self.content_type,
            # A name may contain markup, and no browser may guess that a response is HTML. It costs 0.06 µs.
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": _NO_STORE,
            "Content-Length": str(len(self.body)),
            "Date": _http_date(int(time.time())),
            "X-Request-Id": request.id,
        }
        if request.response_headers:
            headers.update(request.response_headers)
        if self.headers:
            headers.update(self.headers)
        self.keep_alive = self.keep_alive and request.keep_alive
        if not self.keep_alive:
            headers["Connection"] = "close"
        elif request.version == HttpVersion10:
            headers["Connection"] = "keep-alive"
        self._writer = request.writer
        if request.method == hdrs.METH_HEAD:
            self.body = b""
        await self._writer.write_headers(_STATUS_LINES[self.status], headers)  # type: ignore[arg-type]  # a dict works too

    async def write_eof(self) -> None:
        """Sends the response."""
        await self._writer.write_eof(self.body)


AnyResponse: TypeAlias = Response | web.StreamResponse


def json_body(value: object) -> bytes:
    """The value as a body: JSON in UTF-8 without spaces, as PostgreSQL writes it, and a line break for terminals."""
    return f"{_encode(value)}\n".encode(errors="backslashreplace")  # as JSON escapes a lone surrogate


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
