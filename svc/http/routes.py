"""Finds the handler of a path and a method."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import unquote

from svc.http.messages import AnyResponse, Request
from svc.http.problems import MethodNotAllowed, NoSuchPath

Handler: TypeAlias = Callable[[Request], Awaitable[AnyResponse]]
Find: TypeAlias = Callable[[Request], Handler]
_Route: TypeAlias = tuple[str, dict[str, Handler]]


class Routes:
    """A table of path templates, such as `/getall` or `/get/{id}`, each with its methods' handlers.

    A template may end in one parameter, which matches one path segment. Handlers read it as `request.path_parameter`.
    A path with GET also has HEAD.

    Attributes:
        templates: all path templates.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self.templates = tuple(table)
        self._exact: dict[str, _Route] = {}
        self._with_parameter: dict[str, _Route] = {}
        for template, methods in table.items():
            folder, parameter, _ = template.partition("/{")
            head = {"HEAD": methods["GET"]} if "GET" in methods else {}
            (self._with_parameter if parameter else self._exact)[folder] = template, {**methods, **head}

    def find(self, request: Request) -> Handler:
        """The request's handler. Also sets the request's route and path_parameter.

        Raises:
            NoSuchPath: no template matches the path.
            MethodNotAllowed: a template matches, but it does not have the method.
        """
        path = request.rel_url.raw_path
        if "%" in path:
            path = unquote(path, errors="surrogateescape")
        route = self._exact.get(path)
        if route is None:
            folder, _, request.path_parameter = path.rpartition("/")
            route = self._with_parameter.get(folder) if request.path_parameter else None
        if route is None:
            raise NoSuchPath
        request.route, methods = route
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, ", ".join(sorted(methods)))
        return handler
