"""The one place that times requests, finds their traces, and sees to it that they are told of."""

import time
from http import HTTPStatus

from svc import batching
from svc.messages import Response
from svc.proxies import Proxies
from svc.routes import Handler
from svc.telemetry import origin
from svc.telemetry.entry import Entry
from svc.telemetry.journal import Journal
from svc.telemetry.origin import Sampler


class Edge:
    """Passes each request to the service's own edge, and tells of it.

    Args:
        inner: answers.
        proxies: know whose word is taken; None where nobody's is.
        sampler: decides whose traces are recorded; None where none are.
        journal: takes each request at its end.
    """

    def __init__(self, inner: Handler, proxies: Proxies | None, sampler: Sampler | None, journal: Journal) -> None:
        self._inner = inner
        self._proxies = proxies
        self._sampler = sampler
        self._journal = journal

    async def __call__(self, request: Entry) -> Response:
        """The inner edge's answer."""
        started = time.perf_counter()
        if self._proxies is None:
            request.begin(request.peer, None)
        else:
            self._look_behind(request, self._proxies)
        if self._sampler is not None and self._sampler.wants(request.trace_id, request.origin):
            request.is_sampled = True
        if request.is_sampled or request.origin is not None:
            request.traceresponse = f"00-{request.trace_id}-{request.span_id}-{request.is_sampled:02d}"
        batching.account.set(request)
        self._journal.in_flight += 1
        try:
            response = await self._inner(request)
            request.status, request.body_bytes = response.status, response.body_length
        except ConnectionError:
            raise
        except Exception as error:
            request.status, request.error = HTTPStatus.INTERNAL_SERVER_ERROR, error
            raise
        finally:
            self._journal.in_flight -= 1
            request.seconds = time.perf_counter() - started
            request.ended_at = time.time()
            self._journal.add(request)
        return response

    def _look_behind(self, request: Entry, proxies: Proxies) -> None:
        """Takes a trusted proxy's word: for who called, and for whose trace this is where it is one of ours too."""
        client = proxies.client(request)
        began = origin.find(request.headers) if proxies.trusts(client) else None
        if began is not None:
            request.join(began.trace_id)
        request.begin(client, began)
