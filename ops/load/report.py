"""Reports a run on the terminal, and as one HTML page without other files."""

from collections import Counter
from pathlib import Path
from typing import Final

from ops.common import console
from ops.common.pages import number, render
from ops.load import plots
from ops.load.measurements import Measurements, Second, percentile, samples_needed, total
from ops.load.scenarios import ENDPOINTS
from ops.load.verdict import ADVICE, OBJECTIVES, Objective, Result, Verdict, shortage

FILE: Final = "report.html"

_PERCENTS: Final = (50, 90, 99, 99.9)
_STYLES: Final = {Result.MET: "green", Result.MISSED: "red", Result.UNKNOWN: "yellow"}


def figure(objective: Objective) -> str:
    """The measured figure. An availability is rounded down, so that it never seems to meet a bound that it misses."""
    if objective.unit == "%" and objective.found is not None:
        return f"{int(objective.found * 1000) / 1000:g} %"
    return f"{number(objective.found)} {objective.unit}"


def progress(second: Second) -> str:
    """One second in a line, counting the requests that have ended so far."""
    latency = sum(second.latency.values(), Counter[int]())
    percentiles = [f"p{percent} {number(percentile(latency, percent))} ms" for percent in (50, 99)]
    waiting = second.sent - second.requests
    return ", ".join(
        [
            f"{second.sent:,} sent",
            *percentiles,
            f"{second.failed:,} failed",
            *([f"{waiting:,} still waiting"] if waiting else []),
        ]
    )


def show(measurements: Measurements, verdict: Verdict) -> None:
    """Prints the results and the verdict."""
    rows = [
        (
            objective.result.upper() if objective.result is Result.MISSED else objective.result,
            objective.what,
            figure(objective),
            f"{'at least' if objective.at_least else 'at most'} {objective.wanted:g} {objective.unit}",
            objective.note,
        )
        for objective in verdict.objectives
    ]
    console.err.print(console.table("", ["", "objective", console.right("measured"), "required", ""], rows))
    for failure, count in verdict.failures.items():
        console.err.print(f"failed  {failure}, {count:,} times")
    for limit in verdict.limits:
        console.err.print(limit)
    console.err.print(verdict.sentence, style=_STYLES[verdict.result])
    if verdict.limits:
        console.err.print(ADVICE)
    console.err.print(
        f"The clients that the run added remain. The database's owner deletes them with: {statement(measurements)}"
    )


def statement(measurements: Measurements) -> str:
    """The SQL that deletes the clients of a run; the API cannot delete clients."""
    return f"DELETE FROM clients WHERE name LIKE 'load {measurements.run['id']} %'"  # noqa: S608 - an id that we made


def totals(measurements: Measurements, verdict: Verdict) -> dict[str, str]:
    """The most important figures by name, for the top of the page."""
    requests = sum(second.requests for second in measurements.seconds)
    failed = sum(second.failed for second in measurements.seconds)
    return {
        "requests": f"{requests:,}",
        "per second": number(requests / len(measurements.seconds)),
        "failed": f"{failed:,}",
        "availability": figure(verdict.objectives[0]),
    }


def write(measurements: Measurements, verdict: Verdict, path: Path) -> None:
    """Writes the page."""
    histograms = {name: total(measurements.seconds, name) for name in ENDPOINTS}
    path.write_text(
        render(
            Path(__file__).with_name("report.html"),
            plots.pictures(measurements),
            run=measurements.run,
            machine=measurements.machine,
            verdict=verdict,
            figure=figure,
            percents=_PERCENTS,
            endpoints={
                name: [
                    None if shortage(histogram.total(), percent) else percentile(histogram, percent)
                    for percent in _PERCENTS
                ]
                for name, histogram in histograms.items()
                if histogram
            },
            samples_needed=samples_needed,
            totals=totals(measurements, verdict),
            advice=ADVICE,
            counts={name: histogram.total() for name, histogram in histograms.items()},
            statement=statement(measurements),
            generator=OBJECTIVES["generator"],
        )
    )
