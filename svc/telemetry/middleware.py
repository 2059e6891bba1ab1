"""The middleware that times each request, joins its trace, and adds it to the request log."""

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
    """Calls the handler for each request, and records the request when it ends.

    Args:
        handler: answers the requests.
        proxies: the trusted proxies; None if there are none.
        sampler: decides which traces are recorded; None if nothing is traced.
        request_log: receives each request when it ends.
    """

    def __init__(
        self, handler: Handler, proxies: Proxies | None, sampler: Sampler | None, request_log: RequestLog
    ) -> None:
        self._handler = handler
        self._proxies = proxies
        self._sampler = sampler
        self._request_log = request_log

    async def __call__(self, request: RequestRecord) -> AnyResponse:
        """The handler's response."""
        started = time.perf_counter()
        if self._proxies is None:
            request.start(request.peer, None)
        else:
            self._join_remote_trace(request, self._proxies)
        if self._sampler is not None and self._sampler.should_sample(request.trace_id, request.remote_parent):
            request.is_sampled = True
        if request.is_sampled or request.remote_parent is not None:
            traceresponse = f"00-{request.trace_id}-{request.span_id}-{request.is_sampled:02d}"
            request.response_headers = {"traceresponse": traceresponse}
        batching.current_request.set(request)
        self._request_log.in_flight += 1
        try:
            response = await self._handler(request)
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
        """Reads the caller's address from a trusted proxy's headers; joins the remote trace of a trusted caller."""
        client = proxies.client_address(request)
        remote_parent = propagation.extract(request.headers) if proxies.trusts(client) else None
        if remote_parent is not None:
            request.join_trace(remote_parent.trace_id)
        request.start(client, remote_parent)
