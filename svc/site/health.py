"""Whether the service lives, whether it can take requests, and which version it is."""

import asyncio
import json
from typing import Final

import asyncpg
import structlog

from svc import __version__
from svc.clients.endpoints import JSON
from svc.clients.store import Store
from svc.errors import ServiceError
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request, Response
from svc.http.problems import NotReady
from svc.logs import names
from svc.logs.setup import shorten

_log = structlog.get_logger()

READY_SECONDS: Final = 2.0  # a probe that waits longer has its answer


class Health:
    """The pages that probes and people ask."""

    def __init__(self, store: Store, lifecycle: Lifecycle, build: str) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._version = json.dumps({"version": __version__, "build": build}).encode()

    async def healthz(self, _: Request) -> Response:
        """`GET /healthz`: the process lives. It never asks the database, whose loss no restart would mend."""
        return Response(b'{"status": "alive"}', JSON)

    async def readyz(self, _: Request) -> Response:
        """`GET /readyz`: requests are welcome."""
        if self._lifecycle.draining:
            raise NotReady("The service is shutting down.")
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._store.check()
        except (ServiceError, TimeoutError):
            raise NotReady("The database does not answer.") from None
        except asyncpg.PostgresError as error:
            _log.warning(names.NOT_READY, error=type(error).__name__, detail=shorten(error))
            raise NotReady("The database answers, but is not migrated, or closed to the service's role.") from None
        return Response(b'{"status": "ready"}', JSON)

    async def version(self, _: Request) -> Response:
        """`GET /version`: what is running."""
        return Response(self._version, JSON)
