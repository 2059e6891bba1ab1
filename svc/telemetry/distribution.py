"""Distributions of values in constant memory, in the form in which CloudWatch takes them.

AWS's own collector exports histograms in this form:
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/awsemfexporter
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import log, ulp
from operator import mul
from typing import Any, Final

MAX_ERROR: Final = 0.025  # of a value, in relation to it
_BASE: Final = 1.049  # each value is this many times the one below it, so the nearest is within 2.42 %
_BUCKETS_PER_E: Final = 1 / log(_BASE)
_ONE: Final = 1000  # the bucket of 1.0, large enough that no bucket has a negative number
_ZERO: Final = 0  # the bucket of 0


class Distribution:
    """Counts of values, each rounded to within 2.5 %; a value below 0, which an error in a clock may cause, to 0.

    Attributes:
        counts: the number of values by the number of their bucket.
        total: the exact sum.
        minimum: the exact minimum.
        maximum: the exact maximum.
    """

    __slots__ = ("counts", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.minimum = float("inf")
        self.maximum = 0.0
        self.total = 0.0

    def __bool__(self) -> bool:
        """Whether there is any value."""
        return bool(self.counts)

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts.values())

    def add(self, value: float) -> None:
        """Adds a value."""
        self.counts[_bucket(value)] += 1
        self.total += value
        if value < self.minimum:  # noqa: PLR1730 - min() costs 0.1 µs
            self.minimum = value
        if value > self.maximum:  # noqa: PLR1730 - as above
            self.maximum = value

    def extend(self, values: Sequence[float]) -> None:
        """Adds one value or more. All values of a bucket are counted at once, which costs a third of add()."""
        ordered = sorted(values)
        counted = 0
        while counted < len(ordered):
            bucket = _bucket(ordered[counted])
            # At least one, since a bound may be rounded down to a value of its bucket.
            end = max(counted + 1, bisect_left(ordered, _upper_bound(bucket), counted))
            self.counts[bucket] += end - counted
            counted = end
        self.total += sum(ordered)
        self.minimum = min(self.minimum, ordered[0])
        self.maximum = max(self.maximum, ordered[-1])

    def merge(self, other: "Distribution") -> None:
        """Adds the values of another distribution."""
        for bucket, count in other.counts.items():
            self.counts[bucket] += count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def parts(self, max_values: int) -> Iterator[dict[str, Any]]:
        """The distribution as targets of a metric, each with at most so many values.

        Counts add up exactly over the parts, and so do sums.
        """
        rounded = [(_value(bucket), count) for bucket, count in sorted(self.counts.items())]
        # No value is beyond the ends, which are exact. So a lone value is exact as well.
        cells = [(min(max(value, self.minimum), self.maximum), count) for value, count in rounded]
        rounded_total = sum(value * count for value, count in cells)
        last = (len(cells) - 1) // max_values * max_values
        for start in range(0, len(cells), max_values):
            values, counts = zip(*cells[start : start + max_values], strict=True)
            share = sum(map(mul, values, counts)) / rounded_total if rounded_total else 0.0
            yield {
                "Max": self.maximum if start == last else values[-1],
                "Min": self.minimum if start == 0 else values[0],
                "Count": sum(counts),
                "Sum": float(f"{share * self.total:.9g}"),
                "Values": values,
                "Counts": counts,
            }


def _bucket(value: float) -> int:
    # int() after 0.5 is added rounds as round() does, in half the time. No bucket is negative.
    return int(log(value) * _BUCKETS_PER_E + _ONE + 0.5) if value > 0 else _ZERO


@lru_cache(maxsize=1024)
def _upper_bound(bucket: int) -> float:
    return ulp(0.0) if bucket == _ZERO else float(_BASE ** (bucket - _ONE + 0.5))


@lru_cache(maxsize=1024)
def _value(bucket: int) -> float:
    return 0.0 if bucket == _ZERO else float(f"{_BASE ** (bucket - _ONE):.4g}")
