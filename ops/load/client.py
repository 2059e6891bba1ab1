"""Sends single requests to the service over kept-alive connections. Only Locust's processes import this module."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Final
from urllib.parse import quote, urlencode

from gevent import Timeout
from gevent.lock import BoundedSemaphore
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError

from ops.common.api_key import authorization
from ops.load.measurements import TIMED_OUT, TIMEOUT_SECONDS

PAGE_ROWS: Final = 100

_MAX_CONNECTIONS: Final = 1000  # per process, below its limit of open files; further requests wait, which counts


class RequestFailed(Exception):
    """A request did not get the expected response. There are few different texts, so that failures can be counted."""


class Api:
    """The three endpoints.

    All requests are marked as part of a load test: `User-Agent: clients-api-load/<run>` marks their traces, a request
    id `load-<run>-…` marks their lines in the log. Metrics have no such mark.

    Args:
        url: of the service.
        run: the run's id.
        source: distinguishes this source's requests from those of other sources in the same run.
    """

    def __init__(self, url: str, run: str, source: str) -> None:
        self._url = url
        self._run = run
        self._prefix = f"load-{run}-{source}"
        self._numbers = count(1)
        self._idle: list[HTTPClient] = []
        self._slots = BoundedSemaphore(_MAX_CONNECTIONS)

    def get(self, client: int, seconds: float) -> None:
        """`GET /get/<id>`; raises RequestFailed unless the response is a 200 in time."""
        self._request("GET", f"/get/{client}", 200, seconds)

    def getall(self, _client: int, seconds: float) -> None:
        """`GET /getall`, one page; raises as get() does."""
        self._request("GET", f"/getall?limit={PAGE_ROWS}", 200, seconds)

    def add(self, _client: int, seconds: float) -> None:
        """`POST /add` with an idempotency key; raises RequestFailed unless the response is a 201 in time."""
        number = next(self._numbers)
        self._add(f"{self._prefix}-{number}", number, seconds)

    def prepare(self, clients: int) -> list[int]:
        """Adds the clients that get() will request, and returns their ids.

        All sources of a run use the same idempotency keys here, so they share the same clients.

        Raises:
            RequestFailed: the service does not answer, or is not the clients API.
        """
        return [self._prepare(number) for number in range(1, clients + 1)]

    def _prepare(self, number: int) -> int:
        added = self._add(f"load-{self._run}-prepared-{number}", number, TIMEOUT_SECONDS)
        try:
            return int(json.loads(added)["id"])
        except (ValueError, TypeError, KeyError):
            raise RequestFailed("the response to POST /add has no id, so this is not the clients API") from None

    def _add(self, key: str, number: int, seconds: float) -> bytes:
        fields = urlencode({"name": f"load {self._run} {number}", "money": f"{number}.50"}, quote_via=quote)
        return self._request("POST", f"/add?{fields}", 201, seconds, {"Idempotency-Key": key})

    def _request(
        self, method: str, path: str, expected: int, seconds: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        headers = {"X-Request-Id": f"{self._prefix}-r{next(self._numbers)}", **(headers or {})}
        try:
            with Timeout(max(seconds, 0.0)), self._connection() as connection:
                response = connection.request(method, path, headers=headers)
                body = bytes(response.read())
        except Timeout:
            raise RequestFailed(TIMED_OUT) from None
        except (OSError, HTTPParseError) as error:
            raise RequestFailed(f"no response: {type(error).__name__}") from None
        if response.status_code != expected:
            raise RequestFailed(f"status {response.status_code}")
        return body

    @contextmanager
    def _connection(self) -> Iterator[HTTPClient]:
        """The most recently used idle connection, or a new one. Each request in progress has its own.

        Each is an HTTPClient with one connection. An HTTPClient with several resends a failed request as often as it
        has connections, which would hide failures. With one, it resends only once, after the server closed the idle
        connection.
        """
        with self._slots:
            connection = self._idle.pop() if self._idle else self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)

    def _connect(self) -> HTTPClient:
        return HTTPClient.from_url(
            self._url,
            headers={"User-Agent": f"clients-api-load/{self._run}", **authorization()},
            connection_timeout=TIMEOUT_SECONDS,
            network_timeout=TIMEOUT_SECONDS,
        )
