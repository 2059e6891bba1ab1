"""Distributions: whatever the values, statistics stay within the stated error, and memory stays small."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.oncall.metrics import Samples
from svc.telemetry.distribution import MAX_ERROR, Distribution
from tests.svc.logs import lines

VALUES = st.floats(0, 1e12).filter(lambda value: value == 0 or value > 1e-6)


def of(values: Sequence[float]) -> Distribution:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    return distribution


@given(st.lists(VALUES | st.floats(-1, 1), min_size=1, max_size=300))
def test_values_together_count_as_one_by_one(values: list[float]) -> None:
    """Whatever their order, extend() counts each value as add() does; at the bound of two buckets either is right."""
    together = Distribution()
    together.extend(values)
    single = of(values)

    assert (together.minimum, together.maximum) == (single.minimum, single.maximum)
    assert together.total == pytest.approx(single.total, rel=1e-9, abs=1e-9)
    ranks = [sorted(Counter(each.counts).elements()) for each in (together, single)]
    assert max(abs(one - other) for one, other in zip(*ranks, strict=True)) <= 1


@given(st.lists(VALUES, min_size=1, max_size=200), st.integers(1, 100), st.floats(0, 100))
def test_percentiles_are_within_the_error(values: list[float], max_values: int, percent: float) -> None:
    """Counts are exact; each percentile over the parts of a distribution is that of the samples, within 2.5 %."""
    merged = of(values[::2])
    merged.merge(of(values[1::2]))
    parts = list(merged.parts(max_values))
    found = Samples()
    for part in parts:
        lines.check_target({**part, "Values": list(part["Values"]), "Counts": list(part["Counts"])})
        found.merge(Samples.of(part))

    assert found.count == merged.count == len(values)
    assert found.total == pytest.approx(sum(values), rel=1e-6)
    assert (found.minimum, found.maximum) == (min(values), max(values))
    rank = max(0, math.ceil(percent / 100 * len(values)) - 1)
    counted = [value for part in parts for value in lines.values({"m": {**part}}, "m")]
    assert counted[rank] == pytest.approx(sorted(values)[rank], rel=MAX_ERROR)


def test_a_lone_value_is_exact() -> None:
    """With a few requests per interval, the latency is that of the log line."""
    (part,) = of([12.345] * 3).parts(100)

    assert part == {"Max": 12.345, "Min": 12.345, "Count": 3, "Sum": 37.035, "Values": (12.345,), "Counts": (3,)}


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    """From a microsecond to an hour, in milliseconds, there are 461 buckets."""
    distribution = of([math.exp(number / 1000) for number in range(round(1000 * math.log(1e-3)), 15_096)])

    assert len(distribution.counts) <= 461


def test_a_negative_value_counts_as_zero_and_is_visible() -> None:
    """A clock that goes backwards does no harm, and the minimum shows it."""
    (part,) = of([-3.0, 1.0]).parts(100)

    assert (part["Count"], part["Min"], part["Max"], part["Counts"]) == (2, -3.0, 1.0, (1, 1))
