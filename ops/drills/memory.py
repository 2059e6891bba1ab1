"""How much memory the service's workers use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ops.common.process import Service


@contextlib.asynccontextmanager
async def memory_samples(service: Service) -> AsyncIterator[list[float]]:
    """Samples the memory of the largest worker twice per second, in MB."""
    samples: list[float] = []

    async def sample() -> None:
        while True:
            samples.append(max(service.memory()) / 2**20)
            await asyncio.sleep(0.5)

    sampling = asyncio.create_task(sample())
    await asyncio.sleep(0)
    try:
        yield samples
    finally:
        sampling.cancel()
