"""The middleware that times each request, joins its trace, and adds it to the request log."""

import time
from http import HTTPStatus

from svc.http.messages import AnyResponse
from svc.http.proxies import Proxies
from svc.http.routes import Handler
from svc.telemetry import propagation
from svc.telemetry.record import CLIENT_CLOSED_REQUEST, RequestRecord
from svc.telemetry.request_log import RequestLog
from svc.telemetry.sampling import TraceSampler


class Middleware:
    """Calls the handler for each request, and records the request when it ends.

    Args:
        handler: answers the requests.
        proxies: the trusted proxies; None if there are none.
        sampler: knows which decisions of callers about traces count; None if nothing is traced.
        request_log: receives each request when it ends.
    """

    def __init__(
        self, handler: Handler, proxies: Proxies | None, sampler: TraceSampler | None, request_log: RequestLog
    ) -> None:
        self._handler = handler
        self._proxies = proxies
        self._sampler = sampler
        self._request_log = request_log

    async def __call__(self, request: RequestRecord) -> AnyResponse:
        """The handler's response."""
        request.client = request.peer if self._proxies is None else self._proxies.client_address(request)
        request.status = CLIENT_CLOSED_REQUEST
        request.body_bytes = 0
        request.round_trips = ()
        request.started = time.perf_counter()
        if self._proxies is not None and self._proxies.trusts(request.client):
            self._join_remote_trace(request)
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
            request.ended = time.perf_counter()
            request.seconds = (request.stream_started or request.ended) - request.started
            self._request_log.add(request)
        return response

    def _join_remote_trace(self, request: RequestRecord) -> None:
        """Joins the trace of a trusted caller, if its headers name one."""
        request.remote_parent = remote_parent = propagation.extract(request.headers)
        if remote_parent is not None:
            request.join_trace(remote_parent.trace_id)
            request.is_sampled = self._sampler is not None and bool(self._sampler.is_sampled(remote_parent))
            traceresponse = f"00-{request.trace_id}-{request.span_id}-{request.is_sampled:02d}"
            request.response_headers = {"traceresponse": traceresponse}
