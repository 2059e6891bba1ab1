"""Sends single requests to the service, over connections that are kept; for Locust's processes only."""

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

PAGE_ROWS: Final = 100
TIMEOUT_SECONDS: Final = 10.0  # from when a request is due; the service itself gives up on its database much earlier

_CONNECTIONS_MOST: Final = 1000  # of a process, which has a limit of open files; beyond it requests wait, and it shows


class Failed(Exception):
    """A request that did not get its answer; the text is one of a few, to be counted by."""


class Api:
    """The three endpoints.

    Every request tells that it is part of a load test: its trace by `User-Agent: clients-api-load/<run>`, its line in
    the log by a request id `load-<run>-…`. Metrics have no such mark.

    Args:
        url: the service's.
        run: the run's id.
        source: what sets this source's requests apart from those of others in the same run.
    """

    def __init__(self, url: str, run: str, source: str) -> None:
        self._url = url
        self._run = run
        self._mark = f"load-{run}-{source}"
        self._numbers = count(1)
        self._idle: list[HTTPClient] = []
        self._room = BoundedSemaphore(_CONNECTIONS_MOST)

    def get(self, client: int, seconds: float) -> None:
        """`GET /get/<id>`; Failed where it is not answered with 200 in time."""
        self._ask("GET", f"/get/{client}", 200, seconds)

    def getall(self, _client: int, seconds: float) -> None:
        """`GET /getall`, a page of it; as get()."""
        self._ask("GET", f"/getall?limit={PAGE_ROWS}", 200, seconds)

    def add(self, _client: int, seconds: float) -> None:
        """`POST /add` with an idempotency key; as get(), with 201."""
        number = next(self._numbers)
        self._add(f"{self._mark}-{number}", number, seconds)

    def prepare(self, clients: int) -> list[int]:
        """Adds clients to ask for, and returns their ids.

        All sources of a run ask for the same with the same idempotency keys, so they get the same clients.

        Raises:
            Failed: the service is away, or is another one.
        """
        return [self._prepare(number) for number in range(1, clients + 1)]

    def _prepare(self, number: int) -> int:
        added = self._add(f"load-{self._run}-prepared-{number}", number, TIMEOUT_SECONDS)
        try:
            return int(json.loads(added)["id"])
        except (ValueError, TypeError, KeyError):
            raise Failed("the answer to POST /add has no id, so this is another service") from None

    def _add(self, key: str, number: int, seconds: float) -> bytes:
        fields = urlencode({"name": f"load {self._run} {number}", "money": f"{number}.50"}, quote_via=quote)
        return self._ask("POST", f"/add?{fields}", 201, seconds, {"Idempotency-Key": key})

    def _ask(
        self, method: str, path: str, wanted: int, seconds: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        marks = {"X-Request-Id": f"{self._mark}-r{next(self._numbers)}", **(headers or {})}
        try:
            with Timeout(max(seconds, 0.0)), self._connection() as connection:
                answer = connection.request(method, path, headers=marks)
                body = bytes(answer.read())
        except Timeout:
            raise Failed(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (OSError, HTTPParseError) as error:
            raise Failed(f"no answer: {type(error).__name__}") from None
        if answer.status_code != wanted:
            raise Failed(f"status {answer.status_code}")
        return body

    @contextmanager
    def _connection(self) -> Iterator[HTTPClient]:
        """One of its own for each request that is under way: the most recently used, or a new one.

        Each is a client of one connection: larger ones of this library send a request again, as often as they have
        connections, and so hide failures. This one does so once, for a connection that was closed while it was idle.
        """
        with self._room:
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
