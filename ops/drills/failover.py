"""A failover: the service finds itself on a standby, which only reads, until there is a primary again."""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.common.ports import free_port
from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.probe import probing
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED, SERVED
from svc.postgres import embedded
from svc.postgres.embedded import EmbeddedPostgres

_SETTLE_SECONDS: Final = 0.5  # for what was under way when the connections were cut


@drill("database-read-only", "the database fails over: its address leads to a standby and back, then there for good")
async def fail_over(stage: Stage) -> None:
    """Each add is on the standby, and seen there, before it is acknowledged: that is what a failover may rely on."""
    primary_port, standby_port = stage.to_database.target, free_port()
    standby = stage.leaving.enter_context(_standby(stage.postgres, stage.folder / "standby", standby_port))
    async with stage.owning() as owner:
        await owner.execute("ALTER SYSTEM SET synchronous_commit = remote_apply")
        await owner.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await owner.execute("SELECT pg_reload_conf()")
    async with stage.served(), stage.calling():
        await asyncio.sleep(1)
        await _read_only(stage, standby_port)
        # Connections to the standby live on, and would be read-only for ever: the service has to leave them by itself.
        stage.to_database.target = primary_port
        await _writable(stage, "back at the primary")

        await _read_only(stage, standby_port)
        await asyncio.to_thread(stage.postgres.kill)
        stage.postgres = standby
        async with stage.owning() as owner:
            await owner.execute("SELECT pg_promote()")
        await _writable(stage, "at a new primary")
    stage.claim("callers without an honest answer", stage.timeline.count(FAILED), most=0)


async def _read_only(stage: Stage, standby_port: int) -> None:
    began = stage.timeline.mark("at the standby")
    stage.to_database.target = standby_port
    stage.to_database.reset()
    await asyncio.sleep(_SETTLE_SECONDS)
    async with probing(stage, "/get/1") as reads:
        await asyncio.sleep(stage.pick(20, 2))
    stage.claim_least("reads that the standby served", reads.count(SERVED), least=1)
    stage.claim("reads that it did not serve", len(reads.seen) - reads.count(SERVED), most=0)
    stage.claim("longest wait for one", reads.longest(), most=RECOVERY_SECONDS, unit="s")
    stage.claim_least("adds that it refused", stage.timeline.count(REFUSED, began + _SETTLE_SECONDS), least=1)


async def _writable(stage: Stage, words: str) -> None:
    back = stage.timeline.mark(words)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    stage.claim_recovery(words, back, most=RECOVERY_SECONDS)


@contextlib.contextmanager
def _standby(primary: EmbeddedPostgres, folder: Path, port: int) -> Iterator[EmbeddedPostgres]:
    """A copy of the primary that follows it."""
    standby = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    embedded.run("pg_basebackup", "--dbname", primary.dsn(), "--pgdata", standby.data, "--write-recovery-conf")
    standby.start()
    try:
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(standby.data, ignore_errors=True)
