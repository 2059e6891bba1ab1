"""What is noted of one request, for its line, its count and its span."""

from typing import Final

from svc.batching import Trip
from svc.messages import Request
from svc.telemetry.origin import Origin

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
PROBES: Final = frozenset(("/healthz", "/readyz"))  # asked every few seconds, by machines


class Entry:
    """One request: what it spent on the database, and, once it has ended, all else that is told of it.

    Attributes:
        request: itself.
        client: the caller's address.
        span_id: 16 hexadecimal digits.
        origin: where its trace began, if not here.
        is_sampled: whether its trace is recorded.
        status: of its answer.
        body_bytes: of its answer.
        seconds: from its head to its answer.
        ended_at: the time of its end, in seconds since 1970.
        database_seconds: spent in round trips to the database.
        queue_seconds: spent waiting to be sent there.
        batch_size: questions in the largest batch that it was part of.
    """

    __slots__ = (
        *("request", "client", "span_id", "origin", "is_sampled", "status", "body_bytes", "seconds", "ended_at"),
        *("database_seconds", "queue_seconds", "batch_size"),
    )

    status: int
    body_bytes: int
    seconds: float
    ended_at: float

    def __init__(self, request: Request, client: str) -> None:
        self.request = request
        self.client = client
        self.span_id = request.trace_id[:16]
        self.origin: Origin | None = None
        self.is_sampled = False
        self.database_seconds = 0.0
        self.queue_seconds = 0.0
        self.batch_size = 0

    def charge(self, trip: Trip, queue_seconds: float) -> None:
        """See batching.Account."""
        self.database_seconds += trip.seconds
        self.queue_seconds += queue_seconds
        self.batch_size = max(self.batch_size, trip.questions)
        if self.is_sampled:
            trip.riders.append(self)
