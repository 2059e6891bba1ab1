"""The aggregates of `stats`.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html
"""

import math
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


# Each takes the values of its argument in the rows of a group, newest first, without missing ones.
AGGREGATES: Final[Mapping[str, Function]] = {
    "count": Function(len, 0, 1),
    "count_distinct": Function(lambda values: len(set(values)), 1, 1),
    "sum": Function(lambda values: sum(found) if (found := _numbers(values)) else None, 1, 1),
    "avg": Function(_average, 1, 1),
    "min": Function(lambda values: min(values, key=order, default=None), 1, 1),
    "max": Function(lambda values: max(values, key=order, default=None), 1, 1),
    "pct": Function(_percentile, 2, 2),
    "latest": Function(lambda values: next(iter(values), None), 1, 1),
    "earliest": Function(lambda values: values[-1] if values else None, 1, 1),
}
