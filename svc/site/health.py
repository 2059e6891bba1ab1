"""The health endpoints: liveness, readiness and version."""

import asyncio
from typing import Final

import structlog

from svc import __version__
from svc.answers import in_task
from svc.clients.endpoints import JSON
from svc.clients.store import Store
from svc.errors import DatabaseNotMigrated, DatabaseRightsMissing, ServiceError
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request, Response, json_body
from svc.http.problems import NotReady
from svc.logs import names

_log = structlog.get_logger()

READY_SECONDS: Final = 2.0  # a database that takes longer counts as one that does not answer
UNAVAILABLE: Final = "The database is unavailable, or does not answer in time."
_ALIVE: Final = json_body({"status": "alive"})
_READY: Final = json_body({"status": "ready"})


class Health:
    """The endpoints for Kubernetes probes and operators."""

    def __init__(self, store: Store, lifecycle: Lifecycle, build: str) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._was_ready = False
        self._version = json_body({"version": __version__, "build": build})

    async def healthz(self, _: Request) -> Response:
        """`GET /healthz`: the process is alive. It does not query the database, whose loss a restart would not fix."""
        return Response(_ALIVE, JSON)

    async def readyz(self, _: Request) -> Response:
        """`GET /readyz`: the service takes requests.

        A new worker takes none before its database can serve them. Later it does without a database as well: the other
        instances have the same one, and a balancer without instances would only drop connections, where this service
        says what is wrong, and serves as soon as that is over.
        """
        if self._lifecycle.draining:
            raise NotReady("The service is shutting down.")
        problem = await self._problem()
        if not problem:
            self._was_ready = True
            return Response(_READY, JSON)
        if not self._was_ready:
            raise NotReady(problem)
        return Response(json_body({"status": "ready", "problem": problem}), JSON)

    async def _problem(self) -> str:
        """Why the database cannot serve requests; empty if it can."""
        await in_task()
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._store.check()
        except (DatabaseNotMigrated, DatabaseRightsMissing) as error:
            _log.warning(names.NOT_READY, error=type(error).__name__, detail=error.detail)
            return error.detail
        except (ServiceError, TimeoutError):
            return UNAVAILABLE
        return ""

    async def version(self, _: Request) -> Response:
        """`GET /version`: the version and the build that run."""
        return Response(self._version, JSON)
