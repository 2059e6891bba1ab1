"""CloudWatch's rules, as ops/oncall follows them: statistics, metric math, and what makes an alarm fire."""

from dataclasses import replace
from typing import Any, Final

import pytest

from ops.cloudwatch.rows import Metric, MetricAlarm
from ops.oncall.alarms import ALARM, INSUFFICIENT_DATA, OK, state_of
from ops.oncall.expressions import InvalidExpression, evaluate, names_in
from ops.oncall.machine import document
from ops.oncall.metrics import MetricStore

NOW: Final = 1_800_000_000.0
KEEP: Final = "the state before"

ROW: Final = MetricAlarm(
    name="row",
    severity="ticket",
    means="",
    reason="",
    metrics={"metric": Metric("N", "M", (), "Sum")},
    comparison="GreaterThanThreshold",
    threshold=1,
    period_seconds=60,
    periods=3,
    periods_to_alarm=3,
    missing="missing",
)


def store_of(*samples: tuple[float, Any], name: str = "M") -> MetricStore:
    """What has these samples: how many seconds ago, and which."""
    store = MetricStore()
    for seconds_ago, values in samples:
        store.add(document("N", {}, {name: values}, int((NOW - seconds_ago) * 1000)))
    return store


def one(store: MetricStore, statistic: str, period: int = 60) -> float | None:
    """The statistic of the last period."""
    return store.series(Metric("N", "M", (), statistic), period, NOW, 1)[0]


# What AWS shows of alarms with 3 points, of which 5 are looked at: 0 is within the threshold, X beyond, - missing. Then
# the state where what is missing counts as missing, is ignored, is breaching, is not breaching.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
OF_3: Final = [
    ("0-X-X", OK, OK, OK, OK),
    ("0----", OK, OK, OK, OK),
    ("-----", INSUFFICIENT_DATA, KEEP, ALARM, OK),
    ("0XX-X", ALARM, ALARM, ALARM, ALARM),
    ("--X--", ALARM, KEEP, ALARM, OK),
    ("----X", KEEP, KEEP, ALARM, OK),  # it may be within the threshold again at the next one
    ("---X-", KEEP, KEEP, ALARM, OK),
]
OF_2_OF_3: Final = [
    ("0-X-X", ALARM, ALARM, ALARM, ALARM),
    ("00X0X", ALARM, ALARM, ALARM, ALARM),
    ("0-X--", OK, OK, ALARM, OK),
    ("----0", OK, OK, ALARM, OK),
    ("---X-", ALARM, KEEP, ALARM, OK),
]


@pytest.mark.parametrize(
    ("to_alarm", "points", "states"),
    [(3, points, states) for points, *states in OF_3] + [(2, points, states) for points, *states in OF_2_OF_3],
)
@pytest.mark.parametrize("before", [OK, ALARM, INSUFFICIENT_DATA])
def test_missing_points_count_as_aws_says(to_alarm: int, points: str, states: list[str], before: str) -> None:
    """AWS's own tables, row by row, from each state."""
    series = [{"0": 0.0, "X": 2.0, "-": None}[point] for point in points]
    for missing, expected in zip(("missing", "ignore", "breaching", "notBreaching"), states, strict=True):
        row = replace(ROW, periods_to_alarm=to_alarm, missing=missing)  # type: ignore[arg-type]
        assert state_of(row, series, before) == (before if expected is KEEP else expected)


@pytest.mark.parametrize(
    ("comparison", "beyond", "within"),
    [
        ("GreaterThanThreshold", 1.01, 1),
        ("GreaterThanOrEqualToThreshold", 1, 0.99),
        ("LessThanThreshold", 0.99, 1),
        ("LessThanOrEqualToThreshold", 1, 1.01),
    ],
)
def test_a_threshold_is_compared_as_it_says(comparison: str, beyond: float, within: float) -> None:
    """Each of CloudWatch's comparisons, at the threshold and beside it."""
    row = replace(ROW, comparison=comparison, periods=1, periods_to_alarm=1)

    assert state_of(row, [beyond], OK) == ALARM
    assert state_of(row, [within], ALARM) == OK


def test_statistics_are_of_all_samples_of_a_period() -> None:
    """From several documents, with one sample or with many."""
    store = store_of((59, [1, 2]), (30, 3), (1, [10]), (61, [1000]))

    assert one(store, "Sum") == 16
    assert one(store, "Average") == 4
    assert (one(store, "Minimum"), one(store, "Maximum"), one(store, "SampleCount")) == (1, 10, 4)
    assert (one(store, "p50"), one(store, "p99"), one(store, "p100")) == (2, 10, 10)
    assert one(store, "PR(:2)") == 50
    assert one(store, "PR(2:3)") == 25


def test_a_percentile_is_right_to_half_a_per_cent() -> None:
    """Of many samples, whose values are kept with 3 digits."""
    store = store_of((5, [value / 7 for value in range(1, 101)]))

    assert one(store, "p90") == pytest.approx(90 / 7, rel=0.005)


def test_periods_slide_and_those_without_samples_are_missing() -> None:
    """The last one ends now, wherever the clock stands."""
    store = store_of((10, 1), (130, 3))

    assert store.series(Metric("N", "M", (), "Sum"), 60, NOW, 4) == [None, 3, None, 1]
    assert store.series(Metric("N", "other", (), "Sum"), 60, NOW, 2) == [None, None]


@pytest.mark.parametrize("period", [60, 300, 1800, 3600])
@pytest.mark.parametrize("phase", [0, 70, 149, 295])
def test_a_period_counts_what_is_in_it_wherever_it_begins(period: int, phase: int) -> None:
    """A steady stream gives the same sum at any time."""
    store = store_of(*[(seconds, 1) for seconds in range(7200, -600, -10)])
    (value,) = store.series(Metric("N", "M", (), "Sum"), period, NOW + phase, 1)

    assert value == pytest.approx(period / 10, abs=1)


def test_days_are_kept_for_burn_rates() -> None:
    """Coarser than the last hours."""
    store = store_of(*[(hours * 3600, 1) for hours in range(1, 72)])

    assert one(store, "Sum", period=3 * 86400) == 71


def test_each_set_of_dimensions_is_a_metric() -> None:
    """As CloudWatch makes them of one document."""
    store = MetricStore()
    directive = {"Namespace": "N", "Dimensions": [[], ["A", "B"]], "Metrics": [{"Name": "M"}]}
    aws = {"Timestamp": int(NOW * 1000), "CloudWatchMetrics": [directive]}
    store.add({"_aws": aws, "M": 1, "B": "b", "A": "a"})

    assert store.known() == {("N", "M", ()), ("N", "M", (("A", "a"), ("B", "b")))}


def test_an_unknown_statistic_is_refused() -> None:
    """Rather than to show something else."""
    with pytest.raises(ValueError, match="p101 is no statistic"):
        one(store_of((1, 1)), "p101")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("100 * a / b", [50, None, None, 100]),
        ("a - 1", [0, None, 2, 3]),
        ("IF(a >= 3, a, 0)", [0, None, 3, 4]),
        ("IF(a == 1, 7, b)", [7, None, 0, 4]),
        ("FILL(a, 0) + 1", [2, 1, 4, 5]),
        ("MAX([a, b])", [2, 2, 3, 4]),
        ("SUM([a, b])", [3, 2, 3, 8]),
        ("a / PERIOD(a)", [1 / 60, None, 3 / 60, 4 / 60]),
    ],
)
def test_metric_math_is_done_point_by_point(expression: str, expected: list[float | None]) -> None:
    """What is missing stays missing, and so does what is divided by 0."""
    series: dict[str, list[float | None]] = {"a": [1, None, 3, 4], "b": [2, 2, 0, 4]}

    assert evaluate(expression, series, 60) == [None if value is None else pytest.approx(value) for value in expected]


@pytest.mark.parametrize("expression", ["c + 1", "SEARCH('a')", "a +", "a.b", "IF(a, b)", "a if b else a", "'a'"])
def test_what_is_not_understood_is_refused(expression: str) -> None:
    """Rather than to be evaluated as something else."""
    with pytest.raises(InvalidExpression):
        evaluate(expression, {"a": [1], "b": [2]}, 60)


def test_the_names_in_an_expression_are_its_series() -> None:
    """And not its functions."""
    assert names_in("IF(faults >= 10, 100 * faults / requests, 0)") == {"faults", "requests"}
