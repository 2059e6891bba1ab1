"""Resources of the database run out: its connections, its table by a lock, its disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from ops.drills import tmpfs
from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.probe import probing
from ops.drills.timeline import FAILED, REFUSED, SERVED

_PRODUCTION_POOL: Final = "3"  # as in k8s/base/settings.env
_TERMINATE: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clients-api'"
_WRITE: Final = "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))"
_DOWN_SECONDS: Final = 60.0  # maximum; it takes one
_HEALTH_SECONDS: Final = 1.0  # a liveness probe waits 5


@drill("connections-exhausted", "other clients take all of the database's connections, and the service loses its own")
async def exhaust_connections(harness: Harness) -> None:
    """PostgreSQL refuses new connections with 53300 until the other clients disconnect."""
    async with harness.service(), harness.callers():
        await asyncio.sleep(1)
        async with _other_clients(harness):
            taken = harness.timeline.mark("all connections are taken")
            await asyncio.sleep(harness.pick(20, 3))
            harness.claim("served without connections", harness.timeline.count(SERVED, taken), at_most=0)
            harness.claim("refused without connections", harness.timeline.count(REFUSED, taken), at_least=1)
        await _recovered(harness, "after other clients disconnected")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


@contextlib.asynccontextmanager
async def _other_clients(harness: Harness) -> AsyncIterator[None]:
    """Takes every connection, including those reserved for the owner, until the service has none."""
    async with contextlib.AsyncExitStack() as connected:
        first = await connected.enter_async_context(harness.owner())
        while True:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    await connected.enter_async_context(harness.owner())
            if not await first.fetch(_TERMINATE):
                break
        yield


@drill("table-locked", "the table is locked for longer than the statement time-out")
async def lock_table(harness: Harness) -> None:
    """A lock against adds does not affect gets. A lock against all statements does not affect liveness."""
    async with harness.service(DB_POOL_SIZE=_PRODUCTION_POOL), harness.callers():
        await asyncio.sleep(1)
        async with probing(harness, "/get/1") as reads:
            await _locked(harness, "SHARE")
        harness.claim("gets not served while adds are locked out", reads.not_served(), at_most=0)
        harness.claim(
            "longest wait of a get while adds are locked out", reads.longest_wait(), at_most=RECOVERY_SECONDS, unit="s"
        )

        async with probing(harness, "/healthz") as health:
            await _locked(harness, "ACCESS EXCLUSIVE")
        harness.claim("responses of /healthz other than 200", health.not_served(), at_most=0)
        harness.claim("longest wait for /healthz", health.longest_wait(), at_most=_HEALTH_SECONDS, unit="s")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


async def _locked(harness: Harness, mode: str) -> None:
    async with harness.owner() as owner, owner.transaction():
        await owner.execute(f"LOCK TABLE clients IN {mode} MODE")
        locked = harness.timeline.mark(f"table locked: {mode}")
        await asyncio.sleep(harness.pick(20, 3))
        harness.claim(f"refused during {mode}", harness.timeline.count(REFUSED, locked), at_least=1)
    await _recovered(harness, f"after {mode} was released")


@drill("disk-full", "the disk of the database's write-ahead log is full", missing=tmpfs.missing)
async def fill_disk(harness: Harness) -> None:
    """PostgreSQL cannot write its log: it panics, and it cannot start until there is space again."""
    harness.postgres.stop()
    disk = harness.cleanup.enter_context(tmpfs.mounted(harness.folder / "disk"))
    tmpfs.move(harness.postgres.data / "pg_wal", disk)
    harness.postgres.start()
    async with harness.service(), harness.callers():
        await asyncio.sleep(1)
        ballast = tmpfs.fill(disk)
        harness.timeline.mark("the disk is full")
        async with asyncio.timeout(_DOWN_SECONDS):
            await _write_until_down(harness)
        down = harness.timeline.mark("PostgreSQL is down")
        await asyncio.sleep(harness.pick(10, 3))
        harness.claim("served while it is down", harness.timeline.count(SERVED, down), at_most=0)
        harness.claim("refused while it is down", harness.timeline.count(REFUSED, down), at_least=1)
        ballast.unlink()
        await _recovered(harness, "after space was freed", await harness.start_postgres())
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


async def _write_until_down(harness: Harness) -> None:
    """Writes to PostgreSQL's log until PostgreSQL exits. After a panic it may find space, which this fills as well."""
    assert harness.postgres.process is not None
    while harness.postgres.process.poll() is None:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with harness.owner() as owner:
                while True:
                    await owner.execute(_WRITE)
        await asyncio.sleep(0.01)


async def _recovered(harness: Harness, cause: str, recovered_at: float | None = None) -> None:
    recovered_at = recovered_at or harness.timeline.mark(cause)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    harness.claim_recovery(cause, recovered_at, at_most=RECOVERY_SECONDS)
