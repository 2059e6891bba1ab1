"""HTTP as this service speaks it: aiohttp's low-level server with our limits, our messages and our words for errors."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.streams import StreamReader

from svc import problems
from svc.lifecycle import Lifecycle
from svc.messages import Answer, Request, Response
from svc.telemetry import names

_log = structlog.get_logger()

LINE_MAX_BYTES: Final = 8190  # the request line, and each header's line
HEADERS_MAX: Final = 64
# Longer than a balancer's idle time-out (60 s): who closes an idle connection first may lose a request on it.
KEEPALIVE_SECONDS: Final = 75.0


class Connection(web.RequestHandler):
    """One TCP connection.

    Attributes:
        peer: the address at its other end; empty where it has none.
    """

    __slots__ = ("peer",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a new connection."""
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""

    def _make_error_handler(self, err_info: Any) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        # What is not HTTP goes the way of all requests, so that it is answered and told of as they are.
        edge: Any = self._request_handler

        async def refuse(request: Request) -> Response:
            request.refuse(_not_http(err_info.exc))
            response: Response = await edge(request)
            return response

        return refuse

    def handle_error(  # type: ignore[override]  # see Answer
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - likewise
    ) -> Answer:
        """The answer where an error passed the edge, or none at all where another one has begun."""
        assert isinstance(request, Request)
        if request.answering:
            # Its status is out, so the only way to say that it failed is to cut it: no part is taken for the whole.
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the answer could not be finished")
        _log.error(names.REQUEST_FAILED, request_id=request.id, exc_info=exc)
        answer = problems.answer(problems.InternalError(), request.id)
        answer.keep_alive = False
        return answer


def _not_http(error: BaseException | None) -> problems.BadRequest:
    # The parser's own words quote the request, so they are not for an answer.
    if isinstance(error, LineTooLong):
        return problems.BadRequest(f"The request line or a header is longer than {LINE_MAX_BYTES} bytes.")
    return problems.BadRequest()


class Server(web.Server):
    """Makes a Connection for each TCP connection.

    Args:
        handler: answers requests.
        request: what they are made as.
        lifecycle: says whether connections may be kept.
    """

    def __init__(self, handler: Any, request: type[Request], lifecycle: Lifecycle) -> None:
        if HttpRequestParser.__module__ != "aiohttp._http_parser":
            raise RuntimeError("aiohttp's C parser is missing; its Python one is slower and has had more holes")
        super().__init__(handler, request_factory=self._request)
        self._made_as = request
        self._lifecycle = lifecycle

    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            keepalive_timeout=KEEPALIVE_SECONDS,
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
        return self._made_as(self._lifecycle, connection.peer, message, payload, connection, writer, task, self._loop)
