"""Cross-origin resource sharing: lets pages of chosen origins call the API from a browser.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs

from svc.http.messages import AnyResponse, Request, Response
from svc.http.problems import MethodNotAllowed
from svc.http.routes import Find, Handler

ALLOWED_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, X-Request-Id"
EXPOSED_HEADERS: Final = "Idempotency-Replayed, Link, Location, Retry-After, X-Request-Id, traceresponse"
MAX_AGE_SECONDS: Final = 600  # how long a browser keeps the answer to a preflight request


class Cors:
    """Adds the headers of CORS to each response, and responds to preflight requests.

    Access-Control-Allow-Credentials is never sent: a page sends its key itself, in Authorization.

    Args:
        origins: the origins whose pages may call the API, as browsers send them: `https://app.example`.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)

    def wrap(self, find: Find) -> Find:
        """A way to find handlers that also handles CORS."""

        def find_with_cors(request: Request) -> Handler:
            origin = request.headers.get(hdrs.ORIGIN)
            headers = {**request.response_headers, "Vary": "Origin"}
            if origin in self._origins:
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
            request.response_headers = headers
            try:
                return find(request)
            except MethodNotAllowed as error:
                if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                    return _preflight(error.allowed)
                raise

        return find_with_cors


def _preflight(methods: str) -> Handler:
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": ALLOWED_HEADERS,
        "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
    }

    async def respond(_: Request) -> AnyResponse:
        return Response(b"", "", HTTPStatus.NO_CONTENT, headers)

    return respond
