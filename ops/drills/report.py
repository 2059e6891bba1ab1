"""What was played, on the terminal, as JSON, and as one HTML page that needs nothing else."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.common.pages import number, render
from ops.drills import plots
from ops.drills.played import State

_RESULTS: Final = "results.json"
_PAGE: Final = "report.html"


@dataclass
class Report:
    """A run of drills; nothing of its page comes from elsewhere.

    Attributes:
        run: which form it had, and how many drills were chosen.
        machine: what it ran on.
        drills: the summary of each that came to an end, or was skipped.
    """

    run: dict[str, Any]
    machine: dict[str, str]
    drills: list[dict[str, Any]] = field(default_factory=list)

    @property
    def states(self) -> Counter[str]:
        """How many passed, failed, and were skipped."""
        return Counter(drill["state"] for drill in self.drills)

    @property
    def counts(self) -> str:
        """The same in words."""
        return ", ".join(f"{self.states[state]} {state}" for state in State)

    @property
    def verdict(self) -> str:
        """The verdict in a sentence or two."""
        failed = [drill["name"] for drill in self.drills if drill["state"] == State.FAILED]
        played = len(self.drills) - self.states[State.SKIPPED]
        sentences = []
        if self.is_cut_short:
            sentences.append(f"Cut short after {len(self.drills)} of {_drills(self.run['chosen'])}.")
        if failed:
            sentences.append(f"{len(failed)} of {_drills(played)} failed: {', '.join(failed)}.")
        elif played:
            sentences.append(f"All that is claimed holds: {_drills(played)} passed.")
        if self.states[State.SKIPPED]:
            sentences.append(f"{self.states[State.SKIPPED]} could not be played on this machine.")
        return " ".join(sentences)

    @property
    def is_cut_short(self) -> bool:
        """Whether drills that were chosen are missing."""
        return len(self.drills) < int(self.run["chosen"])

    @property
    def passed(self) -> bool:
        """Whether nothing failed, and all of it was played."""
        return not self.states[State.FAILED] and not self.is_cut_short

    def save(self, folder: Path) -> None:
        """Writes it down, so that its page can be drawn again."""
        content = {"run": self.run, "machine": self.machine, "drills": self.drills}
        (folder / _RESULTS).write_text(json.dumps(content, indent=1, allow_nan=False))

    def draw(self, folder: Path) -> Path:
        """Draws its page, and says where."""
        pictures = {drill["name"]: plots.over_time(drill) for drill in self.drills if drill["outcomes"]}
        page = folder / _PAGE
        page.write_text(
            render(Path(__file__).with_name("report.html"), pictures, report=self, found=found, bound=bound)
        )
        return page


def load(folder: Path) -> Report:
    """A run that was saved."""
    return Report(**json.loads((folder / _RESULTS).read_text()))


def told(drill: Mapping[str, Any], *, is_verbose: bool) -> Iterator[str]:
    """A drill, line by line: what callers saw, and what does not hold, or all that is claimed."""
    if drill["state"] == State.SKIPPED:
        yield f"skipped  {drill['lack']}"
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in drill["kinds"].items())
    outage = f"no service for {drill['without_service_seconds']:.3g} s at most"
    yield f"{drill['state']:7}  {drill['seconds']:.0f} s: {kinds}; {outage}"
    for claim in drill["claims"]:
        if is_verbose or not claim["holds"]:
            holds = "holds " if claim["holds"] else "BROKEN"
            yield f"{holds}  {claim['words']}: {found(claim)} ({bound(claim)})"
    yield from drill["error"].splitlines()


def found(claim: Mapping[str, Any]) -> str:
    """What was found for a claim, with its unit."""
    if claim["found"] is None:
        return "never"
    return f"{number(claim['found'])} {claim['unit']}".strip()


def bound(claim: Mapping[str, Any]) -> str:
    """What a claim says that it is."""
    words = "at least" if claim["at_least"] else "at most"
    return f"{words} {number(claim['bound'])} {claim['unit']}".strip()


def _drills(count: int) -> str:
    return f"{count} drill{'' if count == 1 else 's'}"
