"""The result of a drill, as results.json has it. The report page is drawn from that."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Final

from ops.drills.claim import Claim
from ops.drills.ledger import Audit
from ops.drills.timeline import FAILED, REFUSED, SERVED, Request, Timeline

KINDS: Final = (SERVED, REFUSED, FAILED)

_BIN_SECONDS: Final = 0.25
_MAX_EXAMPLES: Final = 10  # of each violation; thousands would explain no more


class State(StrEnum):
    """How a drill ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Run:
    """The result of a drill.

    Attributes:
        name: the drill's.
        breaks: what it breaks.
        missing: why this machine cannot run it. Empty if it ran.
        error: the traceback of the exception that ended it. Empty if there was none.
        seconds: how long it took.
        audit: of its ledger. None if the drill ended before the audit.
        timeline: of its callers.
        claims: its own claims and those of every drill.
    """

    name: str
    breaks: str
    missing: str = ""
    error: str = ""
    seconds: float = 0.0
    audit: Audit | None = None
    timeline: Timeline = field(default_factory=Timeline)
    claims: list[Claim] = field(default_factory=list)

    @property
    def state(self) -> State:
        """Passed if it ran to its end and all claims are met."""
        if self.missing:
            return State.SKIPPED
        passed = not self.error and all(claim.is_met for claim in self.claims)
        return State.PASSED if passed else State.FAILED

    def summary(self) -> dict[str, Any]:
        """Returns all of it for JSON. Times are seconds since the drill started, latencies are milliseconds."""
        return {
            "name": self.name,
            "breaks": self.breaks,
            "state": self.state,
            "missing": self.missing,
            "error": self.error,
            "seconds": round(self.seconds, 1),
            "claims": [_claim(claim) for claim in self.claims],
            "acknowledged": self.audit and self.audit.acknowledged,
            "unacknowledged": self.audit and self.audit.unacknowledged,
            "violations": self.audit and self.audit.violations,
            "examples": {
                kind: getattr(self.audit, kind)[:_MAX_EXAMPLES]
                for kind, count in (self.audit.violations if self.audit else {}).items()
                if count
            },
            "kinds": {kind: self.timeline.count(kind) for kind in KINDS},
            "longest_outage_seconds": round(self.timeline.longest_outage(), 3),
            "outcomes": _outcomes(self.timeline.requests),
            "marks": [(round(at, 3), text) for at, text in self.timeline.marks],
            "over_time": _over_time(self.timeline.bins(_BIN_SECONDS)),
        }


def _claim(claim: Claim) -> dict[str, Any]:
    # JSON has no infinity. An infinite time means that the event never happened.
    measured = claim.measured if math.isfinite(claim.measured) else None
    return {**asdict(claim), "measured": measured, "is_met": claim.is_met}


def _outcomes(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Returns a row for each outcome, served ones first."""
    by_outcome: dict[tuple[int, str], list[Request]] = {}
    for each in requests:
        by_outcome.setdefault((KINDS.index(each.kind), each.outcome), []).append(each)
    return [
        {"outcome": outcome, "kind": KINDS[kind], "count": len(found), **_latency(found)}
        for (kind, outcome), found in sorted(by_outcome.items())
    ]


def _over_time(bins: Sequence[Sequence[Request]]) -> dict[str, Any]:
    """Returns the requests that ended in each bin. The latency of an empty bin is None."""
    kinds = {kind: [sum(request.kind == kind for request in each) for each in bins] for kind in KINDS}
    latencies = [_latency(each) for each in bins]
    return {
        "bin_seconds": _BIN_SECONDS,
        **kinds,
        **{name: [latency[name] for latency in latencies] for name in ("p50_ms", "max_ms")},
    }


def _latency(requests: Sequence[Request]) -> dict[str, float | None]:
    milliseconds = [1000 * each.seconds for each in requests]
    return {
        "p50_ms": round(median(milliseconds), 2) if requests else None,
        "max_ms": round(max(milliseconds), 2) if requests else None,
    }
