"""What a drill is, and how one is run: broken, watched, audited."""

import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import psutil

from ops.drills.ledger import Audit
from ops.drills.played import Played
from ops.drills.stage import Claim, Stage, set_up
from svc.postgres.settings import DatabaseSettings

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


def drill(name: str, breaks: str, lacks: Callable[[], str] = str) -> Callable[[Play], Play]:
    """Puts a drill among the others.

    Args:
        name: for the command line.
        breaks: what it breaks, in a sentence.
        lacks: see Drill.
    """

    def register(play: Play) -> Play:
        DRILLS[name] = Drill(name, breaks, play, lacks)
        return play

    return register


async def run(
    chosen: Drill, folder: Path, collector_port: int, *, is_quick: bool, tell: Callable[[float, str], None]
) -> Played:
    """Plays a drill on a stage of its own, and audits it. An exception is the drill's failure, and stops no other.

    Args:
        chosen: the drill.
        folder: an empty one, for it alone.
        collector_port: where the service's traces go.
        is_quick: whether the short form is wanted.
        tell: hears what is done, and when.
    """
    played = Played(chosen.name, chosen.breaks)
    began = time.monotonic()
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    try:
        async with set_up(chosen.name, folder, collector_port, is_quick=is_quick) as stage:
            played.timeline, played.claims = stage.timeline, stage.claims
            stage.timeline.tell = tell
            await chosen.play(stage)
            played.audit = await stage.audit()
            stage.claims += _common(stage, played.audit)
    except Exception:  # noqa: BLE001 - whatever it was
        played.error = traceback.format_exc()
    played.claims.append(Claim("processes left behind", _end_all_but(known), 0))
    played.seconds = time.monotonic() - began
    return played


def _common(stage: Stage, audit: Audit) -> list[Claim]:
    """What every drill claims."""
    wrongs = [Claim(f"{kind}", count, 0) for kind, count in audit.wrongs.items()]
    return [
        Claim("adds acknowledged", audit.acknowledged, 1, at_least=True),
        *wrongs,
        Claim("longest wait for an answer", stage.timeline.longest(), DEADLINE_SECONDS, "s"),
    ]


def _end_all_but(known: Collection[int]) -> int:
    """Ends all processes of ours but these, and says how many there were that did not end by themselves."""
    ours = [child for child in psutil.Process().children(recursive=True) if child.pid not in known]
    _, left = psutil.wait_procs(ours, timeout=1)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    return len(left)
