"""Sets two runs side by side: `python -m ops.load.compare A B`, each a folder of results.

What changed is told by a bootstrap: the seconds of each run are drawn anew, with replacement, and the figures made
from what was drawn, many times; how much they scatter is the noise. It needs no assumption of how latencies are
spread, and a p99 is that of all requests in what was drawn. A test of ranks, such as Mann and Whitney's on each
second's p99, would ask of something else, and of too few requests each. Neighbouring seconds are alike (a checkpoint
slows several), so long runs are drawn in blocks. What the seconds of one run cannot show is how runs differ among each
other: hence the margins below, and what is near them deserves a third run.
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

from ops.common.pages import number
from ops.load import measured, verdict
from ops.load.measured import Measured
from ops.load.scenarios import ENDPOINTS

_DRAWS: Final = 2000
_BLOCKS_MOST: Final = 30
_CONFIDENCE: Final = 99.0  # per cent; there are some seven figures, so 95 would cry wolf in every third comparison
_MARGIN: Final = 0.1  # less than a tenth is what two runs of the same differ by
_MARGIN_MS: Final = 1.0  # and this is what the generator's own timers do
_MARGIN_PERCENT: Final = 0.1  # of requests: all that the objective lets fail

_Numbers: TypeAlias = NDArray[np.float64]


class Incomparable(Exception):
    """Two results that no comparison can be made of."""


@dataclass(frozen=True)
class Change:
    """How a figure changed.

    Attributes:
        what: the figure's name.
        unit: ms, or %.
        before: in the first run.
        after: in the second.
        least: that the difference may be, with a confidence of 99 %.
        most: likewise.
        margin: what it has to be beyond to count.
    """

    what: str
    unit: str
    before: float
    after: float
    least: float
    most: float
    margin: float

    @property
    def is_worse(self) -> bool:
        """Whether it rose, beyond the noise."""
        return self.least > self.margin

    @property
    def words(self) -> str:
        """What to call it."""
        more, less = ("slower", "faster") if self.unit == "ms" else ("more failures", "fewer failures")
        if self.is_worse:
            return more
        return less if self.most < -self.margin else "no change"


def compare(before: Measured, after: Measured) -> list[Change]:
    """What changed from one run to the other.

    Raises:
        Incomparable: their loads were not the same, or one was cut short or limited by its generator.
    """
    for name in ("scenario", "rate"):
        if before.run[name] != after.run[name]:
            raise Incomparable(f"the {name} was {before.run[name]} in the one and {after.run[name]} in the other")
    for run in (before, after):
        found = verdict.judge(run)
        if found.limits or found.unfinished:
            raise Incomparable(f"{run.run['id']} says of itself: {found.words}")
    return [*_latencies(before, after), _failures(before, after)]


def _latencies(before: Measured, after: Measured) -> list[Change]:
    changes = []
    for endpoint in ENDPOINTS:
        tables = [_table(run, endpoint) for run in (before, after)]
        if all(table.places.size for table in tables):
            for percent in (50, 99):
                first, second = (_scatter(table.counts, table.percentile(percent)) for table in tables)
                margin = max(_MARGIN_MS, _MARGIN * first.value)
                changes.append(_change(f"{endpoint} p{percent}", "ms", first, second, margin))
    return changes


def _failures(before: Measured, after: Measured) -> Change:
    def failed(run: Measured) -> "_Scatter":
        counts = np.array([[second.failed, second.requests] for second in run.seconds], dtype=float)
        return _scatter(counts, lambda drawn: 100 * drawn[:, 0] / np.maximum(drawn[:, 1], 1))

    return _change("failed", "%", failed(before), failed(after), _MARGIN_PERCENT)


@dataclass(frozen=True)
class _Table:
    """How often each latency was seen in each second: a row for each second, a column for each place."""

    counts: _Numbers
    places: _Numbers

    def percentile(self, percent: float) -> Callable[[_Numbers], _Numbers]:
        """Makes it, in milliseconds, from sums of rows."""
        in_ms = np.array([measured.in_ms(int(place)) for place in self.places])

        def found(drawn: _Numbers) -> _Numbers:
            seen = drawn.cumsum(axis=1)
            places: NDArray[np.intp] = (seen >= seen[:, -1:] * percent / 100).argmax(axis=1)
            return np.take(in_ms, places)

        return found


def _table(run: Measured, endpoint: str) -> _Table:
    places = sorted(measured.total(run.seconds, endpoint))
    rows: list[Mapping[int, int]] = [second.latency.get(endpoint, {}) for second in run.seconds]
    counts = [[row.get(place, 0) for place in places] for row in rows]
    return _Table(np.array(counts, dtype=float), np.array(places, dtype=float))


@dataclass(frozen=True)
class _Scatter:
    """A figure, and what it was in each draw."""

    value: float
    draws: _Numbers


def _scatter(counts: _Numbers, figure: Callable[[_Numbers], _Numbers]) -> _Scatter:
    blocks = [block.sum(axis=0) for block in np.array_split(counts, min(len(counts), _BLOCKS_MOST))]
    draw = np.random.default_rng(1)  # the same results give the same words
    times = draw.multinomial(len(blocks), [1 / len(blocks)] * len(blocks), size=_DRAWS)
    return _Scatter(float(figure(counts.sum(axis=0, keepdims=True))[0]), figure(times @ np.array(blocks)))


def _change(what: str, unit: str, before: _Scatter, after: _Scatter, margin: float) -> Change:
    # Both are drawn alike, so one is shuffled: else they would rise and fall together.
    differences = np.random.default_rng(2).permutation(after.draws) - before.draws
    rest = (100 - _CONFIDENCE) / 2
    least, most = np.percentile(differences, [rest, 100 - rest])
    return Change(what, unit, before.value, after.value, float(least), float(most), margin)


def main() -> int:
    """Tells it; 1 where something is worse, 2 where there is nothing to be compared."""
    parser = argparse.ArgumentParser(prog="python -m ops.load.compare", description="What changed between two runs.")
    parser.add_argument("runs", type=Path, nargs=2, metavar="FOLDER", help="of the results: before, after")
    arguments = parser.parse_args()
    try:
        before, after = map(measured.load, arguments.runs)
        changes = compare(before, after)
    except (OSError, json.JSONDecodeError, KeyError, Incomparable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _tell(before.run, after.run, changes)
    return int(any(change.is_worse for change in changes))


def _tell(before: dict[str, Any], after: dict[str, Any], changes: Sequence[Change]) -> None:
    print(f"{before['id']}, then {after['id']}: {before['scenario']}, {before['rate']:g}/s")
    for each in changes:
        span = f"{each.least:+.3g} to {each.most:+.3g} {each.unit}"
        print(
            f"{each.words:14} {each.what:11} {number(each.before):>7} → {number(each.after):>7} {each.unit:2}  {span}"
        )


if __name__ == "__main__":
    sys.exit(main())
