"""The PostgreSQL server that all contenders share, and its databases of clients."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from ops.common.ports import free_port
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "600",  # Flask opens one for each of 256 concurrent requests
    "shared_buffers": "1GB",  # RDS gives it a quarter of the memory of a small instance
}

_FILL: Final = """
INSERT INTO clients (name, money)
SELECT 'Client number ' || number, (number * 7919 % 2000000 - 1000000) / 100.0
FROM generate_series(1::bigint, {rows}) AS number
"""


class Database:
    """A database with clients 1 to `rows`.

    Attributes:
        name: the database's name.
        rows: the number of clients that it starts with.
        url: the connection URL.
        environment: the variables with which libpq, asyncpg, pg and pgx find it, and DATABASE_URL for this service.
    """

    def __init__(self, name: str, rows: int, port: int) -> None:
        self.name = name
        self.rows = rows
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"
        self.environment = {
            "DATABASE_URL": self.url,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGDATABASE": name,
            "PGSSLMODE": "disable",
        }

    def fill(self) -> None:
        """Creates the service's schema and the clients in the empty database."""
        asyncio.run(maintenance.migrate(self.url))
        asyncio.run(_execute(self.url, _FILL.format(rows=self.rows), "VACUUM ANALYZE", "CHECKPOINT"))

    def restore(self) -> None:
        """Deletes the clients that were added since, so that the next turn finds the same database."""
        delete = f"DELETE FROM clients WHERE id > {self.rows}"  # noqa: S608 - our own integer
        asyncio.run(_execute(self.url, delete, "VACUUM clients", "CHECKPOINT"))


@contextlib.contextmanager
def started(folder: Path) -> Iterator["Postgres"]:
    """Starts a new PostgreSQL server on TCP, with the default durability, and stops it at the end."""
    port = free_port()
    server = EmbeddedPostgres(folder, {**_SETTINGS, "port": str(port)})
    server.start()
    try:
        assert server.process is not None
        yield Postgres(port, server.process.pid)
    finally:
        server.stop()


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server.

    Attributes:
        port: on 127.0.0.1.
        pid: of the first process, from which all others descend.
    """

    port: int
    pid: int

    def database(self, rows: int) -> Database:
        """Creates a database with that many clients."""
        database = Database(f"clients_{rows}", rows, self.port)
        asyncio.run(_execute(Database("postgres", 0, self.port).url, f"CREATE DATABASE {database.name}"))
        database.fill()
        return database


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
