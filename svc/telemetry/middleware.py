"""The one place that times requests, finds their traces, and sees to it that they are told of."""

import time
from http import HTTPStatus

from svc.http.messages import AnyResponse
from svc.http.proxies import Proxies
from svc.http.routes import Handler
from svc.postgres import batching
from svc.telemetry import propagation
from svc.telemetry.propagation import Sampler
from svc.telemetry.record import RequestRecord
from svc.telemetry.request_log import RequestLog


class Middleware:
    """Passes each request to the service's own edge, and tells of it.

    Args:
        inner: answers.
        proxies: know whose word is taken; None where nobody's is.
        sampler: decides whose traces are recorded; None where none are.
        request_log: takes each request at its end.
    """

    def __init__(
        self, inner: Handler, proxies: Proxies | None, sampler: Sampler | None, request_log: RequestLog
    ) -> None:
        self._inner = inner
        self._proxies = proxies
        self._sampler = sampler
        self._request_log = request_log

    async def __call__(self, request: RequestRecord) -> AnyResponse:
        """The inner edge's answer."""
        started = time.perf_counter()
        if self._proxies is None:
            request.start(request.peer, None)
        else:
            self._join_remote_trace(request, self._proxies)
        if self._sampler is not None and self._sampler.should_sample(request.trace_id, request.remote_parent):
            request.is_sampled = True
        if request.is_sampled or request.remote_parent is not None:
            request.traceresponse = f"00-{request.trace_id}-{request.span_id}-{request.is_sampled:02d}"
        batching.current_request.set(request)
        self._request_log.in_flight += 1
        try:
            response = await self._inner(request)
            request.status, request.body_bytes = response.status, response.body_length
        except ConnectionError:
            raise
        except Exception as error:
            request.status, request.error = HTTPStatus.INTERNAL_SERVER_ERROR, error
            raise
        finally:
            self._request_log.in_flight -= 1
            request.seconds = time.perf_counter() - started
            request.ended_at = time.time()
            self._request_log.add(request)
        return response

    def _join_remote_trace(self, request: RequestRecord, proxies: Proxies) -> None:
        """Takes a trusted proxy's word: for who called, and for whose trace this is where it is one of ours too."""
        client = proxies.client(request)
        remote_parent = propagation.extract(request.headers) if proxies.trusts(client) else None
        if remote_parent is not None:
            request.join_trace(remote_parent.trace_id)
        request.start(client, remote_parent)
