"""Callers who add clients and look them up, and write down what they are told."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.connector import Connection

from ops.drills.ledger import Add, Ledger
from ops.drills.timeline import SERVED, Seen, Timeline

GIVE_UP_SECONDS: Final = 30.0  # far beyond what the service promises: who waits that long was left hanging
_SETTLE_SECONDS: Final = 15.0
_REPEATED: Final = 0.1  # of the acknowledged adds; each has to be acknowledged with the same id again

_port: ContextVar[int] = ContextVar("_port")  # see Seen.connection


class _Connector(aiohttp.TCPConnector):
    """Notes the connection that a request goes by, which aiohttp tells nobody where the request fails."""

    async def connect(self, *arguments: Any, **named: Any) -> Connection:
        connection = await super().connect(*arguments, **named)
        if connection.transport is not None:
            _port.set(connection.transport.get_extra_info("sockname")[1])
        return connection


class Callers:
    """Some callers, each with one request at a time: add a client, look it up, look up another.

    Whoever is turned away tries again soon, with the same Idempotency-Key, until the add is acknowledged, and some of
    the others do too: that is how a lost, doubled or contradicted one would come to light.

    Args:
        url: of the service.
        ledger: takes what was asked and answered.
        timeline: takes what was seen.
        count: of callers.
        pause_seconds: of each caller after each answer, on average.
        retry_seconds: of whoever was turned away, to the letter; None for the same pause.
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
    ) -> None:
        self._url = url
        self._ledger = ledger
        self._timeline = timeline
        self._count = count
        self._pause_seconds = pause_seconds
        self._retry_seconds = retry_seconds
        self._leaving = asyncio.Event()

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Calls meanwhile; at the end everyone brings what they began to an end, if that can be had in 15 s."""
        timeout = aiohttp.ClientTimeout(total=GIVE_UP_SECONDS)
        async with aiohttp.ClientSession(self._url, timeout=timeout, connector=_Connector(limit=0)) as session:
            # aiohttp would send a GET again whose connection was lost, and what fails would not be seen.
            session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
            callers = [asyncio.create_task(self._call(session)) for _ in range(self._count)]
            try:
                yield
                self._leaving.set()
                _, late = await asyncio.wait(callers, timeout=_SETTLE_SECONDS)
            finally:
                for caller in callers:
                    caller.cancel()
                ended = await asyncio.gather(*callers, return_exceptions=True)
            if late:
                self._timeline.mark(f"{len(late)} callers never got their answer")
            for error in ended:
                if isinstance(error, Exception):
                    raise error

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while not self._leaving.is_set():
            add = self._ledger.new()
            await self._add(session, add)
            if random.random() < _REPEATED:
                await self._add(session, add)
            await self._look_up(session, add)
            if other := self._ledger.any():
                await self._look_up(session, other)

    async def _add(self, session: aiohttp.ClientSession, add: Add) -> None:
        headers = {"Idempotency-Key": add.key}
        fields = {"name": add.name, "money": add.money}
        while True:
            add.tries += 1
            outcome, answer = await self._ask(session, "add", "POST", "/add", params=fields, headers=headers)
            if outcome == "201":
                self._ledger.acknowledge(add, answer["id"])
                return

    async def _look_up(self, session: aiohttp.ClientSession, add: Add) -> None:
        while True:
            outcome, answer = await self._ask(session, "get", "GET", f"/get/{add.id}")
            if outcome in {"200", "404"}:
                self._ledger.check(add, answer if outcome == "200" else None)
                return

    async def _ask(
        self, session: aiohttp.ClientSession, what: str, method: str, path: str, **fields: Any
    ) -> tuple[str, Any]:
        """The outcome, as Seen has it, and the JSON of the answer where there is one."""
        at = self._timeline.now()
        answer = None
        _port.set(0)
        try:
            async with session.request(method, path, **fields) as response:
                outcome = str(response.status)
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = type(error).__name__
        seen = Seen(at, self._timeline.now() - at, what, outcome, _port.get())
        self._timeline.seen.append(seen)
        await asyncio.sleep(self._pause(seen))
        return outcome, answer

    def _pause(self, seen: Seen) -> float:
        if seen.kind != SERVED and self._retry_seconds is not None:
            return self._retry_seconds
        return random.uniform(0.5, 1.5) * self._pause_seconds
