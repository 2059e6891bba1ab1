"""A failover: the service is connected to a read-only standby until there is a primary again."""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.common.ports import free_port
from ops.drills.database import RECOVERY_SECONDS
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.probe import probing
from ops.drills.timeline import FAILED, REFUSED, SERVED
from svc.postgres import embedded
from svc.postgres.embedded import EmbeddedPostgres

_SETTLE_SECONDS: Final = 0.5  # for requests that were in progress when connections were reset


@drill(
    "database-read-only",
    "the database fails over: its address leads to a standby, to the primary again, then to the promoted standby",
)
async def fail_over(harness: Harness) -> None:
    """Replication is synchronous: an add is visible on the standby before it is acknowledged."""
    primary_port, standby_port = harness.database_proxy.target, free_port()
    standby = harness.cleanup.enter_context(_standby(harness.postgres, harness.folder / "standby", standby_port))
    async with harness.owner() as owner:
        await owner.execute("ALTER SYSTEM SET synchronous_commit = remote_apply")
        await owner.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await owner.execute("SELECT pg_reload_conf()")
    async with harness.service(), harness.callers():
        await asyncio.sleep(1)
        await _read_only(harness, standby_port)
        # Connections to the standby stay open and would be read-only forever. The service has to close them itself.
        harness.database_proxy.target = primary_port
        await _writable(harness, "connected to the primary again")

        await _read_only(harness, standby_port)
        await asyncio.to_thread(harness.postgres.kill)
        harness.postgres = standby
        async with harness.owner() as owner:
            await owner.execute("SELECT pg_promote()")
        await _writable(harness, "connected to a new primary")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


async def _read_only(harness: Harness, standby_port: int) -> None:
    started = harness.timeline.mark("connected to the standby")
    harness.database_proxy.target = standby_port
    harness.database_proxy.reset()
    await asyncio.sleep(_SETTLE_SECONDS)
    async with probing(harness, "/get/1") as reads:
        await asyncio.sleep(harness.pick(20, 2))
    harness.claim("gets served by the standby", reads.count(SERVED), at_least=1)
    harness.claim("gets not served", reads.not_served(), at_most=0)
    harness.claim("longest wait of a get", reads.longest_wait(), at_most=RECOVERY_SECONDS, unit="s")
    harness.claim("adds refused", harness.timeline.count(REFUSED, started + _SETTLE_SECONDS), at_least=1)


async def _writable(harness: Harness, text: str) -> None:
    recovered_at = harness.timeline.mark(text)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    harness.claim_recovery(text, recovered_at, at_most=RECOVERY_SECONDS)


@contextlib.contextmanager
def _standby(primary: EmbeddedPostgres, folder: Path, port: int) -> Iterator[EmbeddedPostgres]:
    """Runs a standby that replicates the primary."""
    standby = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    embedded.run("pg_basebackup", "--dbname", primary.dsn(), "--pgdata", standby.data, "--write-recovery-conf")
    standby.start()
    try:
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(standby.data, ignore_errors=True)
