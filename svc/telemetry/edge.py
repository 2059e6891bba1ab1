"""The one place that times requests, finds their traces, and sees to it that they are told of."""

import random
import time
from http import HTTPStatus
from typing import Final

from svc import batching
from svc.messages import Request, Response
from svc.proxies import Proxies
from svc.routes import Handler
from svc.telemetry import origin
from svc.telemetry.entry import Entry
from svc.telemetry.journal import Journal
from svc.telemetry.origin import Sampler

CALLER_GONE: Final = 499  # as nginx and many dashboards call it


class Edge:
    """Passes each request to the service's own edge, and tells of it.

    Args:
        inner: answers.
        proxies: know whose word is taken.
        sampler: decides whose traces are recorded; None where none are.
        journal: takes each request at its end.
    """

    def __init__(self, inner: Handler, proxies: Proxies, sampler: Sampler | None, journal: Journal) -> None:
        self._inner = inner
        self._proxies = proxies
        self._sampler = sampler
        self._journal = journal

    async def __call__(self, request: Request) -> Response:
        """The inner edge's answer."""
        started = time.perf_counter()
        entry = Entry(request, self._proxies.client(request))
        if self._proxies.trusts(entry.client):
            self._join(entry)
        if self._sampler is not None and self._sampler.wants(request.trace_id, entry.origin):
            entry.is_sampled = True
        if entry.is_sampled or entry.origin is not None:
            request.traceresponse = f"00-{request.trace_id}-{entry.span_id}-{entry.is_sampled:02d}"
        batching.account.set(entry)
        self._journal.in_flight += 1
        entry.status, entry.body_bytes = CALLER_GONE, 0
        try:
            response = await self._inner(request)
            entry.status, entry.body_bytes = response.status, response.body_length
        except ConnectionError:
            raise
        except Exception as error:
            entry.status, request.error = HTTPStatus.INTERNAL_SERVER_ERROR, error
            raise
        finally:
            self._journal.in_flight -= 1
            entry.seconds = time.perf_counter() - started
            entry.ended_at = time.time()
            self._journal.add(entry)
        return response

    def _join(self, entry: Entry) -> None:
        """Makes the request part of the trace that it says it is, where it says so."""
        entry.origin = origin.find(entry.request.headers)
        if entry.origin is not None:
            entry.request.join(entry.origin.trace_id)
            entry.span_id = f"{random.getrandbits(64) or 1:016x}"
