"""Schedules requests in advance, as an open loop: no response moves the time of a later request.

The users of a web service do not wait for each other, so neither do these requests. A generator that sends its next
request after the response to the last one slows down with the server. Its figures then leave out exactly the requests
that would have waited: coordinated omission, as Gil Tene named it.
"""

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

Shape: TypeAlias = Callable[[float], float]
"""Gives the share of the full rate at a point of the run, from 0 (its start) to 1 (its end)."""


def steady(_progress: float) -> float:
    """The full rate from start to end."""
    return 1.0


def ramp(progress: float) -> float:
    """A straight line from a tenth of the rate to the full rate: shows where the service begins to slow down."""
    return 0.1 + 0.9 * progress


def spike(progress: float) -> float:
    """The full rate in the third fifth of the run, a quarter of it otherwise: shows whether the service recovers."""
    return 1.0 if 0.4 <= progress < 0.6 else 0.25


def scheduled_times(rate: float, seconds: float, shape: Shape, rng: random.Random) -> Iterator[float]:
    """Yields the times of a Poisson process in order, in seconds from the start of the run.

    A Poisson process describes users that act independently. The sum of several is a Poisson process with the sum of
    their rates, so sources need not agree on who sends which request.

    Args:
        rate: the full rate, in requests per second.
        seconds: the length of the run.
        shape: of the rate over time.
        rng: the source of randomness.
    """
    time = 0.0
    while True:
        time += rng.expovariate(rate * shape(time / seconds))
        if time >= seconds:
            return
        yield time
