"""The pages for people: the front page, the OpenAPI description and Swagger UI, all from files on this machine."""

import importlib.util
import json
import mimetypes
from pathlib import Path
from typing import Final

from svc import __version__
from svc.clients.endpoints import JSON
from svc.http.messages import Request, Response
from svc.http.problems import NoSuchPath
from svc.http.proxies import Proxies
from svc.site import openapi

_PAGES: Final = Path(__file__).parent / "pages"
_OWN_ASSETS: Final = ("docs.js", "style.css")
_SWAGGER_ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css")
_HEADERS: Final = {
    # Swagger UI has icons as data: URLs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # A key may be typed in here, so no other site's window that opened the page keeps a hold on it.
    "Cross-Origin-Opener-Policy": "same-origin",
}
# For a year, a browser that saw a page by HTTPS asks for this host in no other way (RFC 6797); of its other ports and
# of names below it, nothing is known here. By plain HTTP it must not be said, and there it would not be heeded.
_HTTPS_FROM_NOW_ON: Final = {"Strict-Transport-Security": "max-age=31536000"}


class Docs:
    """What the service tells about itself, read once and kept in memory.

    Args:
        proxies: whose word is taken on whether a request came by HTTPS.
        wants_key: whether the API wants a key.
    """

    def __init__(self, proxies: Proxies, *, wants_key: bool) -> None:
        self._proxies = proxies
        self._openapi = json.dumps(openapi.describe(wants_key=wants_key)).encode()
        self._home = _page("home.html")
        self._docs = _page("docs.html")
        swagger = _swagger_folder()
        self._assets = {
            **{name: (_PAGES / name).read_bytes() for name in _OWN_ASSETS},
            **{name: (swagger / name).read_bytes() for name in _SWAGGER_ASSETS},
        }

    async def home(self, request: Request) -> Response:
        """`GET /`: what this is, for a person."""
        return self._html(request, self._home)

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`: the OpenAPI description."""
        return Response(self._openapi, JSON)

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: Swagger UI."""
        return self._html(request, self._docs)

    async def asset(self, request: Request) -> Response:
        """`GET /docs/{asset}`: a script or a style of the pages."""
        asset = self._assets.get(request.tail)
        if asset is None:
            raise NoSuchPath
        content_type = f"{mimetypes.guess_type(request.tail)[0]}; charset=utf-8"
        return Response(asset, content_type, headers={**_HEADERS, "Cache-Control": "max-age=300"})

    def _html(self, request: Request, page: bytes) -> Response:
        headers = _HEADERS | (_HTTPS_FROM_NOW_ON if self._proxies.is_https(request) else {})
        return Response(page, "text/html; charset=utf-8", headers=headers)


def _page(name: str) -> bytes:
    return (_PAGES / name).read_text(encoding="utf-8").replace("{{version}}", __version__).encode()


def _swagger_folder() -> Path:
    # Found rather than imported: of swagger-ui-py only the files are wanted, not its framework glue.
    spec = importlib.util.find_spec("swagger_ui")
    assert spec is not None, "swagger-ui-py is a dependency"
    assert spec.submodule_search_locations, "swagger-ui-py is a package"
    return Path(spec.submodule_search_locations[0]) / "static"
