"""A request with everything that its log line, its metrics and its span need."""

import random
from typing import Final

from svc.http.messages import Request
from svc.postgres.batching import RoundTrip
from svc.telemetry.propagation import RemoteParent

CLIENT_CLOSED_REQUEST: Final = 499  # the status that nginx and many dashboards use
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
PROBES: Final = frozenset(("/healthz", "/readyz"))  # called every few seconds by load balancers and kubelets


class RequestRecord(Request):
    """A request that records its own telemetry.

    Attributes:
        client: the caller's address.
        span_id: 16 hexadecimal digits.
        remote_parent: the parent span in another service; None if the trace begins here.
        is_sampled: whether the trace is recorded.
        status: the response's status.
        body_bytes: the size of the response's body.
        seconds: from the complete request head to the response.
        ended_at: when the request ended, in seconds since 1970.
        database_seconds: the time spent in round trips to the database.
        queue_seconds: the time spent waiting to be sent to the database.
        batch_size: the number of items in the largest batch that it was part of.
    """

    # With these in its __dict__, it would have more than 30 attributes, and Python shares keys between instances only
    # up to 30.
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
        """Sets the initial values."""
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
        """See batching.RoundTripObserver."""
        self.database_seconds += round_trip.seconds
        self.queue_seconds += queue_seconds
        if round_trip.items > self.batch_size:  # noqa: PLR1730 - max() costs 0.1 µs
            self.batch_size = round_trip.items
        if self.is_sampled:
            round_trip.sampled_requests.append(self)
