"""How the service reaches PostgreSQL and how long it waits for it."""

from dataclasses import dataclass, fields
from typing import Final

HIDDEN: Final = "(not shown)"
# Beyond the statement's own time, which the server enforces: an answer that is on its way still arrives.
GRACE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class DatabaseSettings:
    """How the service reaches PostgreSQL and how long it waits for it.

    The time-outs form a ladder: a statement ends before the service gives up on it (`command_seconds`), that happens
    before the query's deadline (`answer_seconds`), and that before the caller goes away.

    Attributes:
        dsn: the database's URL, with the password in it. Empty where no database is named.
        service_password: the password that `migrate` gives to the service's role; empty to leave it unchanged.
        pool_size: connections of each worker process.
        connect_seconds: the longest that opening a connection may take.
        acquire_seconds: the longest that a request waits for a connection.
        statement_seconds: the longest that a statement may run.
        max_queue: queries of a kind that may wait to be sent, in each worker.
    """

    dsn: str = ""
    service_password: str = ""
    pool_size: int = 4
    connect_seconds: float = 2.0
    acquire_seconds: float = 1.0
    statement_seconds: float = 2.0
    max_queue: int = 10_000

    @property
    def command_seconds(self) -> float:
        """The longest that the service waits for a statement's result."""
        return self.statement_seconds + GRACE_SECONDS

    @property
    def answer_seconds(self) -> float:
        """The longest from a query to its result, or to an error that says why there is none."""
        return self.acquire_seconds + self.connect_seconds + self.command_seconds

    def __repr__(self) -> str:
        secret = ("dsn", "service_password")
        rest = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in secret)
        return f"{type(self).__name__}({', '.join(f'{name}={HIDDEN}' for name in secret)}, {rest})"
