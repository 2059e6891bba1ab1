"""What a million requests cost in dollars: CPU time, and telemetry, on the nodes that are deployed."""

from functools import cache
from typing import Final

from ops.bench.contenders import OURS, PEERS
from ops.cost import deployment, model

RATE: Final = 1_000  # requests per second, at which telemetry is priced

_DESIGNS: Final = {contender.name: contender.telemetry for contender in (OURS, *PEERS)}


def cpu(us_per_request: float) -> float:
    """Dollars for the CPU time of a million requests; they take as many seconds as one takes microseconds."""
    return us_per_request * _cpu_second()


@cache
def telemetry(contender: str) -> float | None:
    """Dollars for all telemetry, by the million requests at RATE; None for a contender that has none."""
    name = _DESIGNS.get(contender)
    if not name:
        return None
    bill = model.bill(model.load()[name], RATE, deployment.read())
    return bill.telemetry / (RATE * model.MONTH_SECONDS) * 1e6


def shown(contender: str, us_per_request: float) -> tuple[str, str]:
    """Both figures, as a table shows them."""
    dollars = telemetry(contender)
    return f"{cpu(us_per_request):.4f}", "-" if dollars is None else f"{dollars:.2f}"


@cache
def _cpu_second() -> float:
    return model.cpu_second(deployment.read())
