"""What a drill is and how it runs: break something, observe callers, audit the table."""

import time
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import psutil

from ops.drills.claim import Claim
from ops.drills.harness import Harness, set_up
from ops.drills.ledger import Audit
from ops.drills.run import Run
from svc.settings import Settings

# The longest that a caller may wait whatever fails behind the service, and 1 s more for a busy machine.
DEADLINE_SECONDS: Final = Settings().longest_seconds + 1.0
_EXIT_SECONDS: Final = 10.0  # for the last processes of a drill to exit, on a busy machine

Body: TypeAlias = Callable[[Harness], Awaitable[None]]

DRILLS: Final[dict[str, "Drill"]] = {}


@dataclass(frozen=True)
class Drill:
    """One thing that is broken.

    Attributes:
        name: for the command line.
        breaks: what it breaks, in a sentence.
        body: breaks it and makes the claims.
        missing: returns why this machine cannot run it. Empty if it can.
    """

    name: str
    breaks: str
    body: Body
    missing: Callable[[], str]


def drill(name: str, breaks: str, missing: Callable[[], str] = str) -> Callable[[Body], Body]:
    """Registers a drill. See Drill for the arguments."""

    def register(body: Body) -> Body:
        DRILLS[name] = Drill(name, breaks, body, missing)
        return body

    return register


async def run(
    chosen: Drill, folder: Path, collector_port: int, *, is_quick: bool, on_mark: Callable[[float, str], None]
) -> Run:
    """Runs a drill in its own harness and audits it. An exception fails this drill and does not stop the others.

    Args:
        chosen: the drill.
        folder: empty, for this drill only.
        collector_port: where the service exports its traces.
        is_quick: whether to run the short form.
        on_mark: called with the time and the text of each event.
    """
    result = Run(chosen.name, chosen.breaks)
    started = time.monotonic()
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    try:
        async with set_up(chosen.name, folder, collector_port, is_quick=is_quick) as harness:
            result.timeline, result.claims = harness.timeline, harness.claims
            harness.timeline.on_mark = on_mark
            await chosen.body(harness)
            result.audit = await harness.audit()
            harness.claims += _common_claims(harness, result.audit)
    except Exception:  # noqa: BLE001 - any exception is a failure of the drill
        result.error = traceback.format_exc()
    result.claims.append(Claim("processes left running", _end_all_except(known), at_most=0))
    result.seconds = time.monotonic() - started
    return result


def _common_claims(harness: Harness, audit: Audit) -> list[Claim]:
    """Returns the claims of every drill."""
    return [
        Claim("adds acknowledged", audit.acknowledged, at_least=1),
        *(
            Claim(f"{kind} {'gets' if kind == 'stale' else 'adds'}", count, at_most=0)
            for kind, count in audit.violations.items()
        ),
        Claim("longest wait of a caller", harness.timeline.longest_wait(), at_most=DEADLINE_SECONDS, unit="s"),
    ]


def _end_all_except(known: Collection[int]) -> int:
    """Kills all child processes except these. Returns how many did not exit by themselves."""
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in known]
    _, left = psutil.wait_procs(children, timeout=_EXIT_SECONDS)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    return len(left)
