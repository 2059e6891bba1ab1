"""Which handler answers which path and method."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import unquote

from svc.http.messages import AnyResponse, Request
from svc.http.problems import MethodNotAllowed, NoSuchPath

Handler: TypeAlias = Callable[[Request], Awaitable[AnyResponse]]
_Route: TypeAlias = tuple[str, dict[str, Handler]]


class Routes:
    """A table of path templates, such as `/getall` or `/get/{id}`, each with its methods' handlers.

    A template may end in one parameter, which takes one segment; it reaches the handler as `request.tail`.
    A path that has GET has HEAD too.

    Attributes:
        templates: all of them.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self.templates = tuple(table)
        self._exact: dict[str, _Route] = {}
        self._below: dict[str, _Route] = {}
        for template, methods in table.items():
            folder, parameter, _ = template.partition("/{")
            head = {"HEAD": methods["GET"]} if "GET" in methods else {}
            (self._below if parameter else self._exact)[folder] = template, {**methods, **head}

    def find(self, request: Request) -> Handler:
        """The request's handler; the request learns its route.

        Raises:
            NoSuchPath: no template has this path.
            MethodNotAllowed: one has, but not for this method.
        """
        path = request.rel_url.raw_path
        if "%" in path:
            path = unquote(path, errors="surrogateescape")
        route = self._exact.get(path)
        if route is None:
            folder, _, request.tail = path.rpartition("/")
            route = self._below.get(folder) if request.tail else None
        if route is None:
            raise NoSuchPath
        request.route, methods = route
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, ", ".join(sorted(methods)))
        return handler
