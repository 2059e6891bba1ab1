"""What callers saw, and when."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SERVED: Final = "served"
REFUSED: Final = "refused"
FAILED: Final = "failed"


class Request(NamedTuple):
    """One request, as its caller saw it.

    Attributes:
        sent_at: in seconds since the drill started.
        seconds: until its response or its failure.
        outcome: the status of the response, or the name of the caller's error.
        connection: the caller's port of its connection; 0 if it had none.
    """

    sent_at: float
    seconds: float
    outcome: str
    connection: int = 0

    @property
    def ended_at(self) -> float:
        """When its caller knew the outcome."""
        return self.sent_at + self.seconds

    @property
    def kind(self) -> str:
        """Served (200 or 201), refused (503 or 504), or failed: anything else."""
        if self.outcome in {"200", "201"}:
            return SERVED
        return REFUSED if self.outcome in {"503", "504"} else FAILED


@dataclass
class Timeline:
    """All requests of a drill.

    Attributes:
        requests: each of them.
        marks: what was done to the service, and when.
        on_mark: called with each new mark.
    """

    requests: list[Request] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    on_mark: Callable[[float, str], None] = lambda *_: None
    _started: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Returns the seconds since the drill started."""
        return time.monotonic() - self._started

    def mark(self, text: str) -> float:
        """Records an event of the drill and returns its time."""
        at = self.now()
        self.marks.append((at, text))
        self.on_mark(at, text)
        return at

    def between(self, start: float = 0.0, end: float = float("inf")) -> Iterator[Request]:
        """Yields the requests that were sent in this period."""
        return (request for request in self.requests if start <= request.sent_at < end)

    def outcomes(self) -> Counter[str]:
        """Counts the requests by outcome."""
        return Counter(request.outcome for request in self.requests)

    def count(self, kind: str, start: float = 0.0, end: float = float("inf")) -> int:
        """Counts the requests of this period that were served, refused, or failed."""
        return sum(request.kind == kind for request in self.between(start, end))

    def not_served(self) -> int:
        """Counts the requests that were refused or failed."""
        return sum(request.kind != SERVED for request in self.requests)

    def first_served_after(self, moment: float) -> float:
        """Returns the seconds from the moment to the end of the first served request, or infinity."""
        return min((r.ended_at for r in self._ended_after(moment) if r.kind == SERVED), default=float("inf")) - moment

    def last_not_served_after(self, moment: float) -> float:
        """Returns the seconds from the moment to the end of the last request that was not served, or 0."""
        return max((r.ended_at for r in self._ended_after(moment) if r.kind != SERVED), default=moment) - moment

    def _ended_after(self, moment: float) -> Iterator[Request]:
        return (request for request in self.requests if request.ended_at > moment)

    def longest_outage(self) -> float:
        """Returns the longest period, in seconds, in which requests waited and none was served."""
        longest = served = 0.0
        waiting_since = float("inf")
        for request in sorted(self.requests, key=lambda each: each.ended_at):
            waiting_since = min(waiting_since, max(request.sent_at, served))
            longest = max(longest, request.ended_at - waiting_since)
            if request.kind == SERVED:
                served, waiting_since = request.ended_at, float("inf")
        return longest

    def bins(self, width: float) -> list[list[Request]]:
        """Groups the requests by when they ended, in bins of `width` seconds since the drill started."""
        bins: list[list[Request]] = []
        for request in sorted(self.requests, key=lambda each: each.ended_at):
            while len(bins) <= request.ended_at / width:
                bins.append([])
            bins[-1].append(request)
        return bins

    def longest_wait(self) -> float:
        """Returns the seconds of the slowest request."""
        return max((request.seconds for request in self.requests), default=0.0)

    def percentile(self, percent: float, start: float, end: float) -> float:
        """Returns a percentile, in seconds, of the requests of this period; 0 if there are none."""
        ordered = sorted(request.seconds for request in self.between(start, end))
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
