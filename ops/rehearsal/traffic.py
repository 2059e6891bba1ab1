"""Callers of the service while releases are rolled out and back: what they got, and from which build."""

import asyncio
import contextlib
import itertools
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_CALLERS: Final = 4
_ROUNDS: Final = 20  # on one connection; then the balancer chooses a pod again
_PAUSE_SECONDS: Final = 0.05
_REQUEST_SECONDS: Final = 60  # no test of speed: this machine may be busy
_EXAMPLES: Final = 3


@dataclass
class Traffic:
    """What the callers saw.

    Attributes:
        requests: how many they sent.
        failures: of those, what went wrong with each that failed.
        added: the ids of the clients whose add was acknowledged.
        lost: those of them that the database does not have.
        without_schema: responses of a build some of whose migrations the database did not have.
        builds: how many responses each build gave to `/version`.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    added: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    without_schema: list[str] = field(default_factory=list)
    builds: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, object]:
        """Returns the figures for the report."""
        return {
            "requests": self.requests,
            "failed": len(self.failures),
            "lost": len(self.lost),
            "served_without_schema": len(self.without_schema),
            "builds": dict(self.builds),
        }

    def problem(self) -> str:
        """Says what callers should not have seen; empty if there is nothing."""
        if not self.requests:
            return "no request was sent"
        named: dict[str, Sequence[object]] = {
            "failed": self.failures,
            "acknowledged clients are lost": self.lost,
            "responses came from a build without its schema": self.without_schema,
        }
        return "; ".join(f"{len(bad)} {what}: {bad[:_EXAMPLES]}" for what, bad in named.items() if bad)


@contextlib.contextmanager
def running(url: str, hostname: str, ca: Path, database: str, needed: Mapping[str, set[str]]) -> Iterator[Traffic]:
    """Sends requests from a few callers, each on a connection of its own, while the context is open.

    Args:
        url: where to connect.
        hostname: that the certificate must have.
        ca: the CA certificates to trust.
        database: the DSN of the database's owner.
        needed: the migrations that each build needs.
    """
    traffic, stop = Traffic(), threading.Event()
    callers = _Callers(traffic, url, hostname, ssl.create_default_context(cafile=ca), database, needed)
    thread = threading.Thread(target=lambda: asyncio.run(callers.run(stop.is_set)), name="traffic")
    thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        thread.join()


@dataclass
class _Callers:
    traffic: Traffic
    url: str
    hostname: str
    tls: ssl.SSLContext
    database: str
    needed: Mapping[str, set[str]]

    async def run(self, is_stopped: Callable[[], bool]) -> None:
        await asyncio.gather(*(self._call(caller, is_stopped) for caller in range(_CALLERS)))
        connection = await asyncpg.connect(self.database)
        stored = {row["id"] for row in await connection.fetch("SELECT id FROM clients")}
        await connection.close()
        self.traffic.lost = [one for one in self.traffic.added if one not in stored]

    async def _call(self, caller: int, is_stopped: Callable[[], bool]) -> None:
        """Sends requests one after another, as a client with a keep-alive connection that it renews now and then."""
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        connection = await asyncpg.connect(self.database)
        numbers = itertools.count()
        while not is_stopped():
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout) as session:
                for number in itertools.islice(numbers, _ROUNDS):
                    await self._read_and_add(session, f"rehearsal-{caller}-{number}")
                    await self._ask_for_the_build(session, connection)
                    await asyncio.sleep(_PAUSE_SECONDS)
        await connection.close()

    async def _read_and_add(self, session: aiohttp.ClientSession, key: str) -> None:
        await self._request(session, "GET", "/get/1", 200)
        headers = {"Idempotency-Key": key}
        added = await self._request(session, "POST", "/add?name=Rehearsal&money=1", 201, headers)
        if added:
            self.traffic.added.append(added["id"])

    async def _ask_for_the_build(self, session: aiohttp.ClientSession, connection: Connection) -> None:
        # Read before the request: what is missing now was missing when the build that responds became ready.
        rows = await connection.fetch("SELECT version FROM schema_migrations")
        version = await self._request(session, "GET", "/version", 200)
        if version:
            self._check_schema(version["build"], {row["version"] for row in rows})

    def _check_schema(self, build: str, schema: set[str]) -> None:
        self.traffic.builds[build] += 1
        if missing := self.needed[build] - schema:
            self.traffic.without_schema.append(f"{build} without {', '.join(sorted(missing))}")

    async def _request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        expected: int,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Returns the response's JSON, or None if the request failed."""
        self.traffic.requests += 1
        options: dict[str, Any] = {"ssl": self.tls, "server_hostname": self.hostname, "headers": headers}
        try:
            async with session.request(method, self.url + path, **options) as response:
                if response.status == expected:
                    return await response.json()
                failure = f"{response.status} {await response.text()}"
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = f"{type(error).__name__}: {error}"
        self.traffic.failures.append(f"{method} {path}: {failure}")
        return None
