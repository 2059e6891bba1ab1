"""Passes each request to its handler, and turns exceptions into responses."""

from collections import defaultdict
from collections.abc import Callable

import structlog

from svc.errors import ServiceError
from svc.http import problems
from svc.http.messages import AnyResponse, Request
from svc.http.routes import Find
from svc.http.slots import Slots
from svc.logs import names

_log = structlog.get_logger()


class Dispatcher:
    """Responds to every request.

    Args:
        find: finds the handler of a request, or raises why there is none.
        new_slots: creates the slots of a route. Each has its own, so that none waits for another: a probe is answered
            while all adds wait for a locked table.
    """

    def __init__(self, find: Find, new_slots: Callable[[], Slots]) -> None:
        self._find = find
        self._slots = defaultdict[str, Slots](new_slots)
        self._logged: Exception | None = None

    async def __call__(self, request: Request) -> AnyResponse:
        """The handler's response, or a problem that describes why there is none."""
        if request.refusal is not None:
            request.route = "not_http"
            request.error = request.refusal
            refused = problems.response(request.refusal, request.id)
            refused.keep_alive = False  # after invalid HTTP, the start of the next request is unknown
            return refused
        try:
            try:
                handler = self._find(request)
            finally:  # to refuse a request is work, too
                slots = self._slots[request.route]
                if slots.free > 0:  # as Slots.take does, without the cost of a coroutine
                    slots.free -= 1
                    request.slots = slots
                else:
                    await slots.queue(request)
            return await handler(request)
        except ServiceError as error:
            # The traceback's frames refer to the request, and the request to the error. Only the garbage collector,
            # which rarely runs, would free such a cycle.
            request.error = error.with_traceback(None)
            if request.has_response_started:
                raise
            return problems.response(error, request.id)
        except ConnectionError:
            raise  # the caller has closed the connection
        except Exception as error:
            if error is not self._logged:  # the callers of one statement share its error, which is logged once
                _log.exception(names.REQUEST_FAILED, route=request.route, request_id=request.id)
            self._logged = request.error = error.with_traceback(None)  # as above
            if request.has_response_started:
                raise
            return problems.response(problems.InternalError(), request.id)
        finally:
            if request.slots is not None:
                request.slots.release()  # as give_up_slot does
