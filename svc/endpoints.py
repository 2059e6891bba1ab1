"""The three endpoints of the API: parse, ask, answer."""

from contextlib import aclosing
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from svc import fields
from svc.clients import parse_after, parse_id, parse_key, parse_limit, parse_new
from svc.errors import InvalidField
from svc.protocol import Request
from svc.store import PAGE_ROWS, Page, Store

JSON: Final = "application/json"
LIMIT_MAX: Final = PAGE_ROWS


class Endpoints:
    """The clients over HTTP."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request) -> web.Response:
        """`GET /get/{id}`: one client."""
        client = await self._store.get(parse_id(request.tail))
        return web.Response(body=client, content_type=JSON)

    async def add(self, request: Request) -> web.Response:
        """`POST /add`: adds a client, once per Idempotency-Key where one is given."""
        given = await fields.read(request, "name", "money", numbers=["money"])
        client = parse_new(given["name"], given["money"])
        added = await self._store.add(client, _idempotency_key(request))
        return web.Response(
            status=201, body=b'{"id": %d}' % added, content_type=JSON, headers={"Location": f"/get/{added}"}
        )

    async def getall(self, request: Request) -> web.StreamResponse:
        """`GET /getall`: all clients, or one page of them."""
        query = fields.read_query(request, "limit", "after")
        if not query:
            return await self._all(request)
        limit = parse_limit(query["limit"], LIMIT_MAX) if "limit" in query else LIMIT_MAX
        page = await self._store.page(parse_after(query.get("after", "0")), limit)
        response = _array(page)
        if page.more:
            following = urlencode({"limit": limit, "after": page.last_id})
            response.headers["Link"] = f'</getall?{following}>; rel="next"'
        return response

    async def _all(self, request: Request) -> web.StreamResponse:
        page = await self._store.page(0)
        if not page.more:
            return _array(page)
        response = web.StreamResponse()
        response.content_type = JSON
        await response.prepare(request)
        if request.method == "GET":
            await response.write(b"[" + page.objects)
            async with aclosing(self._store.pages(page.last_id)) as pages:
                async for page in pages:
                    if page.objects:  # empty where what followed was removed meanwhile
                        await response.write(b"," + page.objects)
            await response.write(b"]")
        await response.write_eof()
        return response


def _array(page: Page) -> web.Response:
    return web.Response(body=b"[" + page.objects + b"]", content_type=JSON)


def _idempotency_key(request: Request) -> str | None:
    keys = request.headers.getall("Idempotency-Key", ())
    if len(keys) > 1:
        raise InvalidField("Idempotency-Key", "Idempotency-Key is given twice; give it once.")
    return parse_key(keys[0]) if keys else None
