"""The three endpoints of the API. Each parses the request, calls the store and builds the response.

URLs in responses are relative to the request's, so that they also lead here behind a proxy that serves the API under a
path of its own.
"""

from collections.abc import Mapping
from contextlib import aclosing
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

from svc.clients.model import parse_after, parse_id, parse_key, parse_limit, parse_new
from svc.clients.store import PAGE_ROWS, Page, Store
from svc.errors import InvalidField
from svc.http import compression, fields
from svc.http.compression import Coding, Identity
from svc.http.messages import AnyResponse, Request, Response, StreamedResponse
from svc.http.slots import give_up_slot, without_slot

JSON: Final = "application/json"
MAX_LIMIT: Final = PAGE_ROWS


class Endpoints:
    """The HTTP endpoints of clients."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request) -> Response:
        """`GET /get/{id}`: one client."""
        client = await self._store.get(parse_id(request.path_parameter), request)
        return Response(client + b"\n", JSON)

    async def add(self, request: Request) -> Response:
        """`POST /add`: adds a client; with an Idempotency-Key, only on the key's first use."""
        given = await fields.read(request, "name", "money", numbers=["money"])
        client = parse_new(given["name"], given["money"])
        added = await self._store.add(client, _idempotency_key(request), request)
        headers = {"Location": f"get/{added.id}"}
        if added.is_replay:
            headers["Idempotency-Replayed"] = "true"
        return Response(b'{"id":%d}\n' % added.id, JSON, HTTPStatus.CREATED, headers)

    async def getall(self, request: Request) -> AnyResponse:
        """`GET /getall`: all clients, or one page."""
        query = fields.read_query(request, "limit", "after")
        coding = compression.negotiate(request)
        if not query:
            return await self._all(request, coding)
        limit = parse_limit(query["limit"], MAX_LIMIT) if "limit" in query else MAX_LIMIT
        page = await self._store.page(parse_after(query.get("after", "0")), limit, request)
        if not page.more:
            return await _array(page, coding)
        next_page = urlencode({"limit": limit, "after": page.last_id})
        return await _array(page, coding, {"Link": f'<?{next_page}>; rel="next"'})

    async def _all(self, request: Request, coding: Coding) -> AnyResponse:
        page = await self._store.page(0, request=request)
        if not page.more:
            return await _array(page, coding)
        body = coding()
        response = StreamedResponse(request, JSON, body.headers)
        if request.method == "GET":
            await _write(request, response, await body.encode(b"[" + page.objects))
            async with aclosing(self._store.pages(page.last_id, request)) as pages:
                async for page in pages:
                    if page.objects:  # empty where the remaining clients were removed in the meantime
                        await _write(request, response, await body.encode(b"," + page.objects))
            give_up_slot(request)
            await response.write(body.end(b"]\n"))
        response.end()
        return response


async def _write(request: Request, response: StreamedResponse, part: bytes) -> None:
    """Sends a part, which waits where the caller has not read the parts before it."""
    async with without_slot(request):
        await response.write(part)


async def _array(page: Page, coding: Coding, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    body = (coding if len(page.objects) >= compression.MIN_BYTES else Identity)()
    array = await body.encode(b"[%b]\n" % page.objects) + body.end()
    return Response(array, JSON, headers={**headers, **body.headers})


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getall("Idempotency-Key", ())
    if len(keys) > 1:
        raise InvalidField("Idempotency-Key", "Idempotency-Key is given more than once; send it once.")
    return parse_key(keys[0]) if keys else None
