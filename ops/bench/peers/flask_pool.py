"""Flask as in production: gunicorn with threads, and a connection pool."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue
from psycopg2.pool import ThreadedConnectionPool

app = Flask(__name__)
pool = ThreadedConnectionPool(10, 10, "")


@contextmanager
def cursor() -> Iterator[Any]:
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as opened:
            yield opened
    finally:
        pool.putconn(connection)


@app.get("/get/<int:client_id>")
def get(client_id: int) -> ResponseReturnValue:
    with cursor() as cur:
        cur.execute("SELECT id, name, money FROM clients WHERE id = %s", (client_id,))
        row = cur.fetchone()
    if row is None:
        abort(404)
    return jsonify(id=row[0], name=row[1], money=str(row[2]))


@app.post("/add")
def add() -> ResponseReturnValue:
    with cursor() as cur:
        cur.execute(
            "INSERT INTO clients (name, money) VALUES (%s, %s) RETURNING id",
            (request.args["name"], request.args["money"]),
        )
        (client_id,) = cur.fetchone()
    return jsonify(id=client_id), 201


@app.get("/getall")
def getall() -> ResponseReturnValue:
    with cursor() as cur:
        cur.execute("SELECT id, name, money FROM clients ORDER BY id")
        rows = cur.fetchall()
    return jsonify([{"id": row[0], "name": row[1], "money": str(row[2])} for row in rows])
