"""The home page, the OpenAPI description and Swagger UI, all served from files of this installation."""

import importlib.util
import mimetypes
from pathlib import Path
from typing import Final

from svc import __version__
from svc.clients.endpoints import JSON
from svc.http.messages import Request, Response, json_body
from svc.http.problems import NoSuchPath
from svc.http.proxies import Proxies
from svc.site import openapi

_PAGES: Final = Path(__file__).parent / "pages"
_OWN_ASSETS: Final = ("docs.css", "docs.js", "style.css")
_SWAGGER_ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css")
_HEADERS: Final = {
    # Swagger UI embeds its icons as data: URLs.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # Users may type a key into the page, so a window of another site that opened it gets no reference to it.
    "Cross-Origin-Opener-Policy": "same-origin",
}
# HSTS (RFC 6797): for a year, a browser that loaded a page over HTTPS uses nothing else for this host. Subdomains are
# not included, since the service knows nothing about them. A response over plain HTTP must not have the header.
_HSTS: Final = {"Strict-Transport-Security": "max-age=31536000"}


class Docs:
    """The service's documentation, read from its files once and kept in memory.

    Args:
        proxies: the trusted proxies, which report whether a request came over HTTPS.
        requires_key: whether the API requires a key.
    """

    def __init__(self, proxies: Proxies, *, requires_key: bool) -> None:
        self._proxies = proxies
        self._openapi = json_body(openapi.describe(requires_key=requires_key))
        self._home = _page("home.html")
        self._docs = _page("docs.html")
        swagger = _swagger_folder()
        self._assets = {
            **{name: (_PAGES / name).read_bytes() for name in _OWN_ASSETS},
            **{name: (swagger / name).read_bytes() for name in _SWAGGER_ASSETS},
        }

    async def home(self, request: Request) -> Response:
        """`GET /`: the home page."""
        return self._html(request, self._home)

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`: the OpenAPI description."""
        return Response(self._openapi, JSON)

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: Swagger UI."""
        return self._html(request, self._docs)

    async def asset(self, request: Request) -> Response:
        """`GET /docs/{asset}`: a script or a style sheet of the pages."""
        asset = self._assets.get(request.path_parameter)
        if asset is None:
            raise NoSuchPath
        content_type = f"{mimetypes.guess_type(request.path_parameter)[0]}; charset=utf-8"
        return Response(asset, content_type, headers=_HEADERS, cache_control="max-age=300")

    def _html(self, request: Request, page: bytes) -> Response:
        headers = _HEADERS | (_HSTS if self._proxies.is_https(request) else {})
        return Response(page, "text/html; charset=utf-8", headers=headers)


def _page(name: str) -> bytes:
    return (_PAGES / name).read_text(encoding="utf-8").replace("{{version}}", __version__).encode()


def _swagger_folder() -> Path:
    # Located without an import: only the package's static files are needed, not its web framework integrations.
    spec = importlib.util.find_spec("swagger_ui")
    assert spec is not None, "swagger-ui-py is a dependency"
    assert spec.submodule_search_locations, "swagger-ui-py is a package"
    return Path(spec.submodule_search_locations[0]) / "static"
