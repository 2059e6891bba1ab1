"""What came of a drill, as it goes into results.json, of which the page is drawn."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Final

from ops.drills.ledger import Audit
from ops.drills.stage import Claim
from ops.drills.timeline import FAILED, REFUSED, SERVED, Seen, Timeline

KINDS: Final = (SERVED, REFUSED, FAILED)

_BIN_SECONDS: Final = 0.25
_EXAMPLES: Final = 10  # of what is wrong; thousands would tell no more


class State(StrEnum):
    """How a drill ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Played:
    """What came of a drill.

    Attributes:
        name: the drill's.
        breaks: what it breaks.
        lack: what this machine lacks, so that it was not played; empty where it was.
        error: the traceback of the exception that ended it; empty where none did.
        seconds: how long it took.
        audit: of its ledger; None where it did not come to that.
        timeline: of its callers.
        claims: all of them, those that every drill makes included.
    """

    name: str
    breaks: str
    lack: str = ""
    error: str = ""
    seconds: float = 0.0
    audit: Audit | None = None
    timeline: Timeline = field(default_factory=Timeline)
    claims: list[Claim] = field(default_factory=list)

    @property
    def state(self) -> State:
        """Passed where it came to its end and all that it claims holds."""
        if self.lack:
            return State.SKIPPED
        holds = not self.error and all(claim.holds for claim in self.claims)
        return State.PASSED if holds else State.FAILED

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON: times since the drill began in seconds, latencies in milliseconds."""
        return {
            "name": self.name,
            "breaks": self.breaks,
            "state": self.state,
            "lack": self.lack,
            "error": self.error,
            "seconds": round(self.seconds, 1),
            "claims": [_claim(claim) for claim in self.claims],
            "acknowledged": self.audit and self.audit.acknowledged,
            "unanswered": self.audit and self.audit.unanswered,
            "wrongs": self.audit and self.audit.wrongs,
            "examples": {
                kind: getattr(self.audit, kind)[:_EXAMPLES]
                for kind, count in (self.audit.wrongs if self.audit else {}).items()
                if count
            },
            "kinds": {kind: self.timeline.count(kind) for kind in KINDS},
            "without_service_seconds": round(self.timeline.longest_without_service(), 3),
            "outcomes": _outcomes(self.timeline.seen),
            "marks": [(round(at, 3), words) for at, words in self.timeline.marks],
            "over_time": _over_time(self.timeline.bins(_BIN_SECONDS)),
        }


def _claim(claim: Claim) -> dict[str, Any]:
    # JSON knows no infinity; what is infinite never came.
    return {**asdict(claim), "found": claim.found if math.isfinite(claim.found) else None, "holds": claim.holds}


def _outcomes(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """A row for each outcome, what was served first."""
    by_outcome: dict[tuple[int, str], list[Seen]] = {}
    for each in seen:
        by_outcome.setdefault((KINDS.index(each.kind), each.outcome), []).append(each)
    return [
        {"outcome": outcome, "kind": KINDS[kind], "count": len(found), **_latency(found)}
        for (kind, outcome), found in sorted(by_outcome.items())
    ]


def _over_time(bins: Sequence[Sequence[Seen]]) -> dict[str, Any]:
    """What ended in each bin; no latency where nothing did."""
    kinds = {kind: [sum(seen.kind == kind for seen in each) for each in bins] for kind in KINDS}
    latencies = [_latency(each) for each in bins]
    return {
        "bin_seconds": _BIN_SECONDS,
        **kinds,
        **{name: [latency[name] for latency in latencies] for name in ("p50_ms", "max_ms")},
    }


def _latency(seen: Sequence[Seen]) -> dict[str, float | None]:
    milliseconds = [1000 * each.seconds for each in seen]
    return {
        "p50_ms": round(median(milliseconds), 2) if seen else None,
        "max_ms": round(max(milliseconds), 2) if seen else None,
    }
