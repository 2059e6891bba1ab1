"""Which handler answers which path and method."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import unquote

from aiohttp import web

from svc.problems import MethodNotAllowed, NoSuchPath
from svc.protocol import Request

Handler: TypeAlias = Callable[[Request], Awaitable[web.StreamResponse]]


class Routes:
    """A table of path templates, such as `/getall` or `/get/{id}`, each with its methods' handlers.

    A template may end in one parameter, which takes one segment; it reaches the handler as `request.tail`.
    A path that has GET has HEAD too.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self._methods: dict[str, dict[str, Handler]] = {}
        for template, methods in table.items():
            head = {"HEAD": methods["GET"]} if "GET" in methods else {}
            self._methods[template.partition("{")[0]] = {**methods, **head}

    def find(self, request: Request) -> Handler:
        """The request's handler.

        Raises:
            NoSuchPath: no template has this path.
            MethodNotAllowed: one has, but not for this method.
        """
        path = request.rel_url.raw_path
        if "%" in path:
            path = unquote(path, errors="surrogateescape")
        methods = self._methods.get(path)
        if methods is None:
            parent, _, request.tail = path.rpartition("/")
            methods = self._methods.get(parent + "/") if request.tail and parent else None
        elif path != "/" and path.endswith("/"):
            methods = None  # a parameter's place, and no parameter
        if methods is None:
            raise NoSuchPath
        handler = methods.get(request.method)
        if handler is None:
            raise MethodNotAllowed(request.method, ", ".join(sorted(methods)))
        return handler
