"""Each alarm drilled: silent just within its threshold, firing just beyond it, and in a real run with a real fault."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pytest

from ops.cloudwatch.rows import BurnRate, Metric, MetricAlarm, load
from ops.oncall.alarms import ALARM, INSUFFICIENT_DATA, OK, Board, State, points_of
from ops.oncall.machine import NAME, document
from ops.oncall.metrics import MetricStore
from tests.ops.cloudwatch.recording import Run

ALARMS: Final = load(NAME)
ROWS: Final = {name: row for name, row in ALARMS.metric.items() if row.severity != "part"}
NOW: Final = 1_800_000_000.0

Samples: TypeAlias = Any  # a number or a list of them, or None for no document at all


@dataclass(frozen=True)
class Drill:
    """What a period has, for each metric of the alarm.

    Attributes:
        quiet: just within the threshold.
        firing: just beyond it.
    """

    quiet: Mapping[str, Samples]
    firing: Mapping[str, Samples]


def of(metric: str, quiet: Samples, firing: Samples) -> Drill:
    """A drill of an alarm that looks at one metric."""
    return Drill({metric: quiet}, {metric: firing})


def samples(number: int, low: float, high: float) -> list[float]:
    """A hundred, so many of which are high."""
    return [low] * (100 - number) + [high] * number


DRILLS: Final = {
    "silence": of("told", 5, None),
    "database-away": of("away", 0.1, 0.101),
    "database-lost": of("away", 0.9, 0.901),
    "shed": of("shed", 0, 1),
    "event-loop-lag": of("lag", samples(1, 50, 400), samples(2, 50, 50.5)),
    "queue-wait": Drill({"get": 99, "add": 99}, {"get": 1, "add": 101}),
    "connections": of("in_use", 2.7, 2.71),
    "cpu": of("cpu", [80, 90], [80, 90.2]),
    "memory": of("memory", [75e6, 322.1e6], [75e6, 322.2e6]),
    "open-files": of("files", 3200, 3201),
    "log-lines-dropped": of("dropped", 0, 1),
    "records-dropped": of("dropped", 0, 1),
    "records-delayed": of("retries", 5, 6),
    "shipping-silence": of("told", 0, None),
    "traces-dropped": of("failed", 0, 1),
    "emf-parsing-errors": of("errors", 0, 1),
    "emf-validation-errors": of("errors", 0, 1),
    "database-cpu": of("cpu", 90, 90.1),
    "database-load": of("load", 2, 2.1),
    "database-connections": of("connections", 65, 66),
    "database-memory": of("free", 54e6, 53e6),
    "database-storage": of("free", 1.08e9, 1.07e9),
    "database-read-latency": of("latency", 0.02, 0.0201),
    "database-write-latency": of("latency", 0.02, 0.0201),
    "database-transaction-ids": of("used", 1_000_000_000, 1_010_000_000),
    "pods-few": of("pods", 2, 1),
    "pods-restart": of("restarts", 2, 3),
    "node-cpu": of("cpu", 90, 90.1),
    "node-memory": of("memory", 85, 85.1),
    "node-disk": of("used", 80, 80.1),
    "nodes-failed": of("failed", 0, 1),
    "nodes-at-most": of("nodes", 4, 5),
}
EACH: Final = pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items()])
BURNS: Final = pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ALARMS.composite.items()])


def add(store: MetricStore, metric: Metric, values: Samples, at: float) -> None:
    """Adds samples of a metric, if there are any."""
    if values is not None:
        store.add(document(metric.namespace, dict(metric.dimensions), {metric.name: values}, int(at * 1000)))


def state_after(row: MetricAlarm, *periods: Mapping[str, Samples]) -> str:
    """The alarm's state after these periods, the last of which ends now, and enough quiet ones before."""
    store = MetricStore()
    before = [DRILLS[row.name].quiet] * (row.periods + 2)
    for back, period in enumerate(reversed([*before, *periods])):
        for name, values in period.items():
            add(store, row.metrics[name], values, NOW - (back + 0.5) * row.period_seconds)
    return state(store, row.name).state


def state(store: MetricStore, name: str) -> State:
    """How an alarm stands now."""
    return {found.name: found for found in Board(ALARMS, store).evaluate(NOW)}[name]


def test_each_row_has_a_drill() -> None:
    """And there are no others."""
    assert DRILLS.keys() == ROWS.keys()


@EACH
def test_it_is_silent_just_within_its_threshold(row: MetricAlarm) -> None:
    """However long that lasts."""
    assert state_after(row, *[DRILLS[row.name].quiet] * row.periods) == OK


@EACH
def test_it_fires_just_beyond_it(row: MetricAlarm) -> None:
    """When as many points are beyond as it asks for. One that fires on silence waits until there is nothing at all."""
    drill = DRILLS[row.name]
    firing = [drill.firing] * row.periods_to_alarm
    if None in drill.firing.values():
        firing += [drill.firing] * 2  # CloudWatch looks so much further back for points that are not missing
    quiet = [drill.quiet] * (row.periods - row.periods_to_alarm)

    assert state_after(row, *firing, *quiet) == ALARM


@EACH
def test_one_point_less_is_not_enough(row: MetricAlarm) -> None:
    """Where one is not all that it takes."""
    drill = DRILLS[row.name]

    assert state_after(row, *[drill.firing] * (row.periods_to_alarm - 1), drill.quiet) == OK


@EACH
def test_without_data_it_stands_as_its_row_says(row: MetricAlarm) -> None:
    """From the first moment on."""
    expected = {"breaching": ALARM, "notBreaching": OK, "missing": INSUFFICIENT_DATA}

    assert state(MetricStore(), row.name).state == expected[row.missing]


@EACH
def test_the_drill_is_close_to_the_threshold(row: MetricAlarm) -> None:
    """Within 5 per cent of it, or the next whole number: a threshold that moves is seen."""
    for period in (DRILLS[row.name].quiet, DRILLS[row.name].firing):
        if None in period.values() or row.name == "silence":
            continue
        store = MetricStore()
        for name, values in period.items():
            add(store, row.metrics[name], values, NOW - 1)
        value = points_of(row, store, NOW)[-1]
        assert value is not None
        whole = 1 if float(row.threshold).is_integer() else 0
        assert value == pytest.approx(row.threshold, rel=0.05, abs=whole)


@EACH
def test_a_row_is_what_cloudwatch_takes(row: MetricAlarm) -> None:
    """Its limits: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html"""
    assert 1 <= row.periods_to_alarm <= row.periods
    assert row.period_seconds % 60 == 0
    assert row.period_seconds * row.periods <= (7 * 86400 if row.period_seconds >= 3600 else 86400)
    assert len(row.metrics) <= 10
    assert bool(row.expression) == (len(row.metrics) > 1)
    assert row.means.endswith(".")
    assert row.reason.endswith(".")


# --- Burn rates

REQUESTS: Final = {"availability": 10_000, "latency": 1_000}  # in a document; of which at 1 times 10 may be bad


def spending(row: BurnRate, bad: int, *, begun: float, ended: float = 0) -> MetricStore:
    """So many requests of each document are bad between these times, in seconds before now; before and after, none."""
    store = MetricStore()
    long, count = row.windows["long"], 60
    for back in range(2 * count):
        seconds_ago = (back + 0.5) * long / count
        number = bad if ended <= seconds_ago < begun else 0
        requests = REQUESTS[row.objective.name]
        values = {"requests": requests, "faults": number, "within": [1] * (requests - number) + [101] * number}
        for name, metric in row.objective.metrics.items():
            add(store, metric, values[name], NOW - seconds_ago)
    return store


def bad_at(row: BurnRate) -> int:
    """How many of a document's requests are bad at the threshold."""
    return round(row.burn * row.objective.budget / 100 * REQUESTS[row.objective.name])


@BURNS
def test_a_burn_rate_is_silent_just_within_its_threshold(row: BurnRate) -> None:
    """However long it lasts."""
    assert state(spending(row, bad_at(row) - 1, begun=2 * row.windows["long"]), row.name).state == OK


@BURNS
def test_a_burn_rate_fires_just_beyond_it(row: BurnRate) -> None:
    """With one more bad request of each document."""
    assert state(spending(row, bad_at(row) + 1, begun=row.windows["long"]), row.name).state == ALARM


@BURNS
def test_what_is_over_calls_nobody(row: BurnRate) -> None:
    """The short window has forgotten what the long one still knows."""
    store = spending(row, 3 * bad_at(row), begun=row.windows["long"], ended=row.windows["short"])

    assert state(store, f"{row.name}-long").state == ALARM
    assert state(store, row.name).state == OK


@BURNS
def test_what_has_just_begun_calls_nobody(row: BurnRate) -> None:
    """The long window does not yet mind what the short one sees."""
    store = spending(row, 2 * bad_at(row), begun=row.windows["short"])

    assert state(store, f"{row.name}-short").state == ALARM
    assert state(store, row.name).state == OK


@pytest.mark.parametrize(("faults", "expected"), [(9, OK), (10, ALARM)])
def test_a_handful_of_faults_wakes_nobody(faults: int, expected: str) -> None:
    """Where there are few requests, each is a large share of them."""
    store, metrics = MetricStore(), ALARMS.objectives["availability"].metrics
    add(store, metrics["requests"], 100, NOW - 10)
    add(store, metrics["faults"], faults, NOW - 10)

    assert state(store, "availability-fast").state == expected


def test_budgets_are_spent_as_the_workbook_has_it() -> None:
    """The share of 30 days' budget that is gone when a page or a ticket comes: 2, 5 and 10 per cent."""
    spent = {name: row.burn * row.windows["long"] / (30 * 86400) for name, row in ALARMS.composite.items()}

    assert {name.rpartition("-")[2]: round(share, 6) for name, share in spent.items()} == {
        "fast": 0.02,
        "medium": 0.05,
        "slow": 0.1,
    }
    assert all(row.windows["short"] * 12 == row.windows["long"] for row in ALARMS.composite.values())


# --- A real run


def through(run: Run) -> Iterator[tuple[float, dict[str, State]]]:
    """The states of all alarms each 5 s of a recording, and for some minutes after, in which all is well."""
    store, documents = MetricStore(), run.documents()
    board = Board(ALARMS, store)
    calm = [document for document in documents if document["_aws"]["Timestamp"] / 1000 > run.moments["back"] + 3]
    over, length = run.moments["over"], run.moments["over"] - run.moments["back"] - 3
    for number in range(1, int(240 / length)):
        documents += [moved(document, number * length) for document in calm]
    now = run.moments["calm"] + 5  # when each worker has told of itself
    while now < over + 120:
        while documents and documents[0]["_aws"]["Timestamp"] / 1000 <= now:
            store.add(documents.pop(0))
        yield now, {found.name: found for found in board.evaluate(now)}
        now += 5


def moved(told: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A document of another time."""
    return {**told, "_aws": {**told["_aws"], "Timestamp": int(told["_aws"]["Timestamp"] + 1000 * seconds)}}


def test_a_real_outage_is_seen_and_so_is_its_end(recorded: Run) -> None:
    """The database away for 15 s: within 30 s both the cause and the page fire, and the cause clears a minute later."""
    seen = list(through(recorded))
    away, back = recorded.moments["away"], recorded.moments["back"]

    def fires(name: str, since: float, until: float) -> list[bool]:
        return [states[name].state == ALARM for now, states in seen if since <= now < until]

    assert not any(fires("database-away", 0, away))
    assert any(fires("database-away", away, away + 30))
    assert any(fires("availability-fast", away, away + 30))
    assert not any(fires("database-away", back + 75, back + 120))


def test_a_real_run_fires_nothing_else(recorded: Run) -> None:
    """An alarm that fires on what it is not for would not be believed. What a machine is short of here is its own."""
    fired = {name for _, states in through(recorded) for name, found in states.items() if found.state == ALARM}
    parts = {part.name for row in ALARMS.composite.values() for part in row.parts}
    ours = {name for name in fired - parts if not name.startswith(("node-", "database-cpu", "database-storage"))}

    assert ours <= {"database-away", "database-lost", *ALARMS.composite}
