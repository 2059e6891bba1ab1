"""Waits for a condition, however busy the machine is."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 60.0


async def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true.

    Raises:
        TimeoutError: if it never is.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.01)
