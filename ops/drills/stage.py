"""Where a drill is played: a PostgreSQL, the service, the proxies between all of them, and callers."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills import flood
from ops.drills.callers import Callers
from ops.drills.ledger import Audit, Ledger
from ops.drills.proxy import FaultProxy
from ops.drills.timeline import Timeline
from svc.postgres import maintenance
from svc.postgres.dsn import Dsn
from svc.postgres.embedded import EmbeddedPostgres

WORKERS: Final = 2
_SERVICE_ROLE: Final = "clients_service"
SEEDED: Final = 4  # clients that are there before a drill begins
_ROWS: Final = "SELECT id, name, money::text AS money FROM clients WHERE id > $1 AND name <> $2"


@dataclass(frozen=True)
class Claim:
    """Something that a drill says of what it saw.

    Attributes:
        words: what was measured.
        found: the measure.
        bound: what it may be at most, or where `at_least`, has to be.
        unit: of both.
        at_least: whether more is better.
    """

    words: str
    found: float
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound


@dataclass
class Stage:
    """What one drill has at its hands.

    Attributes:
        name: the drill's.
        folder: an empty one, for this drill.
        is_quick: whether the short form is wanted.
        postgres: a PostgreSQL of the drill's own, running, listening on TCP.
        to_database: the way from the service to it.
        to_service: the way from callers to the service.
        ledger: of the drill's adds.
        timeline: what its callers saw.
        claims: what it found.
        leaving: what is left to be undone once all is audited and the first PostgreSQL has stopped.
    """

    name: str
    folder: Path
    is_quick: bool
    postgres: EmbeddedPostgres
    to_database: FaultProxy
    to_service: FaultProxy
    ledger: Ledger
    collector_port: int
    timeline: Timeline = field(default_factory=Timeline)
    claims: list[Claim] = field(default_factory=list)
    leaving: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def claim(self, words: str, found: float, *, most: float, unit: str = "") -> None:
        """Says that something is at most so much."""
        self.claims.append(Claim(words, found, most, unit))

    def claim_least(self, words: str, found: float, *, least: float, unit: str = "") -> None:
        """Says that something is at least so much."""
        self.claims.append(Claim(words, found, least, unit, at_least=True))

    def claim_recovery(self, words: str, back: float, *, most: float, what: str = "") -> None:
        """Says how long after the moment the first caller was served, and the last one was not.

        Args:
            words: what was back.
            back: when.
            most: seconds.
            what: they asked for; whatever it was where this is empty.
        """
        timeline = self.timeline
        self.claim(f"{words}: first served again", timeline.served_again_after(back, what), most=most, unit="s")
        self.claim(f"{words}: last turned away", timeline.last_turned_away_after(back, what), most=most, unit="s")

    def pick(self, full: float, quick: float) -> float:
        """How long or how often, in full and in the short form."""
        return quick if self.is_quick else full

    @contextlib.asynccontextmanager
    async def served(self, *, stdout: int | None = None, **settings: str) -> AsyncIterator[Service]:
        """The service, with two workers and all its telemetry, reached through `to_service`.

        Args:
            stdout: a file descriptor for its log; a file of the folder where there is none.
            settings: environment variables beyond those.
        """
        async with self.instance(stdout=stdout, **settings) as service:
            self.to_service.target = service.port
            yield service

    @contextlib.asynccontextmanager
    async def instance(self, *, stdout: int | None = None, **settings: str) -> AsyncIterator[Service]:
        """An instance of the service, one of several perhaps. For its arguments see served()."""
        number = len(list(self.folder.glob("service-*.log")))
        with (self.folder / f"service-{number}.log").open("wb") as log:
            out = log.fileno() if stdout is None else stdout
            service = Service({**self._environment(), **settings}, stdout=out)
            try:
                await asyncio.to_thread(service.wait_until_listening)
                yield service
            finally:
                await asyncio.to_thread(service.end)

    @contextlib.asynccontextmanager
    async def calling(
        self,
        count: int = 16,
        pause_seconds: float = 0.05,
        retry_seconds: float | None = None,
        port: int | None = None,
    ) -> AsyncIterator[None]:
        """Callers on the way to the service, meanwhile, or of another port of 127.0.0.1; see Callers."""
        url = f"http://127.0.0.1:{port or self.to_service.port}"
        callers = Callers(
            url, self.ledger, self.timeline, count, pause_seconds=pause_seconds, retry_seconds=retry_seconds
        )
        async with callers.calling():
            yield

    @contextlib.asynccontextmanager
    async def owning(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A connection of the database's owner, not by way of the proxy."""
        connection = await asyncpg.connect(self.postgres.dsn())
        try:
            yield connection
        finally:
            await connection.close()

    async def audit(self) -> Audit:
        """What the ledger and the table say of each other."""
        async with self.owning() as owner:
            rows = await owner.fetch(_ROWS, SEEDED, flood.NAME)
        return self.ledger.audit((row["id"], row["name"], row["money"]) for row in rows)

    async def start_postgres(self) -> float:
        """Starts PostgreSQL again, without a pause in what goes on meanwhile, and gives the time when it answered."""
        self.postgres.launch()
        while not self.postgres.answers():  # noqa: ASYNC110 - a file on disk says so, and nobody tells of it
            await asyncio.sleep(0.002)
        return self.timeline.mark("PostgreSQL answers")

    def _environment(self) -> dict[str, str]:
        database = {
            "host": "127.0.0.1",
            "port": str(self.to_database.port),
            "user": _SERVICE_ROLE,
            "sslmode": "disable",
        }
        return {
            "DATABASE_URL": str(Dsn("postgres", database)),
            "WORKERS": str(WORKERS),
            "LOG_FORMAT": "json",
            "DRAIN_SECONDS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector_port}",
        }


@contextlib.asynccontextmanager
async def set_up(name: str, folder: Path, collector_port: int, *, is_quick: bool) -> AsyncIterator[Stage]:
    """A stage, taken down at the end, whatever happened on it."""
    port = free_port()
    server = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    with contextlib.ExitStack() as leaving:
        try:
            await maintenance.migrate(server.dsn())
            await maintenance.seed(server.dsn())
            async with FaultProxy(port).running() as database, FaultProxy(0).running() as service:
                ledger = Ledger(f"drill {name}")
                stage = Stage(name, folder, is_quick, server, database, service, ledger, collector_port)
                leaving.enter_context(stage.leaving)
                yield stage
        finally:
            server.stop()
            shutil.rmtree(server.data, ignore_errors=True)  # 40 MB of it; its log stays


@contextlib.contextmanager
def collecting(folder: Path) -> Iterator[int]:
    """The port of a collector that drops what it is sent."""
    port = free_port()
    command = [sys.executable, "-m", "ops.bench.collector", str(port)]
    with (folder / "collector.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield port
        finally:
            process.terminate()
