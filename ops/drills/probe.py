"""Someone who asks for one thing again and again, whatever becomes of everyone else's requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from ops.drills.stage import Stage
from ops.drills.timeline import Seen, Timeline

_PAUSE_SECONDS: Final = 0.05
_GIVE_UP_SECONDS: Final = 30.0


@contextlib.asynccontextmanager
async def probing(stage: Stage, path: str) -> AsyncIterator[Timeline]:
    """What one sees who meanwhile asks the service for this path, which changes nothing."""
    timeline = Timeline()
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS)
    url = f"http://127.0.0.1:{stage.to_service.port}"
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        asking = asyncio.create_task(_ask(session, path, timeline))
        try:
            yield timeline
        finally:
            asking.cancel()
            await asyncio.wait([asking])


async def _ask(session: aiohttp.ClientSession, path: str, timeline: Timeline) -> None:
    while True:
        at = timeline.now()
        try:
            async with session.get(path) as response:
                outcome = str(response.status)
        except (aiohttp.ClientError, OSError) as error:
            outcome = type(error).__name__
        timeline.seen.append(Seen(at, timeline.now() - at, path, outcome))
        await asyncio.sleep(_PAUSE_SECONDS)
