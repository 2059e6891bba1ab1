"""What callers saw, and when."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SERVED: Final = "served"
REFUSED: Final = "refused"
FAILED: Final = "failed"


class Seen(NamedTuple):
    """One request, as its caller saw it.

    Attributes:
        at: when it was sent, in seconds since the drill began.
        seconds: from then to its answer or its failure.
        what: it asked for: get or add.
        outcome: the answer's status, or the name of the error that its caller got instead.
        connection: its caller's port of the connection that it went by; 0 where it got none.
    """

    at: float
    seconds: float
    what: str
    outcome: str
    connection: int = 0

    @property
    def ended(self) -> float:
        """When its caller knew."""
        return self.at + self.seconds

    @property
    def kind(self) -> str:
        """Served, refused with an honest answer (503 or 504), or failed: anything else."""
        if self.outcome in {"200", "201"}:
            return SERVED
        return REFUSED if self.outcome in {"503", "504"} else FAILED


@dataclass
class Timeline:
    """All that callers saw in a drill.

    Attributes:
        seen: each request.
        marks: what was done to the service, and when.
        tell: hears of each mark when it is made.
    """

    seen: list[Seen] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    tell: Callable[[float, str], None] = lambda *_: None
    _began: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self._began

    def mark(self, words: str) -> float:
        """Notes that something was done, and gives the time."""
        at = self.now()
        self.marks.append((at, words))
        self.tell(at, words)
        return at

    def between(self, start: float = 0.0, end: float = float("inf")) -> Iterator[Seen]:
        """What was sent in this time."""
        return (seen for seen in self.seen if start <= seen.at < end)

    def counts(self, start: float = 0.0, end: float = float("inf")) -> Counter[str]:
        """How often each outcome was had by what was sent in this time."""
        return Counter(seen.outcome for seen in self.between(start, end))

    def count(self, kind: str, start: float = 0.0, end: float = float("inf")) -> int:
        """How many requests of this time were served, refused, or failed."""
        return sum(seen.kind == kind for seen in self.between(start, end))

    def served_again_after(self, moment: float, what: str = "") -> float:
        """Seconds from the moment until the first caller, of those who asked for this, was served; or infinite."""
        return min((s.ended for s in self._after(moment, what) if s.kind == SERVED), default=float("inf")) - moment

    def last_turned_away_after(self, moment: float, what: str = "") -> float:
        """Seconds from the moment until the last caller, of those who asked for this, had no success; 0 if all had."""
        return max((s.ended for s in self._after(moment, what) if s.kind != SERVED), default=moment) - moment

    def _after(self, moment: float, what: str) -> Iterator[Seen]:
        return (s for s in self.seen if s.ended > moment and what in {s.what, ""})

    def longest_without_service(self) -> float:
        """The most seconds in which callers asked and none was served."""
        longest = served = 0.0
        asked = float("inf")
        for seen in sorted(self.seen, key=lambda each: each.ended):
            asked = min(asked, max(seen.at, served))
            longest = max(longest, seen.ended - asked)
            if seen.kind == SERVED:
                served, asked = seen.ended, float("inf")
        return longest

    def bins(self, width: float) -> list[list[Seen]]:
        """What ended in each so many seconds since the drill began, to the last that ended."""
        ended: list[list[Seen]] = []
        for seen in sorted(self.seen, key=lambda each: each.ended):
            while len(ended) <= seen.ended / width:
                ended.append([])
            ended[-1].append(seen)
        return ended

    def longest(self, start: float = 0.0, end: float = float("inf")) -> float:
        """The most seconds that a caller waited."""
        return max((seen.seconds for seen in self.between(start, end)), default=0.0)

    def percentile(
        self, percent: float, start: float, end: float, which: Callable[[Seen], bool] = lambda _: True
    ) -> float:
        """The seconds that this many per cent of some requests of this time took at most; 0 where there are none."""
        ordered = sorted(seen.seconds for seen in self.between(start, end) if which(seen))
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
