"""A request with everything that its log line, its metrics and its span need."""

import random
import time
from functools import cached_property
from typing import Final

from svc.http.messages import AnyResponse, Request
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
        remote_parent: the parent span in another service; None if the trace begins here.
        is_sampled: whether the trace is recorded; before the request ends, whether a trusted caller asked for that.
        response: None where there is no whole one; see Recorder.
        status: the response's status.
        started: when its head was complete, by time.perf_counter().
        ended: when the request ended, by time.perf_counter().
        seconds: from the complete request head to the response, or to the start of a streamed one.
        stream_started: when a streamed response started, by time.perf_counter(); else 0.
        round_trips: the batches that it was part of, each with how long it waited to be sent, in seconds; after the
            start of a streamed response, only a batch that failed, without a wait.
    """

    # The recorder sets these. Python shares the keys of a __dict__ between instances only up to 30.
    __slots__ = ("client", "ended", "response", "round_trips", "seconds", "started", "status")

    client: str
    response: AnyResponse | None
    status: int
    started: float
    ended: float
    seconds: float
    round_trips: tuple[tuple[RoundTrip, float | None], ...]
    remote_parent: RemoteParent | None = None
    is_sampled: bool = False
    stream_started: float = 0.0

    def add_round_trip(self, round_trip: RoundTrip, queue_seconds: float) -> None:
        """See batching.RoundTripObserver."""
        if not self.stream_started:
            self.round_trips += ((round_trip, queue_seconds),)
        elif round_trip.error is not None:  # the others are not part of its duration, and there may be thousands
            self.round_trips += ((round_trip, None),)

    @property
    def ended_at(self) -> float:
        """When the request ended, in seconds since 1970."""
        return time.time() - (time.perf_counter() - self.ended)

    @property
    def body_bytes(self) -> int:
        """The size of the response's body."""
        return self.response.body_length if self.response is not None else 0

    @property
    def stream_seconds(self) -> float:
        """From the start of a streamed response to its end, which waits for the caller to read; else 0."""
        return self.ended - self.stream_started if self.stream_started else 0.0

    @property
    def database_seconds(self) -> float:
        """The time spent in round trips to the database."""
        return sum(round_trip.seconds for round_trip, wait in self.round_trips if wait is not None)

    @property
    def queue_seconds(self) -> float:
        """The time spent waiting to be sent to the database."""
        return sum(wait for _, wait in self.round_trips if wait is not None)

    @property
    def batch_size(self) -> int:
        """The number of items in the largest batch that it was part of."""
        return max((round_trip.items for round_trip, wait in self.round_trips if wait is not None), default=0)

    @cached_property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return self.trace_id[:16] if self.remote_parent is None else f"{random.getrandbits(64) or 1:016x}"

    def response_started(self) -> None:
        """See Request."""
        super().response_started()
        self.stream_started = time.perf_counter()
