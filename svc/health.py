"""Whether the service lives, whether it can take requests, and which version it is."""

import asyncio
import json
import logging
from typing import Final

import asyncpg
from aiohttp import web

from svc import __version__
from svc.endpoints import JSON
from svc.errors import ServiceError
from svc.lifecycle import Lifecycle
from svc.problems import NotReady
from svc.protocol import Request
from svc.store import Store

_logger = logging.getLogger(__name__)

READY_SECONDS: Final = 2.0  # a probe that waits longer has its answer


class Health:
    """The pages that probes and people ask."""

    def __init__(self, store: Store, lifecycle: Lifecycle, build: str) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._version = json.dumps({"version": __version__, "build": build}).encode()

    async def healthz(self, _: Request) -> web.Response:
        """`GET /healthz`: the process lives. It never asks the database, whose loss no restart would mend."""
        return web.Response(body=b'{"status": "alive"}', content_type=JSON)

    async def readyz(self, _: Request) -> web.Response:
        """`GET /readyz`: requests are welcome."""
        if self._lifecycle.draining:
            raise NotReady("The service is shutting down.")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._store.check()
        except (ServiceError, TimeoutError):
            raise NotReady("The database does not answer.") from None
        except asyncpg.PostgresError as error:
            _logger.warning("not ready: %s", error)
            raise NotReady("The database answers, but is not migrated, or closed to the service's role.") from None
        return web.Response(body=b'{"status": "ready"}', content_type=JSON)

    async def version(self, _: Request) -> web.Response:
        """`GET /version`: what is running."""
        return web.Response(body=self._version, content_type=JSON)
