"""PostgreSQL is killed, crashes or is stopped and starts again; its host is replaced."""

import asyncio
import contextlib
from typing import Final

import psutil

from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.timeline import FAILED
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings

RECOVERY_SECONDS: Final = 1.0
_SHORT_SECONDS: Final = 1.0  # a black hole shorter than the statement time-out, so that nothing times out in it


@drill("database-killed", "PostgreSQL is killed, crashes or is stopped, again and again")
async def kill_database(harness: Harness) -> None:
    """The three take turns. Every second time, PostgreSQL starts again at once."""
    methods = (("is killed", _kill), ("crashes", EmbeddedPostgres.kill), ("is stopped", EmbeddedPostgres.stop))
    first: list[float] = []
    last: list[float] = []
    async with harness.service(), harness.callers():
        for number in range(int(harness.pick(20, 3))):
            await asyncio.sleep(0.5)
            text, end = methods[number % len(methods)]
            harness.timeline.mark(f"PostgreSQL {text}")
            await asyncio.to_thread(end, harness.postgres)
            await asyncio.sleep(number % 2)
            recovered_at = await harness.start_postgres()
            await asyncio.sleep(1.5 * RECOVERY_SECONDS)
            first.append(harness.timeline.first_served_after(recovered_at))
            last.append(harness.timeline.last_not_served_after(recovered_at))
    harness.claim("first served after recovery, at worst", max(first), at_most=RECOVERY_SECONDS, unit="s")
    harness.claim("last not served after recovery, at worst", max(last), at_most=RECOVERY_SECONDS, unit="s")
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


def _kill(postgres: EmbeddedPostgres) -> None:
    """Sends SIGKILL to all its processes, so that none can shut down in order."""
    process, postgres.process = postgres.process, None
    assert process is not None
    backends = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for backend in backends:
        with contextlib.suppress(psutil.NoSuchProcess):  # it exited because its parent did
            backend.kill()
    process.wait()
    psutil.wait_procs(backends)


@drill("database-black-hole", "the database's network swallows everything, and its host is replaced")
async def black_hole(harness: Harness) -> None:
    """No packet and no reset arrives until the same host recovers or another host replaces it.

    The other host does not know earlier connections. Either it resets them when they are used, or it never responds on
    them. In the second case, a request waits until the statement times out, and no longer.
    """
    async with harness.service(), harness.callers():
        await _swallow(harness, harness.pick(30, 4))
        recovered_at = await _heal(harness, "the same host is available again")
        harness.claim_recovery("same host", recovered_at, at_most=RECOVERY_SECONDS)

        await _swallow(harness, _SHORT_SECONDS)
        harness.database_proxy.forget(resets=True)
        recovered_at = await _heal(harness, "another host is available and resets old connections")
        harness.claim_recovery("another host", recovered_at, at_most=RECOVERY_SECONDS)

        await _swallow(harness, _SHORT_SECONDS)
        harness.database_proxy.forget(resets=False)
        recovered_at = await _heal(harness, "another host is available and never responds on old connections")
        await asyncio.sleep(DatabaseSettings().command_seconds)
        limit = DatabaseSettings().command_seconds - _SHORT_SECONDS + RECOVERY_SECONDS
        harness.claim_recovery("another host, without resets", recovered_at, at_most=limit)
    harness.claim("requests that failed", harness.timeline.count(FAILED), at_most=0)


async def _swallow(harness: Harness, seconds: float) -> None:
    await asyncio.sleep(1)
    harness.timeline.mark("black hole")
    harness.database_proxy.black_hole()
    await asyncio.sleep(seconds)


async def _heal(harness: Harness, text: str) -> float:
    harness.database_proxy.heal()
    recovered_at = harness.timeline.mark(text)
    await asyncio.sleep(2 * RECOVERY_SECONDS)
    return recovered_at
