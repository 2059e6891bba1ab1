"""BlackSheep with an asyncpg pool and orjson, for Granian with uvloop."""

from collections.abc import AsyncIterator

import asyncpg
import orjson
from blacksheep import Application, Response, get, json, post
from blacksheep.settings.json import json_settings

json_settings.use(dumps=lambda value: orjson.dumps(value).decode())  # type: ignore[no-untyped-call]
app = Application()


@app.lifespan  # type: ignore[untyped-decorator]
async def pool(app: Application) -> AsyncIterator[None]:
    async with asyncpg.create_pool() as pool:
        app.services.register(asyncpg.Pool, instance=pool)
        yield


@get("/get/{client_id}")
async def get_client(client_id: int, pool: asyncpg.Pool) -> Response:
    row = await pool.fetchrow("SELECT id, name, money::text FROM clients WHERE id = $1", client_id)
    return json({"error": "no such client"}, 404) if row is None else json(dict(row))


@post("/add")
async def add(name: str, money: str, pool: asyncpg.Pool) -> Response:
    statement = "INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id"
    return json({"id": await pool.fetchval(statement, name, money)}, 201)


@get("/getall")
async def getall(pool: asyncpg.Pool) -> Response:
    rows = await pool.fetch("SELECT id, name, money::text FROM clients ORDER BY id")
    return json([dict(row) for row in rows])
