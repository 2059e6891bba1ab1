"""Locks in PostgreSQL, for tests of what waits behind them."""

import asyncio

from tests.conftest import Owner
from tests.patience import PATIENCE_SECONDS


async def wait_for_locks(owner: Owner, waiting: int) -> None:
    """Waits until so many statements wait for a lock."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await owner.fetchval(query) < waiting:  # noqa: ASYNC110 - PostgreSQL has no event for it
            await asyncio.sleep(0.01)


async def cancel_waiting(owner: Owner) -> None:
    """Ends the one statement that waits for a lock as its time-out would, and as late as this is called."""
    await wait_for_locks(owner, 1)
    await owner.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted")
