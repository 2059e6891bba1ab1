"""What is noted of one request, for its line, its count and its span."""

import random
from typing import Final

from svc.http.messages import Request
from svc.postgres.batching import RoundTrip
from svc.telemetry.propagation import RemoteParent

CLIENT_CLOSED_REQUEST: Final = 499  # a status, as nginx and many dashboards call it
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
PROBES: Final = frozenset(("/healthz", "/readyz"))  # asked every few seconds, by machines


class RequestRecord(Request):
    """A request that keeps account of itself: all that its line, its count and its span tell.

    Attributes:
        client: the caller's address.
        span_id: 16 hexadecimal digits.
        remote_parent: where its trace began, if not here.
        is_sampled: whether its trace is recorded.
        status: of its answer.
        body_bytes: of its answer.
        seconds: from its head to its answer.
        ended_at: the time of its end, in seconds since 1970.
        database_seconds: spent in round trips to the database.
        queue_seconds: spent waiting to be sent there.
        batch_size: items in the largest batch that it was part of.
    """

    # With these in its dict, it would have more than the 30 names up to which Python's instances share their keys.
    __slots__ = (
        *("client", "span_id", "remote_parent", "is_sampled", "status", "body_bytes", "seconds", "ended_at"),
        *("database_seconds", "queue_seconds", "batch_size"),
    )

    client: str
    span_id: str
    remote_parent: RemoteParent | None
    is_sampled: bool
    status: int
    body_bytes: int
    seconds: float
    ended_at: float
    database_seconds: float
    queue_seconds: float
    batch_size: int

    def start(self, client: str, remote_parent: RemoteParent | None) -> None:
        """Opens the account."""
        self.client = client
        self.remote_parent = remote_parent
        self.span_id = self.trace_id[:16] if remote_parent is None else f"{random.getrandbits(64) or 1:016x}"
        self.is_sampled = False
        self.status = CLIENT_CLOSED_REQUEST
        self.body_bytes = 0
        self.database_seconds = 0.0
        self.queue_seconds = 0.0
        self.batch_size = 0

    def add_round_trip(self, round_trip: RoundTrip, queue_seconds: float) -> None:
        """See batching.Account."""
        self.database_seconds += round_trip.seconds
        self.queue_seconds += queue_seconds
        if round_trip.items > self.batch_size:  # noqa: PLR1730 - max() costs 0.1 µs
            self.batch_size = round_trip.items
        if self.is_sampled:
            round_trip.sampled_requests.append(self)
