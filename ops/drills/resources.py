"""What the database needs is taken: its connections, its table, the disk for its log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from ops.drills import tmpfs
from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.probe import probing
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED, SERVED

_PRODUCTION_POOL: Final = "3"  # as in k8s/base/settings.env
_CUT: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clients-api'"
_WRITE: Final = "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))"
_DOWN_SECONDS: Final = 60.0  # it takes one
_HEALTH_SECONDS: Final = 1.0  # of the 5 that a liveness probe waits


@drill("connections-exhausted", "strangers take all of the database's connections, and the service's own are cut")
async def exhaust_connections(stage: Stage) -> None:
    """There are none until the strangers leave: PostgreSQL refuses new ones with 53300."""
    async with stage.served(), stage.calling():
        await asyncio.sleep(1)
        async with _strangers(stage):
            taken = stage.timeline.mark("all connections are taken")
            await asyncio.sleep(stage.pick(20, 3))
            stage.claim("served meanwhile", stage.timeline.count(SERVED, taken), most=0)
            stage.claim_least("refused meanwhile", stage.timeline.count(REFUSED, taken), least=1)
        await _recovered(stage, "once strangers are gone")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


@contextlib.asynccontextmanager
async def _strangers(stage: Stage) -> AsyncIterator[None]:
    """Who take each connection, also those that are reserved for the owner, until the service has none."""
    async with contextlib.AsyncExitStack() as connected:
        first = await connected.enter_async_context(stage.owning())
        while True:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    await connected.enter_async_context(stage.owning())
            if not await first.fetch(_CUT):
                break
        yield


@drill("table-locked", "someone locks the table for longer than a statement may take")
async def lock_table(stage: Stage) -> None:
    """Against adds first, which leaves reads alone; then against all, which leaves the health of the process alone."""
    async with stage.served(DB_POOL_SIZE=_PRODUCTION_POOL), stage.calling():
        await asyncio.sleep(1)
        async with probing(stage, "/get/1") as reads:
            await _locked(stage, "SHARE")
        stage.claim("reads turned away while adds are locked out", len(reads.seen) - reads.count(SERVED), most=0)
        stage.claim("longest wait of a read meanwhile", reads.longest(), most=RECOVERY_SECONDS, unit="s")

        async with probing(stage, "/healthz") as health:
            await _locked(stage, "ACCESS EXCLUSIVE")
        stage.claim("answers of /healthz other than 200", len(health.seen) - health.count(SERVED), most=0)
        stage.claim("longest wait for one", health.longest(), most=_HEALTH_SECONDS, unit="s")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


async def _locked(stage: Stage, mode: str) -> None:
    async with stage.owning() as owner, owner.transaction():
        await owner.execute(f"LOCK TABLE clients IN {mode} MODE")
        locked = stage.timeline.mark(f"table locked: {mode}")
        await asyncio.sleep(stage.pick(20, 3))
        stage.claim_least("turned away meanwhile", stage.timeline.count(REFUSED, locked), least=1)
    await _recovered(stage, f"once {mode} is released")


@drill("disk-full", "the disk of the database's log is full", lacks=tmpfs.lacks)
async def fill_disk(stage: Stage) -> None:
    """PostgreSQL cannot write ahead any more: it panics, and cannot start before there is room again."""
    stage.postgres.stop()
    disk = stage.leaving.enter_context(tmpfs.mounted(stage.folder / "disk"))
    tmpfs.move(stage.postgres.data / "pg_wal", disk)
    stage.postgres.start()
    async with stage.served(), stage.calling():
        await asyncio.sleep(1)
        ballast = tmpfs.fill(disk)
        stage.timeline.mark("disk full")
        async with asyncio.timeout(_DOWN_SECONDS):
            await _write_until_down(stage)
        down = stage.timeline.mark("PostgreSQL is down")
        await asyncio.sleep(stage.pick(10, 3))
        stage.claim("served while it is down", stage.timeline.count(SERVED, down), most=0)
        stage.claim_least("refused while it is down", stage.timeline.count(REFUSED, down), least=1)
        ballast.unlink()
        await _recovered(stage, "once there is room", await stage.start_postgres())
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


async def _write_until_down(stage: Stage) -> None:
    """Writes into PostgreSQL's log until it ends; whatever room it finds after a panic is soon taken too."""
    assert stage.postgres.process is not None
    while stage.postgres.process.poll() is None:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with stage.owning() as owner:
                while True:
                    await owner.execute(_WRITE)
        await asyncio.sleep(0.01)


async def _recovered(stage: Stage, words: str, back: float | None = None) -> None:
    back = back or stage.timeline.mark(words)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    stage.claim_recovery(words, back, most=RECOVERY_SECONDS)
