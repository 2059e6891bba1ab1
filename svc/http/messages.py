"""What comes in and what goes out: a request with its id, and the answer to it."""

import random
import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from aiohttp import HttpVersion10, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy, istr

from svc.errors import ServiceError
from svc.http.lifecycle import Lifecycle

BODY_MAX_BYTES: Final = 16 * 1024  # name and money at their longest, escaped, are under 4 KB

_X_REQUEST_ID: Final = istr("X-Request-Id")  # in the form that headers are looked up by
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Names and amounts are for who asked, and may be others by the next time: they stay in no cache. It costs 0.1 µs.
_NO_STORE: Final = "no-store"
_NO_HEADERS: Final = CIMultiDictProxy[str](CIMultiDict())
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


class Request(web.BaseRequest):
    """A request, with its id.

    Attributes:
        peer: the address at the other request_answered of its connection; empty where it has none.
        trace_id: of the trace that it is part of, 32 hexadecimal digits.
        id: the caller's X-Request-Id where it is sane, else its trace's.
        route: the template of its path, such as `/get/{id}`, once it is found.
        tail: what the path has in the place of the route's parameter; empty where it has none.
        refusal: why it is not valid HTTP, where it is not.
        error: why it was not served, where it was not.
        traceresponse: what the answer's header of that name says of its trace; empty for no header.
    """

    route: str = "unknown"
    tail: str = ""
    refusal: ServiceError | None = None
    error: Exception | None = None
    traceresponse: str = ""

    def __init__(self, lifecycle: Lifecycle, peer: str, message: RawRequestMessage, *parts: Any) -> None:
        super().__init__(message, *parts, client_max_size=BODY_MAX_BYTES)
        self._lifecycle = lifecycle
        self.peer = peer
        given = message.headers.get(_X_REQUEST_ID)
        self.trace_id = f"{random.getrandbits(128):032x}"
        self.id = given if given and _REQUEST_ID.fullmatch(given) else self.trace_id

    def refuse(self, refusal: ServiceError) -> None:
        """Notes that it is not valid HTTP, and why."""
        self.refusal = refusal
        self._headers = _NO_HEADERS  # of which aiohttp makes a dict, that lacks their methods

    def join_trace(self, trace_id: str) -> None:
        """Makes it part of a trace that began before it."""
        if self.id == self.trace_id:
            self.id = trace_id
        self.trace_id = trace_id

    @property
    def has_route(self) -> bool:
        """Whether its path is one of the service's."""
        return self.route.startswith("/")

    @property
    def answering(self) -> bool:
        """Whether part of the answer is already on its way."""
        return self.writer.output_size > 0

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may serve another request after this one."""
        return not (self._message.should_close or self._lifecycle.draining)

    def _finish(self) -> None:
        # aiohttp calls this once there is an answer, to remove what it makes of multipart bodies; there are none here.
        self.protocol.request_answered()  # type: ignore[attr-defined]  # a Connection, whose module imports this one

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # aiohttp calls this just before the headers of an answer of its own kind go out.
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = _NO_STORE
        response.headers["X-Request-Id"] = self.id
        if self.traceresponse:
            response.headers["traceresponse"] = self.traceresponse
        del response.headers["Server"]  # versions are for /version to tell, not for every answer


class Response:
    """A whole answer, its body in memory. It goes out in one piece.

    aiohttp's AnyResponse can be changed, compressed, chunked and sent in parts, and costs 7 µs more for it, of 37. This
    has just what aiohttp's connection asks of an answer; for one that is sent in parts there is web.StreamResponse.

    Attributes:
        body: its bytes.
        content_type: theirs.
        status: of HTTP.
        headers: beyond those that every answer has.
        keep_alive: whether the connection may serve another request; known for sure once the answer is prepared.
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
        """Bytes of the body."""
        return len(self.body)

    async def prepare(self, request: Request) -> None:
        """Hands the status and the headers to the connection, where they wait for the body."""
        headers = {
            "Content-Type": self.content_type,
            # A name may hold markup, for which no browser is to take an answer. It costs 0.06 µs.
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": _NO_STORE,
            "Content-Length": str(len(self.body)),
            "Date": _http_date(int(time.time())),
            "X-Request-Id": request.id,
        }
        if request.traceresponse:
            headers["traceresponse"] = request.traceresponse
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
        await self._writer.write_headers(_STATUS_LINES[self.status], headers)  # type: ignore[arg-type]  # a dict does

    async def write_eof(self) -> None:
        """Sends it."""
        await self._writer.write_eof(self.body)


AnyResponse: TypeAlias = Response | web.StreamResponse


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
