"""What is asked, in which proportion, and how much over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ops.load.arrivals import Shape, ramp, spike, steady

ENDPOINTS: Final = ("get", "add", "getall")


@dataclass(frozen=True)
class Scenario:
    """A kind of load.

    Attributes:
        means: what it stands for.
        parts: each endpoint's share of the requests.
        shape: of the rate over time.
        rate: requests per second where none is asked for.
        seconds: the length of a run where none is asked for.
    """

    means: str
    parts: Mapping[str, float]
    shape: Shape = steady
    rate: float = 100.0
    seconds: int = 30


_MIXED: Final = {"get": 0.90, "add": 0.09, "getall": 0.01}

SCENARIOS: Final = {
    "browse": Scenario("80 % get, 20 % a page of the list", {"get": 0.8, "getall": 0.2}),
    "write": Scenario("adds, each with an idempotency key", {"add": 1.0}),
    "mixed": Scenario("90 % get, 9 % add, 1 % a page of the list", _MIXED),
    "ramp": Scenario("mixed, from a tenth of the rate to all of it", _MIXED, ramp, rate=500.0, seconds=60),
    "spike": Scenario(
        "mixed, at the rate for a fifth of the run, else a quarter", _MIXED, spike, rate=400.0, seconds=60
    ),
    "soak": Scenario("mixed, for an hour: what leaks or fills up shows", _MIXED, seconds=3600),
}
