"""The PostgreSQL that all contenders share, and its clients."""

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
    "max_connections": "600",  # Flask opens one for each request, and 256 are under way at once
    "shared_buffers": "1GB",  # the quarter of its memory that RDS gives a small instance
}

_FILL: Final = """
INSERT INTO clients (name, money)
SELECT 'Client number ' || number, (number * 7919 % 2000000 - 1000000) / 100.0
FROM generate_series(1::bigint, {rows}) AS number
"""


class Database:
    """A database with clients 1 to `rows`.

    Attributes:
        name: its name.
        rows: how many clients it starts with.
        environment: how libpq, asyncpg, pg and pgx, and by DATABASE_URL this service, find it.
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
        """Gives the database, which has to be empty, the service's schema and the clients."""
        asyncio.run(maintenance.migrate(self.url))
        asyncio.run(_execute(self.url, _FILL.format(rows=self.rows), "VACUUM ANALYZE", "CHECKPOINT"))

    def restore(self) -> None:
        """Forgets the clients that were added since, so that whoever comes next finds the same."""
        forget = f"DELETE FROM clients WHERE id > {self.rows}"  # noqa: S608 - a whole number of our own
        asyncio.run(_execute(self.url, forget, "VACUUM clients", "CHECKPOINT"))


@contextlib.contextmanager
def started(folder: Path) -> Iterator["Postgres"]:
    """A new PostgreSQL, as durable as its defaults make it, on TCP, as the contenders would find it elsewhere."""
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
    """A PostgreSQL that runs.

    Attributes:
        port: where on loopback.
        pid: of the process that all its others descend from.
    """

    port: int
    pid: int

    def database(self, rows: int) -> Database:
        """A new database with that many clients."""
        made = Database(f"clients_{rows}", rows, self.port)
        asyncio.run(_execute(Database("postgres", 0, self.port).url, f"CREATE DATABASE {made.name}"))
        made.fill()
        return made


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
