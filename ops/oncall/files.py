"""The page's files, read once and kept in memory."""

import importlib.util
import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from aiohttp import web

_PAGE: Final = Path(__file__).parent / "page"


class NotFound(LookupError):
    """There is no such file, trace or runbook."""


class Files:
    """The page's own files and the chart library."""

    def __init__(self) -> None:
        self._bodies = {path.name: path.read_bytes() for path in (*_PAGE.iterdir(), _plotly())}
        self._tags = {name: f'"{sha256(body).hexdigest()[:16]}"' for name, body in self._bodies.items()}

    def response(self, name: str, request_headers: Mapping[str, str]) -> web.Response:
        """A file, or 304 where the browser has it already.

        Args:
            name: of the file.
            request_headers: with the entity tag of the browser's copy, if any.

        Raises:
            NotFound: there is no file with this name.
        """
        if name not in self._bodies:
            raise NotFound(f"There is no file {name}")
        headers = {"Cache-Control": "no-cache", "ETag": self._tags[name]}
        if request_headers.get("If-None-Match") == self._tags[name]:
            return web.Response(status=304, headers=headers)
        content_type = mimetypes.guess_type(name)[0] or "text/plain"
        return web.Response(body=self._bodies[name], content_type=content_type, charset="utf-8", headers=headers)


def _plotly() -> Path:
    # Not imported: only the script in the package is used.
    spec = importlib.util.find_spec("plotly")
    assert spec is not None, "plotly is a dependency"
    assert spec.submodule_search_locations, "plotly is a package"
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
