"""What a drill is, and how one is run: broken, watched, audited."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from ops.drills.ledger import Audit
from ops.drills.stage import Claim, Stage, set_up
from ops.drills.timeline import FAILED, REFUSED, SERVED, Timeline
from svc.settings import DatabaseSettings

# What a caller may have to wait for an answer, whatever fails behind the service, and what a busy machine adds.
DEADLINE_SECONDS: Final = DatabaseSettings().answer_seconds + 1.0

Play: TypeAlias = Callable[[Stage], Awaitable[None]]

DRILLS: Final[dict[str, "Drill"]] = {}


@dataclass(frozen=True)
class Drill:
    """One thing that is broken.

    Attributes:
        name: for the command line.
        breaks: what, in a sentence.
        play: breaks it, and claims what has to be true.
        lacks: says what this machine lacks for it; empty where nothing.
    """

    name: str
    breaks: str
    play: Play
    lacks: Callable[[], str]


@dataclass
class Played:
    """What came of a drill.

    Attributes:
        drill: which.
        seconds: how long it took.
        audit: of its ledger.
        timeline: of its callers.
        claims: all of them, those that every drill makes included.
    """

    drill: Drill
    seconds: float
    audit: Audit
    timeline: Timeline
    claims: list[Claim]

    @property
    def passed(self) -> bool:
        """Whether all that was claimed holds."""
        return all(claim.holds for claim in self.claims)

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "name": self.drill.name,
            "breaks": self.drill.breaks,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "claims": [{**asdict(claim), "holds": claim.holds} for claim in self.claims],
            "acknowledged": self.audit.acknowledged,
            "unanswered": self.audit.unanswered,
            "wrongs": self.audit.wrongs,
            "outcomes": dict(self.timeline.counts()),
            "kinds": {kind: self.timeline.count(kind) for kind in (SERVED, REFUSED, FAILED)},
            "marks": self.timeline.marks,
        }


def drill(name: str, breaks: str, lacks: Callable[[], str] = str) -> Callable[[Play], Play]:
    """Puts a drill among the others, in the order in which they are written.

    Args:
        name: for the command line.
        breaks: what it breaks, in a sentence.
        lacks: see Drill.
    """

    def register(play: Play) -> Play:
        DRILLS[name] = Drill(name, breaks, play, lacks)
        return play

    return register


async def run(chosen: Drill, folder: Path, collector_port: int, *, is_quick: bool) -> Played:
    """Plays a drill on a stage of its own, and audits it."""
    began = time.monotonic()
    async with set_up(chosen.name, folder, collector_port, is_quick=is_quick) as stage:
        await chosen.play(stage)
        audit = await stage.audit()
    return Played(chosen, time.monotonic() - began, audit, stage.timeline, [*stage.claims, *_common(stage, audit)])


def _common(stage: Stage, audit: Audit) -> list[Claim]:
    """What every drill claims."""
    wrongs = [Claim(f"{kind}", count, 0) for kind, count in audit.wrongs.items()]
    return [
        Claim("adds acknowledged", audit.acknowledged, 1, at_least=True),
        *wrongs,
        Claim("longest wait for an answer", stage.timeline.longest(), DEADLINE_SECONDS, "s"),
    ]
