"""The one place that times requests and writes their lines."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog

from svc import batching
from svc.batching import Trip
from svc.messages import Request, Response
from svc.routes import Handler
from svc.telemetry import names

_log = structlog.get_logger()

CALLER_GONE: Final = 499  # as nginx and many dashboards call it

# Asked every few seconds by machines: only what goes wrong with them is worth a line.
_PROBES: Final = frozenset(("/healthz", "/readyz"))
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))

Locate = Callable[[Request], str]


class _Account:
    """What one request spent on the database."""

    __slots__ = ("batch_size", "database_seconds", "queue_seconds")

    def __init__(self) -> None:
        self.database_seconds = 0.0
        self.queue_seconds = 0.0
        self.batch_size = 0

    def charge(self, trip: Trip, queue_seconds: float) -> None:
        self.database_seconds += trip.seconds
        self.queue_seconds += queue_seconds
        self.batch_size = max(self.batch_size, trip.questions)


class Edge:
    """Passes each request to the service's own edge, and tells of it."""

    def __init__(self, inner: Handler, locate: Locate) -> None:
        self._inner = inner
        self._locate = locate
        # Bound once: to make a logger for each request costs more than to write its line.
        self._info = _log.bind().info

    async def __call__(self, request: Request) -> Response:
        """The inner edge's answer."""
        started = time.perf_counter()
        account = _Account()
        batching.account.set(account)
        try:
            response = await self._inner(request)
        except BaseException as error:
            failed = isinstance(error, Exception) and not isinstance(error, ConnectionError)
            status = HTTPStatus.INTERNAL_SERVER_ERROR if failed else CALLER_GONE
            self._tell(request, status, 0, started, account)
            raise
        self._tell(request, response.status, response.body_length, started, account)
        return response

    def _tell(self, request: Request, status: int, size: int, started: float, account: _Account) -> None:
        if request.route in _PROBES and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        duration = time.perf_counter() - started
        self._info(
            names.REQUEST,
            method=request.method if request.method in _METHODS else "OTHER",
            route=request.route,
            status=int(status),
            duration_ms=round(duration * 1e3, 3),
            database_ms=round(account.database_seconds * 1e3, 3),
            queue_ms=round(account.queue_seconds * 1e3, 3),
            batch_size=account.batch_size,
            bytes=size,
            request_id=request.id,
            client=self._locate(request),
        )
