"""Compares two runs: `python -m ops.load.compare A B`, each the folder of a run's results.

A bootstrap separates changes from noise: the seconds of each run are resampled with replacement many times, and the
figures are computed from each resample; their spread is the noise. A bootstrap does not assume a distribution of
latencies, and its p99 is that of all requests in a resample. A rank test, such as Mann and Whitney's on the p99 of each
second, would answer another question, from too few requests each. Neighbouring seconds are alike (a checkpoint slows
several), so long runs are resampled in blocks. The seconds of one run cannot show how runs differ from each other:
hence the margins below. A change close to its margin deserves a third run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ops.common import console
from ops.common.pages import number
from ops.load import measurements, verdict
from ops.load.measurements import Measurements
from ops.load.scenarios import ENDPOINTS

_RESAMPLES: Final = 2000
_MAX_BLOCKS: Final = 30
_CONFIDENCE: Final = 99.0  # per cent; with about seven figures, 95 would raise a false alarm in every third comparison
_MARGIN: Final = 0.1  # runs of the same service differ by up to a tenth
_MARGIN_MS: Final = 1.0  # the precision of the generator's timers
_MARGIN_PERCENT: Final = 0.1  # of requests: all failures that the objective allows

_EXPLANATION: Final = f"""\
A difference is the figure of the second run less that of the first. Its interval, in which it lies with
{_CONFIDENCE:g} % confidence, comes from resampling the seconds of both runs {_RESAMPLES:,} times. An interval that
includes 0 shows no difference. A difference counts if its whole interval is beyond the margin, since runs of the same
service differ as much: {100 * _MARGIN:g} % or {_MARGIN_MS:g} ms, whichever is more; of failures, {_MARGIN_PERCENT:g}
percentage points.\
""".replace("\n", " ")

_Numbers: TypeAlias = NDArray[np.float64]


class NotComparable(Exception):
    """The two runs cannot be compared."""


@dataclass(frozen=True)
class Change:
    """The change of one figure.

    Attributes:
        what: the figure's name.
        unit: ms, or %.
        before: the figure in the first run.
        after: the figure in the second run.
        low: the lower end of the 99 % confidence interval of the difference.
        high: the upper end.
        margin: the smallest difference that counts.
        samples: how many requests the figure is of, in the first and in the second run.
        shortage: why a run has too few samples for a verdict; empty if both have enough.
    """

    what: str
    unit: str
    before: float
    after: float
    low: float
    high: float
    margin: float
    samples: Sequence[int]
    shortage: str = ""

    @property
    def is_worse(self) -> bool:
        """Whether the figure rose by more than noise and margin."""
        return self.low > self.margin and not self.shortage

    @property
    def name(self) -> str:
        """What the change is called."""
        if self.shortage:
            return verdict.Result.UNKNOWN
        more, less = ("slower", "faster") if self.unit == "ms" else ("more failures", "fewer failures")
        if self.is_worse:
            return more
        return less if self.high < -self.margin else "no change"

    @property
    def words(self) -> str:
        """The interval of the difference and what it shows, or why it shows nothing."""
        if self.shortage:
            return self.shortage
        # Latencies change by a share of what they were; failures are a share already.
        unit, scale = ("%", 100 / self.before) if self.unit == "ms" else ("points", 1.0)
        interval = f"between {scale * self.low:+.3g} and {scale * self.high:+.3g} {unit}"
        if self.low <= 0 <= self.high:
            return f"{interval}; includes 0: no difference shown"
        limit = f"the margin of {scale * self.margin:.3g} {unit}"
        if self.name == "no change":
            return f"{interval}; not wholly beyond {limit}: too small to count"
        return f"{interval}; beyond {limit}"


def compare(before: Measurements, after: Measurements) -> list[Change]:
    """The changes from one run to the other.

    Raises:
        NotComparable: their loads differ, or one was cut short or limited by its generator.
    """
    for name in ("scenario", "rate"):
        if before.run[name] != after.run[name]:
            raise NotComparable(f"the {name} differs: {before.run[name]} before, {after.run[name]} after")
    for run in (before, after):
        found = verdict.evaluate(run)
        if found.obstacle:
            raise NotComparable(f"run {run.run['id']}: {found.obstacle}")
    return [*_latencies(before, after), _failures(before, after)]


def _latencies(before: Measurements, after: Measurements) -> list[Change]:
    changes = []
    for endpoint in ENDPOINTS:
        tables = [_table(run, endpoint) for run in (before, after)]
        if all(table.places.size for table in tables):
            samples = [int(table.counts.sum()) for table in tables]
            for percent in (50, 99):
                figures = [_bootstrap(table.counts, table.percentile(percent)) for table in tables]
                margin = max(_MARGIN_MS, _MARGIN * figures[0].value)
                shortage = verdict.shortage(min(samples), percent)
                changes.append(
                    Change(f"{endpoint} p{percent}", "ms", *_difference(*figures), margin, samples, shortage)
                )
    return changes


def _failures(before: Measurements, after: Measurements) -> Change:
    def failed(run: Measurements) -> "_Bootstrap":
        counts = np.array([[second.failed, second.requests] for second in run.seconds], dtype=float)
        return _bootstrap(counts, lambda sums: 100 * sums[:, 0] / np.maximum(sums[:, 1], 1))

    samples = [sum(second.requests for second in run.seconds) for run in (before, after)]
    return Change("failed", "%", *_difference(failed(before), failed(after)), _MARGIN_PERCENT, samples)


@dataclass(frozen=True)
class _Table:
    """The latency histograms of all seconds: a row per second, a column per bucket."""

    counts: _Numbers
    places: _Numbers

    def percentile(self, percent: float) -> Callable[[_Numbers], _Numbers]:
        """A function that computes the percentile in milliseconds of each row of sums."""
        in_ms = np.array([measurements.in_ms(int(place)) for place in self.places])

        def compute(sums: _Numbers) -> _Numbers:
            seen = sums.cumsum(axis=1)
            places: NDArray[np.intp] = (seen >= seen[:, -1:] * percent / 100).argmax(axis=1)
            return np.take(in_ms, places)

        return compute


def _table(run: Measurements, endpoint: str) -> _Table:
    places = sorted(measurements.total(run.seconds, endpoint))
    rows: list[Mapping[int, int]] = [second.latency.get(endpoint, {}) for second in run.seconds]
    counts = [[row.get(place, 0) for place in places] for row in rows]
    return _Table(np.array(counts, dtype=float), np.array(places, dtype=float))


@dataclass(frozen=True)
class _Bootstrap:
    """A figure of the whole run, and of each resample."""

    value: float
    resampled: _Numbers


def _bootstrap(counts: _Numbers, figure: Callable[[_Numbers], _Numbers]) -> _Bootstrap:
    blocks = [block.sum(axis=0) for block in np.array_split(counts, min(len(counts), _MAX_BLOCKS))]
    rng = np.random.default_rng(1)  # a fixed seed: the same results give the same report
    times = rng.multinomial(len(blocks), [1 / len(blocks)] * len(blocks), size=_RESAMPLES)
    return _Bootstrap(float(figure(counts.sum(axis=0, keepdims=True))[0]), figure(times @ np.array(blocks)))


def _difference(before: _Bootstrap, after: _Bootstrap) -> tuple[float, float, float, float]:
    """Returns both figures, and the ends of the interval of their difference."""
    # Both come from the same seed, so one is shuffled; otherwise they would rise and fall together.
    differences = np.random.default_rng(2).permutation(after.resampled) - before.resampled
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(differences, [tail, 100 - tail])
    return before.value, after.value, float(low), float(high)


def main() -> int:
    """Prints the changes. Returns 1 if something is worse, 2 if the runs cannot be compared, and 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.load.compare",
        description=f"Reports what changed between two runs of a load test. {_EXPLANATION}",
        epilog="Exit status: 0 if nothing is worse, 1 if something is, 2 if the runs cannot be compared.",
    )
    parser.add_argument(
        "runs", type=Path, nargs=2, metavar="FOLDER", help="the results of the run before and of the run after"
    )
    arguments = parser.parse_args()
    try:
        before, after = map(measurements.load, arguments.runs)
        changes = compare(before, after)
    except (OSError, json.JSONDecodeError, KeyError, NotComparable) as error:
        console.err.print(f"error: {error}")
        return 2
    _show(before.run, after.run, changes)
    return int(any(change.is_worse for change in changes))


def _show(before: Mapping[str, Any], after: Mapping[str, Any], changes: Sequence[Change]) -> None:
    figures = map(console.right, ("before", "after", "samples"))
    rows = [
        (
            change.name,
            change.what,
            f"{number(change.before)} {change.unit}",
            f"{number(change.after)} {change.unit}",
            "{:,}; {:,}".format(*change.samples),
            change.words,
        )
        for change in changes
    ]
    title = f"{before['id']}, then {after['id']}: {before['scenario']}, {before['rate']:g}/s"
    difference = f"difference, with {_CONFIDENCE:g} % confidence"
    console.out.print(console.table(title, ["", "figure", *figures, difference], rows))
    console.out.print(f"\n{_EXPLANATION}", soft_wrap=False)


if __name__ == "__main__":
    sys.exit(main())
