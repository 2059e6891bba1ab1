"""Locks in PostgreSQL, for tests of what waits behind them."""

import asyncio

from tests.conftest import Owner

_WAIT_SECONDS = 60


async def wait_for_locks(owner: Owner, waiting: int) -> None:
    """Waits until so many statements wait for a lock."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(_WAIT_SECONDS):
        while await owner.fetchval(query) < waiting:  # noqa: ASYNC110 - PostgreSQL has no event for it
            await asyncio.sleep(0.01)
