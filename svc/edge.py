"""The first and last to touch a request: finds its handler, and turns whatever is raised into an answer."""

import logging

from svc import problems
from svc.errors import ServiceError
from svc.messages import Request, Response
from svc.routes import Routes

_logger = logging.getLogger(__name__)


class Edge:
    """Answers every request that is valid HTTP."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    async def __call__(self, request: Request) -> Response:
        """The handler's answer, or the problem that kept it from answering."""
        try:
            return await self._routes.find(request)(request)
        except ServiceError as error:
            if request.answering:
                raise
            return problems.answer(error, request.id)
        except ConnectionError:
            raise  # the caller is gone
        except Exception:
            _logger.exception("request %s failed", request.id)
            if request.answering:
                raise
            return problems.answer(problems.InternalError(), request.id)
