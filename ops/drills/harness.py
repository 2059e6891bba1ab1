"""The harness of a drill: PostgreSQL, the service, a proxy in front of each, and callers."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills import flood
from ops.drills.callers import Callers
from ops.drills.claim import Claim
from ops.drills.ledger import Audit, Ledger
from ops.drills.proxy import FaultProxy
from ops.drills.timeline import Timeline
from svc.postgres import maintenance
from svc.postgres.dsn import Dsn
from svc.postgres.embedded import EmbeddedPostgres

WORKERS: Final = 2
_SERVICE_ROLE: Final = "clients_service"
_SLOW_FACTOR: Final = 3
SEEDED: Final = 4  # clients that exist before a drill starts
_ROWS: Final = "SELECT id, name, money::text AS money FROM clients WHERE id > $1 AND name <> $2"


@dataclass
class Harness:
    """Everything that one drill works with.

    Attributes:
        folder: empty, for this drill only.
        is_quick: whether to run the short form.
        postgres: a running PostgreSQL of this drill only. It listens on TCP.
        database_proxy: between the service and PostgreSQL.
        service_proxy: between callers and the service.
        ledger: the adds of the drill.
        timeline: what its callers saw.
        claims: what it measured.
        cleanup: closed after the audit, once the first PostgreSQL has stopped.
    """

    folder: Path
    is_quick: bool
    postgres: EmbeddedPostgres
    database_proxy: FaultProxy
    service_proxy: FaultProxy
    ledger: Ledger
    collector_port: int
    timeline: Timeline = field(default_factory=Timeline)
    claims: list[Claim] = field(default_factory=list)
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def claim(
        self,
        description: str,
        measured: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        unit: str = "",
    ) -> None:
        """Adds a claim. See Claim for the arguments."""
        self.claims.append(Claim(description, measured, at_most, at_least, unit))

    def claim_recovery(self, cause: str, recovered_at: float, *, at_most: float) -> None:
        """Claims how soon the first request is served after a recovery, and when the last one is not served.

        Args:
            cause: what recovered.
            recovered_at: when.
            at_most: seconds.
        """
        timeline = self.timeline
        self.claim(f"{cause}: first served", timeline.first_served_after(recovered_at), at_most=at_most, unit="s")
        self.claim(f"{cause}: last not served", timeline.last_not_served_after(recovered_at), at_most=at_most, unit="s")

    def pick(self, full: float, quick: float) -> float:
        """Returns the duration or the count for the form of this run, full or quick."""
        return quick if self.is_quick else full

    def on_any_machine(self, limit: float) -> float:
        """Returns a limit on time that the CPU takes: the quick form allows for machines that are slow or busy."""
        return self.pick(limit, _SLOW_FACTOR * limit)

    @contextlib.asynccontextmanager
    async def service(self, *, stdout: int | None = None, **settings: str) -> AsyncIterator[Service]:
        """Runs the service behind `service_proxy`, with two workers and all its telemetry.

        Args:
            stdout: a file descriptor for its log. Without one, the log goes to a file in the folder.
            settings: more environment variables.
        """
        async with self.instance(stdout=stdout, **settings) as service:
            self.service_proxy.target = service.port
            yield service

    @contextlib.asynccontextmanager
    async def instance(self, *, stdout: int | None = None, **settings: str) -> AsyncIterator[Service]:
        """Runs an instance of the service, for drills that need several. Takes the arguments of service()."""
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
    async def callers(
        self,
        count: int = 16,
        pause_seconds: float = 0.05,
        retry_seconds: float | None = None,
        port: int | None = None,
        sources: Sequence[str] = ("127.0.0.1",),
    ) -> AsyncIterator[None]:
        """Runs callers against `service_proxy`, or against another port of 127.0.0.1. See Callers."""
        callers = Callers(
            f"http://127.0.0.1:{port or self.service_proxy.port}",
            self.ledger,
            self.timeline,
            count,
            pause_seconds=pause_seconds,
            retry_seconds=retry_seconds,
            sources=sources,
        )
        async with callers.running():
            yield

    @contextlib.asynccontextmanager
    async def owner(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Opens a connection as the database's owner. It does not go through the proxy."""
        connection = await asyncpg.connect(self.postgres.dsn())
        try:
            yield connection
        finally:
            await connection.close()

    async def audit(self) -> Audit:
        """Compares the ledger with the table."""
        async with self.owner() as owner:
            rows = await owner.fetch(_ROWS, SEEDED, flood.NAME)
        return self.ledger.audit((row["id"], row["name"], row["money"]) for row in rows)

    async def start_postgres(self) -> float:
        """Starts PostgreSQL again while callers go on. Returns the time at which it accepted connections."""
        self.postgres.launch()
        while not self.postgres.answers():  # noqa: ASYNC110 - a file on disk shows it, and no event
            await asyncio.sleep(0.002)
        return self.timeline.mark("PostgreSQL accepts connections")

    def _environment(self) -> dict[str, str]:
        database = {
            "host": "127.0.0.1",
            "port": str(self.database_proxy.port),
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
async def set_up(name: str, folder: Path, collector_port: int, *, is_quick: bool) -> AsyncIterator[Harness]:
    """Sets up the harness of a drill and always tears it down."""
    port = free_port()
    server = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    with contextlib.ExitStack() as cleanup:
        try:
            await maintenance.migrate(server.dsn())
            await maintenance.seed(server.dsn())
            async with FaultProxy(port).running() as database, FaultProxy(0).running() as service:
                ledger = Ledger(f"drill {name}")
                harness = Harness(folder, is_quick, server, database, service, ledger, collector_port)
                cleanup.enter_context(harness.cleanup)
                yield harness
        finally:
            server.stop()
            shutil.rmtree(server.data, ignore_errors=True)  # 40 MB; the server's log stays


@contextlib.contextmanager
def trace_collector(folder: Path) -> Iterator[int]:
    """Runs a collector that discards all traces. Yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "ops.bench.collector", str(port)]
    with (folder / "collector.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield port
        finally:
            process.terminate()
