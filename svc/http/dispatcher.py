"""The first and last to touch a request: finds its handler, and turns whatever is raised into an answer."""

import structlog

from svc.errors import ServiceError
from svc.http import problems
from svc.http.messages import AnyResponse, Request
from svc.http.routes import Routes
from svc.logs import names

_log = structlog.get_logger()


class Dispatcher:
    """Answers every request."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    async def __call__(self, request: Request) -> AnyResponse:
        """The handler's answer, or the problem that kept it from answering."""
        if request.refusal is not None:
            request.route = "not_http"
            request.error = request.refusal
            refused = problems.response(request.refusal, request.id)
            refused.keep_alive = False  # where the next request would start, nobody knows
            return refused
        try:
            return await self._routes.find(request)(request)
        except ServiceError as error:
            # Without the frames that it came through, which know the request: else only the garbage collector, which
            # seldom comes, would free the two.
            request.error = error.with_traceback(None)
            if request.answering:
                raise
            return problems.response(error, request.id)
        except ConnectionError:
            raise  # the caller is gone
        except Exception as error:
            request.error = error
            _log.exception(names.REQUEST_FAILED, route=request.route, request_id=request.id)
            if request.answering:
                raise
            return problems.response(problems.InternalError(), request.id)
