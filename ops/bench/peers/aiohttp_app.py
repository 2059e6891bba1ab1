"""aiohttp with an asyncpg pool, as in a textbook."""

import os
from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import uvloop
from aiohttp import web

POOL = web.AppKey("pool", asyncpg.Pool)


async def get(request: web.Request) -> web.Response:
    client_id = int(request.match_info["id"])
    row = await request.app[POOL].fetchrow("SELECT id, name, money FROM clients WHERE id = $1", client_id)
    if row is None:
        raise web.HTTPNotFound
    return web.json_response({"id": row["id"], "name": row["name"], "money": str(row["money"])})


async def add(request: web.Request) -> web.Response:
    client_id = await request.app[POOL].fetchval(
        "INSERT INTO clients (name, money) VALUES ($1, $2) RETURNING id",
        request.query["name"],
        Decimal(request.query["money"]),
    )
    return web.json_response({"id": client_id}, status=201)


async def getall(request: web.Request) -> web.Response:
    rows = await request.app[POOL].fetch("SELECT id, name, money FROM clients ORDER BY id")
    return web.json_response([{"id": row["id"], "name": row["name"], "money": str(row["money"])} for row in rows])


async def pool(app: web.Application) -> AsyncIterator[None]:
    async with asyncpg.create_pool() as app[POOL]:
        yield


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(pool)
    app.add_routes([web.get("/get/{id}", get), web.post("/add", add), web.get("/getall", getall)])
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(), host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, loop=uvloop.new_event_loop()
    )
