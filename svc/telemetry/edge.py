"""The one place that times requests, finds their traces, and sees to it that they are told of."""

import random
import time
from http import HTTPStatus
from typing import Final

from svc import batching
from svc.messages import Request, Response
from svc.proxies import Proxies
from svc.routes import Handler
from svc.telemetry import traces
from svc.telemetry.journal import Entry, Journal
from svc.telemetry.metrics import Metrics
from svc.telemetry.traces import Origin, Sampler, Traces

CALLER_GONE: Final = 499  # as nginx and many dashboards call it


class Edge:
    """Passes each request to the service's own edge, and tells of it.

    Args:
        inner: answers.
        proxies: know whose word is taken.
        metrics: count requests under way.
        journal: takes each request at its end.
        sampler: decides which requests are recorded.
        traces: takes the spans of those; None where none is to be recorded.
    """

    def __init__(
        self,
        inner: Handler,
        proxies: Proxies,
        metrics: Metrics,
        journal: Journal,
        sampler: Sampler,
        traces: Traces | None,
    ) -> None:
        self._inner = inner
        self._proxies = proxies
        self._metrics = metrics
        self._journal = journal
        self._sampler = sampler
        self._traces = traces

    async def __call__(self, request: Request) -> Response:
        """The inner edge's answer."""
        started = time.perf_counter()
        entry = Entry()
        entry.client = self._proxies.client(request)
        entry.span_id = request.trace_id[:16]
        origin = self._join(request, entry) if self._proxies.trusts(entry.client) else None
        if self._traces is not None and self._sampler.wants(request.trace_id, origin):
            entry.context = traces.begin(request.trace_id, entry.span_id, origin)
        if origin is not None or entry.context is not None:
            request.traceresponse = f"00-{request.trace_id}-{entry.span_id}-{entry.context is not None:02d}"
        batching.account.set(entry)
        self._metrics.in_flight += 1
        status, size = CALLER_GONE, 0
        try:
            response = await self._inner(request)
            status, size = response.status, response.body_length
        except ConnectionError:
            raise
        except Exception as error:
            status, request.error = HTTPStatus.INTERNAL_SERVER_ERROR, error
            raise
        finally:
            self._metrics.in_flight -= 1
            entry.seconds = time.perf_counter() - started
            entry.ended_at = time.time()
            entry.method = request.method
            entry.route = request.route
            entry.status = int(status)
            entry.error = request.error
            entry.body_bytes = size
            entry.request_id = request.id
            entry.trace_id = request.trace_id
            self._journal.add(entry)
            if entry.context is not None and self._traces is not None:
                self._traces.served(request, entry, origin)
        return response

    def _join(self, request: Request, entry: Entry) -> Origin | None:
        """Makes the request part of the trace that it says it is, where it says so."""
        origin = traces.origin(request.headers)
        if origin is not None:
            request.join(origin.trace_id)
            entry.span_id = f"{random.getrandbits(64) or 1:016x}"
        return origin
