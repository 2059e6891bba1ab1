"""Callers that add clients, get them again and record every response."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.connector import Connection

from ops.drills.ledger import Add, Ledger
from ops.drills.timeline import SERVED, Request, Timeline

GIVE_UP_SECONDS: Final = 30.0  # far beyond the service's deadline: a caller that waits so long was left hanging
_SETTLE_SECONDS: Final = 15.0
_REPEATED: Final = 0.1  # share of the acknowledged adds that are sent again; the response must have the same id

_port: ContextVar[int] = ContextVar("_port")  # see Request.connection


class _Connector(aiohttp.TCPConnector):
    """Records the connection of each request. For a request that fails, aiohttp does not expose it."""

    async def connect(self, *arguments: Any, **named: Any) -> Connection:
        connection = await super().connect(*arguments, **named)
        if connection.transport is not None:
            _port.set(connection.transport.get_extra_info("sockname")[1])
        return connection


class Callers:
    """Several callers. Each has one request in progress: it adds a client, gets it, then gets another one.

    A caller repeats a request that was not served until it is. An add keeps its Idempotency-Key. Some acknowledged adds
    are repeated as well. That reveals lost, duplicated and contradicted adds.

    Args:
        url: of the service.
        ledger: records the adds and their responses.
        timeline: records the requests.
        count: of callers.
        pause_seconds: average pause of a caller after each response.
        retry_seconds: exact pause after a request that was not served; None for the average pause.
        sources: the addresses that the callers have, in turn.
    """

    def __init__(
        self,
        url: str,
        ledger: Ledger,
        timeline: Timeline,
        count: int,
        *,
        pause_seconds: float,
        retry_seconds: float | None = None,
        sources: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        self._url = url
        self._ledger = ledger
        self._timeline = timeline
        self._count = count
        self._pause_seconds = pause_seconds
        self._retry_seconds = retry_seconds
        self._sources = sources
        self._stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the callers. At the end, each completes what it has started, within 15 s."""
        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(self._session(source)) for source in self._sources]
            chosen = itertools.islice(itertools.cycle(sessions), self._count)
            callers = [asyncio.create_task(self._call(session)) for session in chosen]
            try:
                yield
                self._stopping.set()
                _, late = await asyncio.wait(callers, timeout=_SETTLE_SECONDS)
            finally:
                for caller in callers:
                    caller.cancel()
                results = await asyncio.gather(*callers, return_exceptions=True)
            if late:
                self._timeline.mark(f"{len(late)} callers were never served")
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def _session(self, source: str) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=GIVE_UP_SECONDS)
        connector = _Connector(limit=0, local_addr=(source, 0))
        session = aiohttp.ClientSession(self._url, timeout=timeout, connector=connector)
        # aiohttp would silently repeat a GET whose connection was lost, and the failure would not be recorded.
        session._retry_connection = False  # noqa: SLF001 - aiohttp has no public setting for it
        return session

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while not self._stopping.is_set():
            add = self._ledger.new()
            await self._add(session, add)
            if random.random() < _REPEATED:
                await self._add(session, add)
            await self._get(session, add)
            if other := self._ledger.random_acknowledged():
                await self._get(session, other)

    async def _add(self, session: aiohttp.ClientSession, add: Add) -> None:
        headers = {"Idempotency-Key": add.key}
        fields = {"name": add.name, "money": add.money}
        while True:
            add.tries += 1
            outcome, body = await self._send(session, "POST", "/add", params=fields, headers=headers)
            if outcome == "201":
                self._ledger.acknowledge(add, body["id"])
                return

    async def _get(self, session: aiohttp.ClientSession, add: Add) -> None:
        while True:
            outcome, body = await self._send(session, "GET", f"/get/{add.id}")
            if outcome in {"200", "404"}:
                self._ledger.check(add, body if outcome == "200" else None)
                return

    async def _send(self, session: aiohttp.ClientSession, method: str, path: str, **options: Any) -> tuple[str, Any]:
        """Sends a request. Returns its outcome (see Request) and the JSON of the response, if any."""
        sent_at = self._timeline.now()
        body = None
        _port.set(0)
        try:
            async with session.request(method, path, **options) as response:
                outcome = str(response.status)
                body = await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = type(error).__name__
        request = Request(sent_at, self._timeline.now() - sent_at, outcome, _port.get())
        self._timeline.requests.append(request)
        await asyncio.sleep(self._pause(request))
        return outcome, body

    def _pause(self, request: Request) -> float:
        if request.kind != SERVED and self._retry_seconds is not None:
            return self._retry_seconds
        return random.uniform(0.5, 1.5) * self._pause_seconds
