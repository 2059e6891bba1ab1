"""FastAPI with asyncpg, for uvicorn with uvloop and httptools."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel


class Client(BaseModel):
    id: int
    name: str
    money: Decimal


class Added(BaseModel):
    id: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool() as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/get/{client_id}")
async def get(client_id: int, request: Request) -> Client:
    row = await request.app.state.pool.fetchrow("SELECT id, name, money FROM clients WHERE id = $1", client_id)
    if row is None:
        raise HTTPException(404)
    return Client(**row)


@app.post("/add", status_code=201)
async def add(name: str, money: Decimal, request: Request) -> Added:
    client_id = await request.app.state.pool.fetchval(
        "INSERT INTO clients (name, money) VALUES ($1, $2) RETURNING id", name, money
    )
    return Added(id=client_id)


@app.get("/getall")
async def getall(request: Request) -> list[Client]:
    rows = await request.app.state.pool.fetch("SELECT id, name, money FROM clients ORDER BY id")
    return [Client(**row) for row in rows]
