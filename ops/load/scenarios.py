"""The scenarios: which requests they send, in which proportion, and at which rate over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ops.load.arrivals import Shape, ramp, spike, steady

ENDPOINTS: Final = ("get", "add", "getall")


@dataclass(frozen=True)
class Scenario:
    """One kind of load.

    Attributes:
        description: for `--help` and the report.
        shares: the share of the requests of each endpoint.
        shape: of the rate over time.
        rate: the default, in requests per second.
        seconds: the default length of a run.
    """

    description: str
    shares: Mapping[str, float]
    shape: Shape = steady
    rate: float = 100.0
    seconds: int = 30


_MIXED: Final = {"get": 0.90, "add": 0.09, "getall": 0.01}

SCENARIOS: Final = {
    "browse": Scenario("80 % get, 20 % a page of the list", {"get": 0.8, "getall": 0.2}),
    "write": Scenario("only add, each with an idempotency key", {"add": 1.0}),
    "mixed": Scenario("90 % get, 9 % add, 1 % a page of the list", _MIXED),
    "ramp": Scenario("mixed, from a tenth of the rate to the full rate", _MIXED, ramp, rate=500.0, seconds=60),
    "spike": Scenario(
        "mixed, at the full rate for a fifth of the run, at a quarter otherwise", _MIXED, spike, rate=400.0, seconds=60
    ),
    "soak": Scenario("mixed, for an hour, to show leaks and what fills up", _MIXED, seconds=3600),
}
