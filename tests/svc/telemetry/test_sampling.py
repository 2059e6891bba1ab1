"""Sampling: the budget holds, rare requests are seen, weights add up, and the rate follows the traffic."""

import random
from collections import Counter
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import yaml
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from ops.cloudwatch.rows import PATH
from svc.telemetry.propagation import RemoteParent
from svc.telemetry.record import SLOW_SECONDS
from svc.telemetry.sampling import LATE_SECONDS, Kind, Sampler, TraceSampler
from svc.telemetry.settings import TraceSettings

GET: Kind = ("/get/{id}", "GET", 200)
ADD: Kind = ("/add", "POST", 201)
PER_SECOND = 10
TICK = 0.01  # seconds between two groups of requests


class Run:
    """Requests over time, and the lines that a sampler chose for them.

    Args:
        sampler: chooses.
        skips: whether requests that are skippable are counted together, without asking for each.
    """

    def __init__(self, sampler: Sampler[int], *, skips: bool = False) -> None:
        self.sampler = sampler
        self.skips = skips
        self.now = 1000.0
        self.requests: Counter[Kind] = Counter()
        self.weights: Counter[Kind] = Counter()
        self.lines: list[tuple[float, Kind]] = []

    def send(self, seconds: float, per_second: Callable[[float], dict[Kind, float]]) -> None:
        """Sends requests of each kind at a rate that may depend on the time, at random times."""
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            for kind, rate in per_second(self.now).items():
                self.end(kind, int(rate * TICK + random.random()))

    def end(self, kind: Kind, requests: int) -> None:
        """Ends so many requests of a kind."""
        self.requests[kind] += requests
        while requests:
            skipped = min(requests, self.sampler.skippable(kind)) if self.skips else 0
            if skipped:
                self.sampler.skip(kind, self.now, skipped, 0)
                requests -= skipped
            else:
                requests -= 1
                if weight := self.sampler.choose(kind, self.now, 0):
                    self.add(kind, weight)

    def add(self, kind: Kind, weight: int) -> None:
        self.weights[kind] += weight
        self.lines.append((self.now, kind))

    def count(self, kind: Kind, seconds: float) -> int:
        """The lines of a kind in the last seconds."""
        return sum(line[1] == kind and line[0] > self.now - seconds for line in self.lines)


@pytest.fixture(params=[False, True], ids=["asked for each", "skipped where possible"])
def run(request: pytest.FixtureRequest) -> Run:
    random.seed(7)
    return Run(Sampler[int](PER_SECOND), skips=request.param)


def test_each_request_is_chosen_at_low_traffic(run: Run) -> None:
    """Below the budget, and in a burst after a quiet time, each request has a line that stands for itself."""
    run.send(60, lambda _: {GET: 2, ADD: 3})
    run.send(0.2, lambda _: {GET: 250})

    assert run.weights == run.requests
    assert len(run.lines) == run.requests.total() > 300


@pytest.mark.parametrize("rate", [50, 1000, 20_000])
def test_the_budget_holds_and_rare_kinds_are_seen(run: Run, rate: int) -> None:
    """A kind with few requests keeps all of them; the others share the rest of the budget equally."""
    rare: Kind = ("/getall", "GET", 200)
    run.send(30, lambda _: {GET: rate, ADD: rate / 5, rare: 1})
    before = run.requests[rare]
    run.send(20, lambda _: {GET: rate, ADD: rate / 5, rare: 1})

    assert run.count(rare, 20) == pytest.approx(run.requests[rare] - before, abs=3)
    for kind in (GET, ADD):
        assert run.count(kind, 20) == pytest.approx((PER_SECOND - 1) / 2 * 20, rel=0.25)


def test_weights_add_up_under_changing_load(run: Run) -> None:
    """Whatever the load does, sums over weights differ from the counts by the requests that still wait, until the end.

    The lines follow the traffic: no second of a flood has more than a few seconds' budget, apart from its start.
    """
    for seconds, rate in ((5, 1.0), (10, 5000.0), (5, 0.0), (5, 40.0), (10, 800.0)):
        run.send(seconds, lambda _, rate=rate: {GET: rate, ADD: rate / 10})  # type: ignore[misc]
    waiting = run.requests.total() - run.weights.total()
    assert 0 <= waiting <= 800 / PER_SECOND * 10
    for kind in (GET, ADD):
        assert run.weights[kind] == pytest.approx(run.requests[kind], rel=0.01)
    run.now += LATE_SECONDS
    late = list(run.sampler.late(run.now))
    assert run.weights.total() + sum(weight for _, weight in late) == run.requests.total()
    assert not run.sampler.is_waiting

    per_second = Counter(int(at) for at, _ in run.lines)
    assert max(count for second, count in per_second.items() if second not in (1004, 1005, 1006)) <= 15 * PER_SECOND


def test_averages_are_not_biased(run: Run) -> None:
    """A weighted average over lines is near that over all requests, although the latency depends on the load."""
    total = weighted = 0.0
    latencies: list[float] = []
    for step in range(40_000):
        run.now += 0.001
        for _ in range(1 + 9 * (step // 1000 % 2)):  # a second of 1,000 requests, and one of 10,000
            latencies.append(random.lognormvariate(1 + step // 1000 % 2, 0.3))
            if weight := run.sampler.choose(GET, run.now, 0):
                weighted += weight * latencies[-1]
                total += weight

    assert weighted / total == pytest.approx(sum(latencies) / len(latencies), rel=0.1)


def test_after_a_flood_every_request_is_chosen_again_soon(run: Run) -> None:
    """Ten seconds after 10,000 requests a second, a lone request has its line."""
    run.send(30, lambda _: {GET: 10_000})
    run.send(10, lambda _: {GET: 1})
    before = run.requests[GET]
    run.send(20, lambda _: {GET: 1})

    assert run.count(GET, 20) == run.requests[GET] - before


def test_requests_that_wait_get_a_line_in_time(run: Run) -> None:
    """Where a flood ends, its last requests are not forgotten: a line stands for them."""
    run.send(20, lambda _: {GET: 10_000})
    assert run.sampler.is_waiting
    assert list(run.sampler.late(run.now)) == []
    ((item, weight),) = run.sampler.late(run.now + LATE_SECONDS)

    assert item == 0
    assert run.weights[GET] + weight == run.requests[GET]


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("rate", [0.5, 5, 500])
def test_a_small_budget_holds_at_every_rate(rate: float, skips: bool) -> None:
    """Far less than one request per second is chosen, also where few arrive."""
    random.seed(7)
    run = Run(Sampler[int](0.1), skips=skips)
    run.send(1200, lambda _: {GET: rate})

    assert run.count(GET, 1000) == pytest.approx(100, rel=0.3)


def test_zero_is_without_a_limit() -> None:
    """Each request has a line, whatever the traffic."""
    run = Run(Sampler[int](0), skips=True)
    run.send(1, lambda _: {GET: 5000})

    assert len(run.lines) == run.weights[GET] == run.requests[GET]


def test_in_a_flood_most_requests_are_skipped_without_asking(run: Run) -> None:
    """So most cost no more than a count, and the skippable ones are exactly those until the next chosen one."""
    run.send(20, lambda _: {GET: 10_000})
    skippable = run.sampler.skippable(GET)
    chosen = [run.sampler.choose(GET, run.now, 0) > 0 for _ in range(skippable + 1)]

    assert 100 <= skippable <= 2000
    assert chosen == [False] * skippable + [True]


def test_slow_is_what_misses_the_objective() -> None:
    """The requests that use up the error budget of the latency objective are those whose lines are kept."""
    (objective,) = (row for row in yaml.safe_load(PATH.read_text())["objectives"] if row["name"] == "latency")
    statistics = [metric["statistic"] for metric in objective["metrics"].values()]

    assert f"PR(:{SLOW_SECONDS * 1000:g})" in statistics


@pytest.mark.parametrize("ratio", [0, 1e-9, 0.05, 0.5, 1])
def test_the_ratio_decides_as_in_the_sdk(ratio: float) -> None:
    """For the same trace ID it makes the same decision, so that services agree."""
    theirs = TraceIdRatioBased(ratio)
    ours = TraceSampler(TraceSettings("grpc", ratio, per_second=0))
    for _ in range(2000):
        trace_id = random.getrandbits(128)
        request = Mock(trace_id=f"{trace_id:032x}", remote_parent=None)
        expected = theirs.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE

        assert ours.should_record(request, GET, 0.0, is_notable=False) == expected
        assert ours.should_record(request, GET, 0.0, is_notable=True) == (ratio > 0)


def test_traces_have_a_budget_and_callers_decide_beyond_it() -> None:
    """Of a flood, few traces are recorded; a trusted caller's decision counts for each of its requests."""
    sampler = TraceSampler(TraceSettings("grpc", 1.0, per_second=0.2))
    parents = {decided: RemoteParent("0" * 32, "", decided, "") for decided in (True, False, None)}
    requests = {
        "other": Mock(trace_id="f" * 32, remote_parent=None),
        "open": Mock(trace_id="f" * 32, remote_parent=parents[None]),
        "asked": Mock(trace_id="f" * 32, remote_parent=parents[True]),
        "refused": Mock(trace_id="f" * 32, remote_parent=parents[False]),
    }
    recorded: Counter[str] = Counter()
    for step in range(100_000):
        for name, request in requests.items():
            recorded[name] += sampler.should_record(request, GET, step / 1000, is_notable=name == "refused")
        recorded["notable"] += sampler.should_record(requests["other"], GET, step / 1000, is_notable=True)

    assert recorded["asked"] == 100_000
    assert recorded["refused"] == 0
    assert 20 <= recorded["other"] + recorded["open"] <= 60  # 100 s, and the start of the flood
    assert 5000 <= recorded["notable"] <= 9000


@pytest.mark.parametrize(("per_second", "expected"), [(1.0, 30), (1000.0, 30 * 1000 * 0.05)])
def test_the_ratio_is_the_upper_bound_of_the_budget(per_second: float, expected: float) -> None:
    """Traces are recorded within the budget and within the ratio, whichever is less, and only those of the ratio."""
    random.seed(7)
    sampler = TraceSampler(TraceSettings("grpc", 0.05, per_second=per_second))
    request = Mock(remote_parent=None)
    recorded = []
    for step in range(40_000):
        request.trace_id = f"{random.getrandbits(128):032x}"
        if sampler.should_record(request, GET, step / 1000, is_notable=False) and step >= 10_000:
            recorded.append(request.trace_id)

    assert len(recorded) == pytest.approx(expected, rel=0.2)
    assert all(int(trace_id[16:], 16) < 0.05 * 2**64 for trace_id in recorded)
