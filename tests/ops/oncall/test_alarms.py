"""CloudWatch's rules for statistics, metric math and the states of alarms."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from ops.cloudwatch.rows import Alarms, Metric, MetricAlarm, Suppression, load
from ops.oncall.alarms import AlarmEvaluator, state_of
from ops.oncall.expressions import InvalidExpression, evaluate, names_in
from ops.oncall.machine import NAME, document
from ops.oncall.metrics import MetricStore
from ops.oncall.suppression import ALARM, INSUFFICIENT_DATA, OK

NOW: Final = 1_800_000_000.0
KEEP: Final = "the state before"

ROW: Final = MetricAlarm(
    name="row",
    severity="ticket",
    means="",
    measures="",
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
    """A store with samples: seconds before NOW, and one or several values."""
    store = MetricStore()
    for seconds_ago, values in samples:
        store.add(document("N", {}, {name: values}, int((NOW - seconds_ago) * 1000)))
    return store


def one(store: MetricStore, statistic: str, period: int = 60) -> float | None:
    """The statistic of the last period."""
    return store.series(Metric("N", "M", (), statistic), period, NOW, 1)[0]


# AWS's tables for alarms with 3 periods, which read 5 points: 0 does not breach the threshold, X does, - is missing.
# Then the states for missing, ignore, breaching and notBreaching.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
OF_3: Final = [
    ("0-X-X", OK, OK, OK, OK),
    ("0----", OK, OK, OK, OK),
    ("-----", INSUFFICIENT_DATA, KEEP, ALARM, OK),
    ("0XX-X", ALARM, ALARM, ALARM, ALARM),
    ("--X--", ALARM, KEEP, ALARM, OK),
    ("----X", KEEP, KEEP, ALARM, OK),  # the next point may not breach the threshold
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
def test_missing_points_are_treated_as_aws_documents(
    to_alarm: int, points: str, states: list[str], before: str
) -> None:
    """Each row of AWS's tables, from each state."""
    series = [{"0": 0.0, "X": 2.0, "-": None}[point] for point in points]
    for missing, expected in zip(("missing", "ignore", "breaching", "notBreaching"), states, strict=True):
        row = replace(ROW, periods_to_alarm=to_alarm, missing=missing)  # type: ignore[arg-type]
        assert state_of(row, series, before) == (before if expected is KEEP else expected)


@pytest.mark.parametrize(
    ("comparison", "breaching", "good"),
    [
        ("GreaterThanThreshold", 1.01, 1),
        ("GreaterThanOrEqualToThreshold", 1, 0.99),
        ("LessThanThreshold", 0.99, 1),
        ("LessThanOrEqualToThreshold", 1, 1.01),
    ],
)
def test_each_comparison_with_a_threshold(comparison: str, breaching: float, good: float) -> None:
    """At the threshold and next to it."""
    row = replace(ROW, comparison=comparison, periods=1, periods_to_alarm=1)

    assert state_of(row, [breaching], OK) == ALARM
    assert state_of(row, [good], ALARM) == OK


def test_a_statistic_covers_all_samples_of_a_period() -> None:
    """Of several documents, with one or several samples."""
    store = store_of((59, [1, 2]), (30, 3), (1, [10]), (61, [1000]))

    assert one(store, "Sum") == 16
    assert one(store, "Average") == 4
    assert (one(store, "Minimum"), one(store, "Maximum"), one(store, "SampleCount")) == (1, 10, 4)
    assert (one(store, "p50"), one(store, "p99"), one(store, "p100")) == (2, 10, 10)
    assert one(store, "PR(:2)") == 50
    assert one(store, "PR(2:3)") == 25


def test_the_error_of_a_percentile_is_at_most_half_a_percent() -> None:
    """Values are stored with 3 digits."""
    store = store_of((5, [value / 7 for value in range(1, 101)]))

    assert one(store, "p90") == pytest.approx(90 / 7, rel=0.005)


def test_a_period_without_samples_has_no_value() -> None:
    """The last period ends at the given time, and periods are not aligned to the clock."""
    store = store_of((10, 1), (130, 3))

    assert store.series(Metric("N", "M", (), "Sum"), 60, NOW, 4) == [None, 3, None, 1]
    assert store.series(Metric("N", "other", (), "Sum"), 60, NOW, 2) == [None, None]


@pytest.mark.parametrize("period", [60, 300, 1800, 3600])
@pytest.mark.parametrize("phase", [0, 70, 149, 295])
def test_a_steady_stream_gives_the_same_sum_at_any_time(period: int, phase: int) -> None:
    """Wherever a period begins within a bucket."""
    store = store_of(*[(seconds, 1) for seconds in range(7200, -600, -10)])
    (value,) = store.series(Metric("N", "M", (), "Sum"), period, NOW + phase, 1)

    assert value == pytest.approx(period / 10, abs=1)


def test_samples_are_kept_for_three_days() -> None:
    """As the slowest burn rate needs."""
    store = store_of(*[(hours * 3600, 1) for hours in range(1, 72)])

    assert one(store, "Sum", period=3 * 86400) == 71


def test_each_dimension_set_is_a_metric() -> None:
    """As in CloudWatch, from one document."""
    store = MetricStore()
    directive = {"Namespace": "N", "Dimensions": [[], ["A", "B"]], "Metrics": [{"Name": "M"}]}
    aws = {"Timestamp": int(NOW * 1000), "CloudWatchMetrics": [directive]}
    store.add({"_aws": aws, "M": 1, "B": "b", "A": "a"})

    assert store.keys() == {("N", "M", ()), ("N", "M", (("A", "a"), ("B", "b")))}


def test_an_unknown_statistic_is_refused() -> None:
    """With an error."""
    with pytest.raises(ValueError, match="p101 is not a statistic"):
        one(store_of((1, 1)), "p101")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("100 * a / b", [50, None, None, 100]),
        ("a - 1", [0, None, 2, 3]),
        ("IF(a >= 3, a, 0)", [0, None, 3, 4]),
        ("IF(a == 1, 7, b)", [7, None, 0, 4]),
        ("FILL(a, 0) + 1", [2, 1, 4, 5]),
        ("FILL(a, REPEAT)", [1, 1, 3, 4]),
        ("MAX([a, b])", [2, 2, 3, 4]),
        ("SUM([a, b])", [3, 2, 3, 8]),
        ("a / PERIOD(a)", [1 / 60, None, 3 / 60, 4 / 60]),
    ],
)
def test_metric_math_works_point_by_point(expression: str, expected: list[float | None]) -> None:
    """An operation with a missing value, or a division by 0, has no value."""
    series: dict[str, list[float | None]] = {"a": [1, None, 3, 4], "b": [2, 2, 0, 4]}

    assert evaluate(expression, series, 60) == [None if value is None else pytest.approx(value) for value in expected]


@pytest.mark.parametrize("expression", ["c + 1", "SEARCH('a')", "a +", "a.b", "IF(a, b)", "a if b else a", "'a'"])
def test_an_unsupported_expression_is_refused(expression: str) -> None:
    """With an error."""
    with pytest.raises(InvalidExpression):
        evaluate(expression, {"a": [1], "b": [2]}, 60)


def test_names_in_an_expression_are_the_names_of_series() -> None:
    """Not the names of functions."""
    assert names_in("IF(faults >= 10, 100 * faults / requests, 0)") == {"faults", "requests"}
    assert names_in("FILL(faults, REPEAT)") == {"faults"}


@pytest.mark.parametrize(
    ("row", "value", "words"),
    [
        ("database-unavailable", 0.34, "time without the database: 34 %, limit 10 %, in 1 of 3 periods of 1 min"),
        ("availability-fast-long", 5.25, "requests with a server error (5xx): 5.25 %, limit 1.44 %, over 1 h"),
        ("memory", 4e8, "memory of the largest process: 381 MiB, limit 307 MiB, in 5 of 5 periods of 1 min"),
        ("pods-below-minimum-measured", 1, "ready pods: 1, minimum 2, in 5 of 5 periods of 1 min"),
        ("nodes-at-maximum", None, "nodes: no data, fires from 5, in 6 of 6 periods of 5 min"),
    ],
)
def test_a_reason_names_what_is_measured_its_unit_and_the_limit(row: str, value: float | None, words: str) -> None:
    """In words, rather than the name of a metric and an operator."""
    assert load(NAME).metric[row].describe(value) == words


def test_an_alarm_without_data_says_why() -> None:
    """Nobody reports, there is no traffic, or there is too little data yet."""
    row = replace(ROW, missing="missing", periods=1, periods_to_alarm=1)
    slow = replace(ROW, name="slow", missing="ignore")
    alarms = Alarms({}, {}, Suppression(0, 0), {"row": row, "slow": slow}, {})
    store = MetricStore()
    evaluator = AlarmEvaluator(alarms, store)

    def absence(seconds: float, number: int = 0) -> str:
        """Of an alarm, some seconds after NOW."""
        state = evaluator.evaluate(NOW + seconds)[number]
        assert (f"({state.absence})" in state.reason) == bool(state.absence)
        return state.absence

    assert absence(0) == "nobody reports"
    store.add(document("N", {}, {"Other": 1}, int(NOW * 1000)))
    assert absence(30) == "no traffic"
    store.add(document("N", {}, {"M": 2}, int(NOW * 1000)))
    assert absence(40) == ""
    assert absence(50, 1) == "too little yet"
    assert absence(600) == f"nobody reports since {datetime.fromtimestamp(NOW, UTC):%H:%M:%S}"
