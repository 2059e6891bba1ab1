"""The error budget of pods: which requests count, and what is too bad."""

import math

import pytest
import yaml

from ops.common.process import ROOT
from ops.deploy import error_budget
from ops.deploy.error_budget import Requests
from tests.ops.deploy.serving_pods import documents

NO_REQUESTS = Requests()


def test_objectives_and_burn_rate_are_those_of_the_alarms() -> None:
    """A release that would page is not accepted."""
    alarms = yaml.safe_load((ROOT / "ops" / "cloudwatch" / "alarms.yaml").read_text())
    percents = {objective["name"]: objective["percent"] for objective in alarms["objectives"]}
    pages = [one["rates"]["fast"]["burn"] for one in alarms["burn_rates"] if one["severity"] == "page"]

    assert pytest.approx(1 - percents["availability"] / 100) == error_budget.FAULT_BUDGET
    assert pytest.approx(1 - percents["latency"] / 100) == error_budget.SLOW_BUDGET
    assert f"PR(:{error_budget.MAX_LATENCY_MS:g})" in str(alarms["objectives"])
    assert set(pages) == {error_budget.BURN_RATE}
    assert math.ceil(alarms["floor"]) == error_budget.MIN_BAD_REQUESTS


def test_requests_are_read_from_the_services_own_metrics() -> None:
    """Probes do not count; a caller's mistake is no fault; half a line and lines of other kinds are left out."""
    log = "".join(
        (
            documents("/get/{id}", 200, [5.0] * 90 + [250.0] * 10),
            documents("/get/{id}", 404, [5.0] * 7),
            documents("/add", 503, [5.0] * 3),
            documents("/readyz", 503, [5.0] * 50),
            '{"event":"request","route":"/add","status":500}\na line of text with "_aws"\n{"_aws":{"Timest',
        )
    )
    found = map(error_budget._document, log.splitlines())
    requests = sum((error_budget._requests(one) for one in found if one), NO_REQUESTS)

    assert requests == Requests(total=110, faults=3, slow=10)


@pytest.mark.parametrize(("bad", "total", "others_bad", "others_total"), [(3, 10, 0, 20), (2, 5, 1, 7), (0, 4, 2, 9)])
def test_the_chance_is_that_of_all_ways_to_spread_the_bad_ones(
    bad: int, total: int, others_bad: int, others_total: int
) -> None:
    """Counted with exact integers."""
    everything, all_bad = total + others_total, bad + others_bad
    ways = [math.comb(total, k) * math.comb(others_total, all_bad - k) for k in range(bad, min(all_bad, total) + 1)]

    expected = sum(ways) / math.comb(everything, all_bad)
    assert error_budget.chance(bad, total, others_bad, others_total) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("canary", "others", "found"),
    [
        (NO_REQUESTS, NO_REQUESTS, ""),
        (Requests(1000), Requests(2000), ""),
        (Requests(5, faults=5), Requests(10), "5 of its 5 requests got a server error, but 0 of 10 of the other pods"),
        (Requests(3, faults=1), Requests(6), ""),  # may be chance
        (Requests(1000, faults=30), Requests(2000, faults=60), ""),  # an outage of all
        (Requests(100_000, faults=1100), Requests(200_000), ""),  # less than would page
        (Requests(1000, faults=30), Requests(2000, faults=2), "30 of its 1000 requests got a server error, "),
        (Requests(1000, slow=100), Requests(2000, slow=20), ""),
        (Requests(1000, slow=300), Requests(2000, slow=20), "300 of its 1000 requests took longer than 100 ms, "),
        (Requests(10, faults=10), NO_REQUESTS, ""),  # nothing to compare with
    ],
)
def test_a_canary_is_worse_if_the_difference_is_large_and_no_chance(
    canary: Requests, others: Requests, found: str
) -> None:
    """Otherwise the text is empty."""
    problem = error_budget.worse(canary, others)

    assert problem.startswith(found)
    assert bool(problem) == bool(found)


@pytest.mark.parametrize(
    ("requests", "found"),
    [
        (NO_REQUESTS, ""),
        (Requests(20, faults=9), ""),  # fewer than ten wake no one
        (Requests(20, faults=10), "10 of 20 requests got a server error"),
        (Requests(1000, faults=14), ""),
        (Requests(1000, faults=15), "15 of 1000 requests got a server error"),
        (Requests(1000, slow=144), ""),
        (Requests(1000, slow=145), "145 of 1000 requests took longer than 100 ms"),
    ],
)
def test_a_budget_burns_at_the_rate_of_a_page(requests: Requests, found: str) -> None:
    """Otherwise the text is empty."""
    assert error_budget.burning(requests) == found
