"""Finds the handler of a path and a method."""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, TypeAlias
from urllib.parse import unquote

from svc.http import fields
from svc.http.messages import AnyResponse, Request
from svc.http.problems import MethodNotAllowed, NoSuchPath

Handler: TypeAlias = Callable[[Request], Awaitable[AnyResponse]]
Find: TypeAlias = Callable[[Request], Handler]
_Route: TypeAlias = tuple[str, dict[str, Handler]]
_ENCODED_SLASH: Final = re.compile("%2F", re.IGNORECASE)


class Routes:
    """A table of path templates, such as `/getall` or `/get/{id}`, each with its methods' handlers.

    A template may end in one parameter, which matches one path segment. Handlers read it as `request.path_parameter`.
    A path with GET also has HEAD.

    Args:
        table: the templates, their methods and their handlers.
        with_query: the templates whose handlers read fields from the query. Elsewhere, every field is unknown.

    Attributes:
        templates: all path templates.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]], with_query: Collection[str] = ()) -> None:
        self.templates = tuple(table)
        self._with_query = frozenset(with_query)
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
            InvalidField: there is a query where none is read.
        """
        url = request.rel_url
        path = url.raw_path
        if "%" in path:
            if _ENCODED_SLASH.search(path):  # part of a segment, not a separator (RFC 3986, section 2.2)
                raise NoSuchPath
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
        if url.raw_query_string and request.route not in self._with_query:
            fields.read_query(request)
        return handler
