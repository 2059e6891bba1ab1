"""A run on the terminal, and as one HTML page that needs nothing else."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.common.pages import number, render
from ops.load import plots
from ops.load.measured import Measured, Second, percentile, total
from ops.load.scenarios import ENDPOINTS
from ops.load.verdict import OBJECTIVES, Line, Verdict

FILE: Final = "report.html"

_PERCENTS: Final = (50, 90, 99, 99.9)


def figure(line: Line) -> str:
    """What was found for an objective. An availability is not rounded up to one that it is not."""
    if line.unit == "%" and line.found is not None:
        return f"{int(line.found * 1000) / 1000:g} %"
    return f"{number(line.found)} {line.unit}"


def sum_up(second: Second) -> str:
    """A second in a line, as far as its requests have ended."""
    everything = sum(second.latency.values(), Counter[int]())
    percentiles = "  ".join(f"p{percent} {number(percentile(everything, percent)):>5} ms" for percent in (50, 99))
    waiting = second.sent - second.requests
    return f"{second.sent:6,} sent  {percentiles}  {second.failed:,} failed" + (
        f"  {waiting:,} wait" if waiting else ""
    )


def told(measured: Measured, verdict: Verdict) -> Iterator[str]:
    """The verdict, line by line."""
    for line in verdict.lines:
        bound = "at least" if line.at_least else "at most"
        met = "met   " if line.met else "MISSED"
        yield f"{met}  {line.what:12} {figure(line):>10}, {bound} {line.wanted:g} {line.unit}"
    for failure, count in verdict.failures.items():
        yield f"failed  {failure}, {count:,} times"
    yield from verdict.limits
    yield verdict.words
    yield f"Left behind: {left_behind(measured)}"


def left_behind(measured: Measured) -> str:
    """What stays in the database, which the API cannot delete, and how its owner can."""
    return f"clients. Their database's owner removes them with: {statement(measured)}"


def statement(measured: Measured) -> str:
    """The SQL that removes the clients of a run."""
    return f"DELETE FROM clients WHERE name LIKE 'load {measured.run['id']} %'"  # noqa: S608 - an id of our own


def write(measured: Measured, verdict: Verdict, path: Path) -> None:
    """Writes the page."""
    seen = {name: total(measured.seconds, name) for name in ENDPOINTS}
    path.write_text(
        render(
            Path(__file__).with_name("report.html"),
            plots.pictures(measured),
            run=measured.run,
            machine=measured.machine,
            verdict=verdict,
            figure=figure,
            percents=_PERCENTS,
            endpoints={
                name: [percentile(histogram, percent) for percent in _PERCENTS]
                for name, histogram in seen.items()
                if histogram
            },
            counts={name: histogram.total() for name, histogram in seen.items()},
            statement=statement(measured),
            generator=OBJECTIVES["generator"],
        )
    )
