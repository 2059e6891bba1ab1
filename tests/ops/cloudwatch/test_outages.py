"""One fault is one page: simulated outages, and what all alarms notify of."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import pytest

from ops.cloudwatch.rows import load
from ops.oncall import dashboards
from ops.oncall.alarms import AlarmEvaluator, AlarmState
from ops.oncall.machine import NAME, document
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import TimeRange, Values, draw
from ops.oncall.suppression import ALARM, INSUFFICIENT_DATA, OK

ALARMS: Final = load(NAME)
START: Final = 1_800_000_000.0  # of the outage, in seconds since 1970
STEP_SECONDS: Final = 10
OUTAGE_SECONDS: Final = 12 * 60
HISTORY_SECONDS: Final = 3 * 3600
WATCHED_SECONDS: Final = 40 * 60  # the short window of the medium rate is over after 30
EVALUATED_SECONDS: Final = 10 * 60  # before the outage
PODS: Final = {"ClusterName": NAME, "Namespace": "clients", "Service": "clients-api"}
CLUSTER: Final = {"ClusterName": NAME}

World: TypeAlias = dict[tuple[str, str], Any]  # what is measured in a step, by namespace and metric
Change: TypeAlias = Callable[[World, float], None]  # given the seconds since the start of the outage
Notification: TypeAlias = tuple[str, str]  # alarm and state

DIMENSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "ClientsApi": {},
    "AWS/ELB": {},
    "AWS/Route53": {"HealthCheckId": "HEALTH_CHECK"},
    "ContainerInsights": PODS,
    "Telemetry": CLUSTER,
}


def latencies(ms: float, requests: int = 200) -> dict[str, Any]:
    """The latency of requests that all take equally long."""
    ends = {"Min": ms, "Max": ms, "Count": requests, "Sum": ms * requests}
    return {**ends, "Values": [ms], "Counts": [requests]}


def usual() -> World:
    """Two pods that serve 20 requests a second, of which few vary."""
    return {
        ("ClientsApi", "ProcessCpu"): [10, 12],
        ("ClientsApi", "DatabaseUnavailable"): [0, 0],
        ("ClientsApi", "Requests"): 200,
        ("ClientsApi", "Faults"): 0,
        ("ClientsApi", "Latency"): latencies(5),
        ("AWS/Route53", "HealthCheckStatus"): 1,
        ("ContainerInsights", "service_number_of_running_pods"): 2,
        ("Telemetry", "fluentbit_output_proc_records_total"): 100,
    }


def nothing_served(world: World, seconds: float) -> None:
    """The load balancer has no ready pod, and Route 53 finds that out in 90 s."""
    del world["ClientsApi", "Requests"], world["ClientsApi", "Latency"]
    del world["ContainerInsights", "service_number_of_running_pods"]
    world["AWS/ELB", "HTTPCode_ELB_5XX"] = 200
    if seconds >= 90:
        world["AWS/Route53", "HealthCheckStatus"] = 0


def database_lost(world: World, _: float) -> None:
    """The database is gone: the pods stay ready, and each request is a fault."""
    world["ClientsApi", "DatabaseUnavailable"] = [1, 1]
    world["ClientsApi", "Faults"] = world["ClientsApi", "Requests"]


def pods_lost(world: World, seconds: float) -> None:
    """All pods are gone, and with them their metrics."""
    nothing_served(world, seconds)
    for key in [key for key in world if key[0] == "ClientsApi"]:
        del world[key]


def bad_build(world: World, _: float) -> None:
    """Every fifth request fails."""
    world["ClientsApi", "Faults"] = 40


def slow(world: World, _: float) -> None:
    """Each request is slow."""
    world["ClientsApi", "Latency"] = latencies(400)


def undelivered(world: World, _: float) -> None:
    """Callers are served, but nothing that Fluent Bit ships arrives."""
    for key in [key for key in world if key[0] in {"ClientsApi", "Telemetry"}]:
        del world[key]


def name_lost(world: World, seconds: float) -> None:
    """The name does not resolve: requests end, while all is well inside."""
    del world["ClientsApi", "Requests"], world["ClientsApi", "Latency"]
    if seconds >= 90:
        world["AWS/Route53", "HealthCheckStatus"] = 0


def callers_lost(world: World, _: float) -> None:
    """Requests end for a reason that no check sees, such as a certificate that callers refuse."""
    del world["ClientsApi", "Requests"], world["ClientsApi", "Latency"]


def add(store: MetricStore, world: World, at: float) -> None:
    """Adds what was measured in a step."""
    for (namespace, name), values in world.items():
        store.add(document(namespace, DIMENSIONS[namespace], {name: values}, int(at * 1000)))


def notifications(store: MetricStore, evaluator: AlarmEvaluator, worlds: Iterator[tuple[float, World]]) -> list[Any]:
    """The pages and the ends of pages while these steps arrive; CloudWatch evaluates once a minute."""
    before: dict[str, str] = {}
    found = []
    for at, world in worlds:
        add(store, world, at)
        if at >= START - EVALUATED_SECONDS and at % 60 == 0:
            for state in evaluator.evaluate(at + STEP_SECONDS):
                if is_news(state, before.get(state.name, state.notified)):
                    found.append((state.name, state.notified))
                before[state.name] = state.notified
    return found


def is_news(state: AlarmState, before: str) -> bool:
    """Whether a page begins or ends."""
    return state.severity == "page" and state.notified != before and {state.notified, before} != {INSUFFICIENT_DATA, OK}


def steps(end: float) -> Iterator[float]:
    """Seconds since the start of the outage: usual hours, coarsely, then all steps to an end."""
    yield from range(-HISTORY_SECONDS, -EVALUATED_SECONDS, 6 * STEP_SECONDS)
    yield from range(-EVALUATED_SECONDS, int(end), STEP_SECONDS)


def lasting(change: Change, end: float, until: float = float("inf"), delay: float = 0) -> Iterator[tuple[float, World]]:
    """What is measured while something changes, from a second of a minute on to an end."""
    for second in steps(end):
        world = usual()
        if second < -EVALUATED_SECONDS:
            world["ClientsApi", "Requests"] *= 6
            world["ClientsApi", "Latency"] = latencies(5, 1200)
        if delay <= second < delay + until:
            change(world, second - delay)
        yield START + second, world


@pytest.mark.parametrize("delay", [0, 40])
@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        (database_lost, "database-lost"),
        (pods_lost, "unreachable"),
        (name_lost, "unreachable"),
        (bad_build, "availability"),
        (slow, "latency"),
        (undelivered, "no-telemetry"),
    ],
)
def test_an_outage_of_12_minutes_is_one_page_and_one_ok(change: Change, alarm: str, delay: float) -> None:
    """Whatever else it leads to, and although the slower burn rates see it for half an hour more."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)

    worlds = lasting(change, OUTAGE_SECONDS + WATCHED_SECONDS, OUTAGE_SECONDS, delay)

    assert notifications(store, evaluator, worlds) == [(alarm, ALARM), (alarm, OK)]


def test_callers_who_stop_for_a_reason_that_no_check_sees_are_missed() -> None:
    """The alarm on traffic pages within 25 minutes."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)

    assert notifications(store, evaluator, lasting(callers_lost, 25 * 60)) == [("traffic-lost", ALARM)]


def test_nothing_pages_before_and_during_the_first_deployment() -> None:
    """Ten minutes without a pod or an answer of the name, then pods, and a minute later the cluster's metrics."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)

    def worlds() -> Iterator[tuple[float, World]]:
        for second in range(-EVALUATED_SECONDS, 1800, STEP_SECONDS):
            world = usual()
            if second < 60:
                world = {key: value for key, value in world.items() if key[0] == "ClientsApi"}
            if second < 0:
                world = {}
            yield START + second, world | {("AWS/Route53", "HealthCheckStatus"): int(second >= 120)}

    assert notifications(store, evaluator, worlds()) == []


def test_a_suppressed_alarm_that_lasts_is_paged_in_the_end() -> None:
    """Requests fail on after the database has recovered: that is a fault of its own."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)

    def worlds() -> Iterator[tuple[float, World]]:
        for second in steps(4000):
            world = usual()
            if 0 <= second < OUTAGE_SECONDS:
                database_lost(world, second)
            elif second >= OUTAGE_SECONDS:
                bad_build(world, second)
            yield START + second, world

    assert notifications(store, evaluator, worlds()) == [
        ("database-lost", ALARM),
        ("database-lost", OK),
        ("availability", ALARM),
    ]
    (state,) = [one for one in evaluator.evaluate(START + 4000) if one.name == "availability"]
    assert "silent" not in state.reason


def test_a_silent_alarm_says_why() -> None:
    """Its reason names the suppressor, first while it waits, then while that fires."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)
    reasons = []
    for at, world in lasting(pods_lost, 8 * 60):
        add(store, world, at)
        if at >= START and at % 60 == 0:
            states = {state.name: state for state in evaluator.evaluate(at + STEP_SECONDS)}
            if states["balancer-errors"].state == ALARM:
                reasons.append(states["balancer-errors"].reason.partition(";")[0])

    assert reasons[0] == "waits for outage"
    assert reasons[-1] == "silent, since outage fires"


@pytest.mark.parametrize(("objective", "change"), [("availability", database_lost), ("latency", slow)])
def test_the_burn_chart_is_above_a_limit_exactly_while_the_alarm_fires(objective: str, change: Change) -> None:
    """During an outage and after the recovery, at every evaluated moment: as it is drawn then, and as it is later."""
    store = MetricStore()
    evaluator = AlarmEvaluator(ALARMS, store)
    names = [objective, f"{objective}-slow"]
    fired, drawn = {}, {}
    for at, world in lasting(change, OUTAGE_SECONDS + WATCHED_SECONDS, OUTAGE_SECONDS):
        add(store, world, at)
        if at >= START - EVALUATED_SECONDS and at % 60 == 0:
            now = at + STEP_SECONDS
            states = {state.name: state.state for state in evaluator.evaluate(now)}
            fired[now] = {name: states[name] == ALARM for name in names}
            drawn[now] = above_limits(objective, store, now - 60, now)[now]
    later: dict[float, dict[str, bool]] = {}
    for end in range(int(START), int(at) + 1800, 1800):
        later |= above_limits(objective, store, end + STEP_SECONDS - 1800, end + STEP_SECONDS)

    assert drawn == fired
    assert {now: later[now] for now in fired} == fired
    assert {(name, fires) for one in fired.values() for name, fires in one.items()} == {
        (name, fires) for name in names for fires in (False, True)
    }


def above_limits(objective: str, store: MetricStore, start: float, end: float) -> dict[float, dict[str, bool]]:
    """For each time of the burn chart, whether a line is above the limit of each alarm."""
    (widget,) = [
        one
        for one in dashboards.load({"name": NAME, "region": "", "account": ""})["service"]
        if one["properties"].get("title", "") == f"{objective.capitalize()} burn rate"
    ]
    panel = draw(widget, Values(store), TimeRange(start, end, 0, NAME, lambda *_: {}))
    found: dict[float, dict[str, bool]] = {time / 1000: {} for time in panel["times"]}
    for line, limit in zip(panel["lines"], panel["limits"], strict=True):
        alarm = limit["label"].removeprefix("alarm ").partition(":")[0]
        for one, value in zip(found.values(), line["values"], strict=True):
            one[alarm] = one.get(alarm, False) or value > limit["value"]
    return found
