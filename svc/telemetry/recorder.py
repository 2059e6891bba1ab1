"""The recorder that times each request, joins its trace, and adds it to the request log."""

import time
from http import HTTPStatus

from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from svc.http.connection import Connection
from svc.http.messages import AnyResponse, Recorder
from svc.http.proxies import Proxies
from svc.telemetry import propagation
from svc.telemetry.record import CLIENT_CLOSED_REQUEST, RequestRecord
from svc.telemetry.request_log import RequestLog
from svc.telemetry.sampling import TraceSampler


class RequestRecorder(Recorder):
    """Makes a RequestRecord of each request, and adds it to the request log when it ends.

    Args:
        proxies: the trusted proxies; None if there are none.
        sampler: knows which decisions of callers about traces count; None if nothing is traced.
        request_log: receives each request when it ends.

    Attributes:
        in_flight: the number of requests that have not ended.
    """

    def __init__(self, proxies: Proxies | None, sampler: TraceSampler | None, request_log: RequestLog) -> None:
        self.in_flight = 0
        self._proxies = proxies
        self._sampler = sampler
        self._request_log = request_log

    def start(self, connection: Connection, message: RawRequestMessage, body: StreamReader) -> RequestRecord:
        """See Recorder."""
        self.in_flight += 1
        request = RequestRecord(connection, message, body)
        request.started = time.perf_counter()
        request.round_trips = ()
        if self._proxies is None:
            request.client = request.peer
        else:
            request.client = self._proxies.client_address(request)
            if self._proxies.trusts(request.client):
                self._join_remote_trace(request)
        return request

    def end(self, request: RequestRecord, response: AnyResponse | None) -> None:
        """See Recorder."""
        self.in_flight -= 1
        request.response = response
        if response is not None:
            request.status = response.status
        else:
            request.status = HTTPStatus.INTERNAL_SERVER_ERROR if request.error else CLIENT_CLOSED_REQUEST
        request.ended = ended = time.perf_counter()
        request.seconds = (request.stream_started or ended) - request.started
        self._request_log.add(request)

    def _join_remote_trace(self, request: RequestRecord) -> None:
        """Joins the trace of a trusted caller, if its headers name one."""
        request.remote_parent = remote_parent = propagation.extract(request.headers)
        if remote_parent is not None:
            request.join_trace(remote_parent.trace_id)
            request.is_sampled = self._sampler is not None and bool(self._sampler.is_sampled(remote_parent))
            traceresponse = f"00-{request.trace_id}-{request.span_id}-{request.is_sampled:02d}"
            request.response_headers = {"traceresponse": traceresponse}
