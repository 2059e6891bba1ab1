"""How the service reaches PostgreSQL and how long it waits for it."""

from dataclasses import dataclass, fields
from typing import Final

from svc.postgres.dsn import parse

HIDDEN: Final = "(not shown)"
# The service waits for this long after the statement's time-out, which the server enforces, so that a result that the
# server has sent still arrives.
GRACE_SECONDS: Final = 1.0
POOLERS: Final = ("none", "transaction")
SERVICE_ROLES: Final = ("clients_service", "clients_service_b")  # of sql/roles.sql and sql/second_role.sql


@dataclass(frozen=True)
class DatabaseSettings:
    """How the service reaches PostgreSQL and how long it waits for it.

    Each time-out is longer than the one before it: `statement_seconds`, after which the server ends a statement;
    `command_seconds`, after which the service stops waiting for it; `deadline_seconds`, for the query as a whole; and
    the callers' own time-out.

    Attributes:
        dsn: the database's URL, which includes the password; empty where no database is configured.
        service_username: the service's role for `migrate` and `revoke`: one of SERVICE_ROLES.
        service_password: the password that `migrate` sets for that role; empty to leave it unchanged.
        pool_size: the connections of each worker process.
        connect_seconds: the longest that opening a connection to one host may take.
        acquire_seconds: the longest that a request waits for a connection.
        statement_seconds: the longest that a statement may run.
        keepalive_seconds: how long a connection is silent before the kernel probes the server; 0 for no probes.
        idle_seconds: the longest that a connection stays open without a query.
        pooler: what is in front of the server: none, or transaction, which is a pooler such as PgBouncer that gives a
            connection to the server only for a transaction.
    """

    dsn: str = ""
    service_username: str = SERVICE_ROLES[0]
    service_password: str = ""
    pool_size: int = 4
    connect_seconds: float = 2.0
    acquire_seconds: float = 1.0
    statement_seconds: float = 2.0
    keepalive_seconds: int = 30
    idle_seconds: float = 60.0  # many firewalls forget a connection after some minutes
    pooler: str = "none"

    @property
    def command_seconds(self) -> float:
        """The longest that the service waits for a statement's result."""
        return self.statement_seconds + GRACE_SECONDS

    @property
    def hosts(self) -> int:
        """The number of hosts that the URL lists."""
        return len(parse(self.dsn).addresses) if self.dsn else 1

    @property
    def deadline_seconds(self) -> float:
        """The longest from a request for a query to its result or its error."""
        return self.acquire_seconds + self.connect_seconds * self.hosts + self.command_seconds

    def __repr__(self) -> str:
        secret = ("dsn", "service_password")
        rest = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in secret)
        return f"{type(self).__name__}({', '.join(f'{name}={HIDDEN}' for name in secret)}, {rest})"
