"""How much memory the service's workers hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ops.common.process import Service


@contextlib.asynccontextmanager
async def watching(service: Service) -> AsyncIterator[list[float]]:
    """What the largest worker holds, in MB, looked at twice a second."""
    held: list[float] = []

    async def look() -> None:
        while True:
            held.append(max(service.memory()) / 2**20)
            await asyncio.sleep(0.5)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    try:
        yield held
    finally:
        looking.cancel()
