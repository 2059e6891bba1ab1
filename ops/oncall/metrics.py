"""Stores metrics from documents in the Embedded Metric Format, and computes statistics over periods.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from math import ceil
from typing import Any, Final

from ops.cloudwatch.rows import Metric, MetricKey

# Seconds of a bucket, and how long it is kept: fine for dashboards up to three hours, coarse for burn rates over days.
_FINE: Final = (5, 3 * 3600 + 600)
_COARSE: Final = (300, 10 * 86400)


class Samples:
    """The samples of a period.

    Attributes:
        counts: of each value, rounded to 3 significant digits: this adds at most 0.5 % to the error of a percentile.
    """

    __slots__ = ("count", "counts", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.counts: Counter[float] = Counter()

    @classmethod
    def of(cls, target: Any) -> "Samples":
        """The samples of a metric in a document: a number, an array, or an object with values and their counts.

        Raises:
            KeyError, TypeError, ValueError: it is none of these.
        """
        samples = cls()
        if not isinstance(target, dict):
            for value in target if isinstance(target, list) else [target]:
                samples._add(value, 1)
            return samples
        for value, count in zip(target["Values"], target["Counts"], strict=True):
            samples._add(value, count)
        # These are exact, unlike the values.
        samples.total, samples.minimum, samples.maximum = float(target["Sum"]), target["Min"], target["Max"]
        return samples

    def _add(self, value: float, count: int) -> None:
        self.counts[float(f"{value:.3g}")] += count
        self.count += count
        self.total += value * count
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)

    def merge(self, other: "Samples", *, with_counts: bool = True) -> None:
        """Adds the samples of another period; the counts of values take the longest, and few statistics need them."""
        if with_counts:
            for value, count in other.counts.items():  # Counter.update() takes longer for a few values
                self.counts[value] += count
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)


def samples_of(document: Mapping[str, Any]) -> Iterator[tuple[list[MetricKey], Samples]]:
    """The metrics of a document in the Embedded Metric Format: the keys of each, one per dimension set; its samples.

    Raises:
        KeyError, TypeError, ValueError: the document is not valid.
    """
    for directive in document["_aws"]["CloudWatchMetrics"]:
        sets = [tuple(sorted((name, document[name]) for name in names)) for names in directive["Dimensions"]]
        for metric in directive["Metrics"]:
            name = metric["Name"]
            yield [(directive["Namespace"], name, dimensions) for dimensions in sets], Samples.of(document[name])


class MetricStore:
    """All metrics: in detail for the last hours, and coarser for the last days."""

    def __init__(self) -> None:
        self._fine: dict[MetricKey, _Buckets] = {}
        self._coarse: dict[MetricKey, _Buckets] = {}
        self._newest = 0.0
        self._newest_of: dict[str, float] = {}

    def add(self, document: Mapping[str, Any]) -> None:
        """Adds a document in the Embedded Metric Format.

        Raises:
            KeyError, TypeError, ValueError: the document is not valid.
        """
        at = document["_aws"]["Timestamp"] / 1000
        self._newest = max(self._newest, at)
        for names, samples in samples_of(document):
            for name in names:
                self._newest_of[name[0]] = max(at, self._newest_of.get(name[0], 0.0))
                self._add(name, at, samples)

    def _add(self, name: MetricKey, at: float, samples: Samples) -> None:
        for buckets, (seconds, kept_seconds) in ((self._fine, _FINE), (self._coarse, _COARSE)):
            if name not in buckets:
                buckets[name] = _Buckets(seconds, kept_seconds)
            buckets[name].add(at, samples)

    def keys(self) -> set[MetricKey]:
        """The keys of all metrics that had a sample."""
        return set(self._fine)

    def newest(self, namespace: str) -> float:
        """When the newest sample of a namespace was taken, in seconds since 1970; 0 without one."""
        return self._newest_of.get(namespace, 0.0)

    def shortest_period(self, start: float) -> int:
        """The length of the shortest period from a time on whose samples are kept, in seconds."""
        seconds, kept_seconds = _FINE
        return seconds if start >= self._newest - kept_seconds else _COARSE[0]

    def series(self, metric: Metric, period: int, end: float, count: int) -> list[float | None]:
        """A statistic for each period.

        Args:
            metric: with the statistic.
            period: in seconds.
            end: of the last period, in seconds since 1970. Periods end there, and are not aligned to the clock.
            count: of periods.

        Returns:
            A value for each period, oldest first; None where there is no sample.

        Raises:
            ValueError: there is no such statistic.
        """
        statistic = _statistic(metric.statistic)
        if metric.key not in self._fine:
            return [None] * count
        ends = (end - back * period for back in reversed(range(count)))
        with_counts = metric.statistic not in _SIMPLE
        periods = (self._between(metric.key, last - period, last, with_counts=with_counts) for last in ends)
        return [statistic(samples) if samples.count else None for samples in periods]

    def _between(self, key: MetricKey, start: float, end: float, *, with_counts: bool) -> Samples:
        """The samples of a period: in detail, or coarser but for its end, so that none is newer than the period."""
        seconds = self.shortest_period(start)
        if seconds == _FINE[0]:
            return self._fine[key].between(start, end, with_counts=with_counts)
        whole = end // seconds * seconds
        if self.shortest_period(whole) == seconds:
            return self._coarse[key].between(start, end, with_counts=with_counts)
        samples = self._coarse[key].between(start, whole, with_counts=with_counts)
        samples.merge(self._fine[key].between(whole, end, with_counts=with_counts), with_counts=with_counts)
        return samples


class _Buckets:
    """The samples of one metric, in buckets of time."""

    def __init__(self, seconds: int, kept_seconds: int) -> None:
        self._seconds = seconds
        self._max_buckets = kept_seconds // seconds
        self._samples: OrderedDict[int, Samples] = OrderedDict()

    def add(self, at: float, samples: Samples) -> None:
        number = int(at // self._seconds)
        if number not in self._samples:
            self._samples[number] = Samples()
            while len(self._samples) > self._max_buckets:
                self._samples.popitem(last=False)
        self._samples[number].merge(samples)

    def between(self, start: float, end: float, *, with_counts: bool) -> Samples:
        """The samples of the buckets that begin from start to before end."""
        numbers = range(ceil(start / self._seconds), ceil(end / self._seconds))
        if len(numbers) > len(self._samples):
            return self._of((number for number in self._samples if number in numbers), with_counts=with_counts)
        return self._of((number for number in numbers if number in self._samples), with_counts=with_counts)

    def _of(self, numbers: Iterable[int], *, with_counts: bool) -> Samples:
        found = Samples()
        for number in numbers:
            found.merge(self._samples[number], with_counts=with_counts)
        return found


_SIMPLE: Final[dict[str, Callable[[Samples], float]]] = {
    "Sum": lambda samples: samples.total,
    "Average": lambda samples: samples.total / samples.count,
    "Minimum": lambda samples: samples.minimum,
    "Maximum": lambda samples: samples.maximum,
    "SampleCount": lambda samples: samples.count,
}
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
_RANK: Final = re.compile(r"PR\((\d+(?:\.\d+)?)?:(\d+(?:\.\d+)?)?\)")


def _statistic(name: str) -> Callable[[Samples], float]:
    if name in _SIMPLE:
        return _SIMPLE[name]
    if percentile := _PERCENTILE.fullmatch(name):
        share = float(percentile[1]) / 100
        return lambda samples: _percentile(samples, share)
    if rank := _RANK.fullmatch(name):
        low, high = (float(bound) if bound else None for bound in rank.groups())
        return lambda samples: _rank(samples, low, high)
    raise ValueError(f"{name} is not a statistic")


def _percentile(samples: Samples, share: float) -> float:
    values = sorted(samples.counts)
    below = accumulate(samples.counts[value] for value in values)
    value = next(value for value, count in zip(values, below, strict=True) if count >= share * samples.count)
    return min(max(value, samples.minimum), samples.maximum)


def _rank(samples: Samples, low: float | None, high: float | None) -> float:
    within = sum(
        count
        for value, count in samples.counts.items()
        if (low is None or value > low) and (high is None or value <= high)
    )
    return 100 * within / samples.count
