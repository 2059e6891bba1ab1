"""The aggregates of `stats`.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from ops.oncall.insights.functions import Function
from ops.oncall.insights.values import number, order
from ops.oncall.logs import Value

Values: TypeAlias = Sequence[Value]


def _numbers(values: Values) -> list[float]:
    return [found for value in values if (found := number(value)) is not None]


def _average(values: Values) -> float | None:
    found = _numbers(values)
    return sum(found) / len(found) if found else None


def _percentile(values: Values, percent: float) -> float | None:
    """The smallest value that at least this percentage of the values does not exceed.

    AWS documents neither the method nor that the result is exact.
    """
    found = sorted(_numbers(values))
    return found[max(math.ceil(len(found) * percent / 100), 1) - 1] if found else None


def _deviation(values: Values) -> float | None:
    """Of all values; AWS does not document whether they are a sample."""
    found = _numbers(values)
    return statistics.pstdev(found) if found else None


def _first(values: Values) -> Value:
    return min(values, key=order, default=None)


def _last(values: Values) -> Value:
    return max(values, key=order, default=None)


# Each takes the values of its argument in the rows of a group, newest first, without missing ones.
AGGREGATES: Final[Mapping[str, Function]] = {
    "count": Function(len, 0, 1),
    "count_distinct": Function(lambda values: len(set(values)), 1, 1),
    "sum": Function(lambda values: sum(found) if (found := _numbers(values)) else None, 1, 1),
    "avg": Function(_average, 1, 1),
    "stddev": Function(_deviation, 1, 1),
    "min": Function(_first, 1, 1),
    "max": Function(_last, 1, 1),
    "sortsfirst": Function(_first, 1, 1),
    "sortslast": Function(_last, 1, 1),
    "pct": Function(_percentile, 2, 2),
    "latest": Function(lambda values: next(iter(values), None), 1, 1),
    "earliest": Function(lambda values: values[-1] if values else None, 1, 1),
}
