"""The report of a run: on the terminal, as JSON, and as one self-contained HTML page."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.common.pages import number, render
from ops.drills import plots
from ops.drills.run import State

_RESULTS: Final = "results.json"
_PAGE: Final = "report.html"


@dataclass
class Report:
    """The results of all drills of one command. The page is drawn from these only.

    Attributes:
        options: the mode, and the number of drills that were chosen.
        machine: what it ran on.
        drills: the summary of each drill that ended or was skipped.
    """

    options: dict[str, Any]
    machine: dict[str, str]
    drills: list[dict[str, Any]] = field(default_factory=list)

    @property
    def states(self) -> Counter[str]:
        """How many passed, failed and were skipped."""
        return Counter(drill["state"] for drill in self.drills)

    @property
    def counts(self) -> str:
        """The states as text."""
        return ", ".join(f"{self.states[state]} {state}" for state in State)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The summaries of the drills that failed."""
        return [drill for drill in self.drills if drill["state"] == State.FAILED]

    @property
    def verdict(self) -> str:
        """The result in one to three sentences."""
        ran = len(self.drills) - self.states[State.SKIPPED]
        sentences = []
        if self.is_interrupted:
            sentences.append(f"Interrupted after {len(self.drills)} of {_drills(self.options['drills'])}.")
        if self.failed:
            names = ", ".join(drill["name"] for drill in self.failed)
            sentences.append(f"{len(self.failed)} of {_drills(ran)} failed: {names}.")
        elif ran:
            sentences.append(f"All claims are met: {_drills(ran)} passed.")
        if self.states[State.SKIPPED]:
            sentences.append(f"Skipped, because this machine cannot run them: {_drills(self.states[State.SKIPPED])}.")
        return " ".join(sentences)

    @property
    def is_interrupted(self) -> bool:
        """Whether chosen drills did not run."""
        return len(self.drills) < int(self.options["drills"])

    @property
    def passed(self) -> bool:
        """Whether no drill failed and the run was not interrupted."""
        return not self.states[State.FAILED] and not self.is_interrupted

    def save(self, folder: Path) -> None:
        """Writes results.json, from which load() restores the report."""
        content = {"options": self.options, "machine": self.machine, "drills": self.drills}
        (folder / _RESULTS).write_text(json.dumps(content, indent=1, allow_nan=False))

    def draw(self, folder: Path) -> Path:
        """Writes the page and returns its path."""
        pictures = {drill["name"]: plots.over_time(drill) for drill in self.drills if drill["outcomes"]}
        page = folder / _PAGE
        template = Path(__file__).with_name("report.html")
        page.write_text(render(template, pictures, report=self, measured=measured, limit=limit))
        return page


def load(folder: Path) -> Report:
    """Loads a saved report."""
    return Report(**json.loads((folder / _RESULTS).read_text()))


def lines(drill: Mapping[str, Any], *, is_verbose: bool) -> Iterator[str]:
    """Yields the lines of a drill for the terminal: its result, and the claims that are not met or all claims."""
    if drill["state"] == State.SKIPPED:
        yield f"skipped  {drill['missing']}"
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in drill["kinds"].items())
    outage = f"longest outage {drill['longest_outage_seconds']:.3g} s"
    yield f"{drill['state']:7}  {drill['seconds']:.0f} s: {kinds}; {outage}"
    for claim in drill["claims"]:
        if is_verbose or not claim["is_met"]:
            state = "met    " if claim["is_met"] else "NOT MET"
            yield f"{state}  {claim['description']}: {measured(claim)} ({limit(claim)})"
    yield from drill["error"].splitlines()


def measured(claim: Mapping[str, Any]) -> str:
    """Returns the measurement of a claim with its unit."""
    if claim["measured"] is None:
        return "never"
    return f"{number(claim['measured'])} {claim['unit']}".strip()


def limit(claim: Mapping[str, Any]) -> str:
    """Returns the limit of a claim with its unit."""
    is_maximum = claim["at_least"] is None
    value = claim["at_most"] if is_maximum else claim["at_least"]
    return f"{'at most' if is_maximum else 'at least'} {number(value)} {claim['unit']}".strip()


def _drills(count: int) -> str:
    return f"{count} drill{'' if count == 1 else 's'}"
