"""A caller that repeats one request, independent of all other callers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from ops.drills.harness import Harness
from ops.drills.timeline import Request, Timeline

_PAUSE_SECONDS: Final = 0.05
_GIVE_UP_SECONDS: Final = 30.0


@contextlib.asynccontextmanager
async def probing(harness: Harness, path: str) -> AsyncIterator[Timeline]:
    """Repeats a GET of this path and yields the timeline of these requests."""
    timeline = Timeline()
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS)
    url = f"http://127.0.0.1:{harness.service_proxy.port}"
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        probe = asyncio.create_task(_probe(session, path, timeline))
        try:
            yield timeline
        finally:
            probe.cancel()
            await asyncio.wait([probe])


async def _probe(session: aiohttp.ClientSession, path: str, timeline: Timeline) -> None:
    while True:
        sent_at = timeline.now()
        try:
            async with session.get(path) as response:
                outcome = str(response.status)
        except (aiohttp.ClientError, OSError) as error:
            outcome = type(error).__name__
        timeline.requests.append(Request(sent_at, timeline.now() - sent_at, outcome))
        await asyncio.sleep(_PAUSE_SECONDS)
