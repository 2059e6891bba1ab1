"""A request with everything that its log line, its metrics and its span need."""

import random
import time
from typing import Final

from aiohttp import web

from svc.http.messages import Request
from svc.postgres.batching import RoundTrip
from svc.telemetry.propagation import RemoteParent

CLIENT_CLOSED_REQUEST: Final = 499  # the status that nginx and many dashboards use
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"))
SLOW_SECONDS: Final = 0.1  # as in the latency objective, of which slow requests use up the error budget
PROBES: Final = frozenset(("/healthz", "/readyz"))  # called every few seconds by load balancers and kubelets


class RequestRecord(Request):
    """A request that records its own telemetry.

    Attributes:
        client: the caller's address.
        span_id: 16 hexadecimal digits.
        remote_parent: the parent span in another service; None if the trace begins here.
        is_sampled: whether the trace is recorded; before the request ends, whether a trusted caller asked for that.
        status: the response's status.
        body_bytes: the size of the response's body.
        seconds: from the complete request head to the response, or to the start of a streamed one.
        stream_seconds: from the start of a streamed response to its end, which waits for the caller to read; else 0.
        ended_at: when the request ended, in seconds since 1970.
        database_seconds: the time spent in round trips to the database.
        queue_seconds: the time spent waiting to be sent to the database.
        batch_size: the number of items in the largest batch that it was part of.
        round_trips: these batches; after the start of a streamed response, only the one that failed.
    """

    # With these in its __dict__, it would have more than 30 attributes, and Python shares keys between instances only
    # up to 30.
    __slots__ = (
        *("client", "span_id", "remote_parent", "is_sampled", "status", "body_bytes", "ended_at"),
        *("seconds", "stream_seconds", "stream_started_at"),
        *("database_seconds", "queue_seconds", "batch_size", "round_trips"),
    )

    client: str
    span_id: str
    remote_parent: RemoteParent | None
    is_sampled: bool
    status: int
    body_bytes: int
    ended_at: float
    seconds: float
    stream_seconds: float
    stream_started_at: float
    database_seconds: float
    queue_seconds: float
    batch_size: int
    round_trips: tuple[RoundTrip, ...]

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
        self.round_trips = ()
        self.stream_started_at = 0.0

    def end(self, started_at: float) -> None:
        """Sets the times of a request that has ended.

        Args:
            started_at: when its head was complete, by time.perf_counter().
        """
        ended_at = time.perf_counter()
        self.ended_at = time.time()
        self.stream_seconds = ended_at - self.stream_started_at if self.stream_started_at else 0.0
        self.seconds = ended_at - self.stream_seconds - started_at

    def add_round_trip(self, round_trip: RoundTrip, queue_seconds: float) -> None:
        """See batching.RoundTripObserver."""
        if not self.stream_started_at:
            self.database_seconds += round_trip.seconds
            self.queue_seconds += queue_seconds
            if round_trip.items > self.batch_size:  # noqa: PLR1730 - max() costs 0.1 µs
                self.batch_size = round_trip.items
        elif round_trip.error is None:
            return  # not part of the request's duration, and there may be thousands
        self.round_trips += (round_trip,)

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        await super()._prepare_hook(response)
        self.stream_started_at = time.perf_counter()
