"""When requests are due: at times that no answer moves.

The users of a service on the web do not wait for each other, so neither do these requests: an open loop. A generator
that sends the next request once the last is answered slows down with the server, and leaves out of its numbers just
those who would have waited (coordinated omission, as Gil Tene named it).
"""

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

Shape: TypeAlias = Callable[[float], float]
"""The share of the rate that is due at this part (0 to 1) of a run."""


def steady(_progress: float) -> float:
    """The same from beginning to end."""
    return 1.0


def ramp(progress: float) -> float:
    """From a tenth to all of it, in a straight line: where does it begin to hurt?"""
    return 0.1 + 0.9 * progress


def spike(progress: float) -> float:
    """A quarter, but all of it in the third fifth of the run: does the service recover?"""
    return 1.0 if 0.4 <= progress < 0.6 else 0.25


def due_times(rate: float, seconds: float, shape: Shape, draw: random.Random) -> Iterator[float]:
    """Seconds from the start of the run, in order: a Poisson process, as users are that know nothing of each other.

    The sum of several such processes is one of the sum of their rates, so sources need not agree on who sends what.

    Args:
        rate: requests per second, times what the shape makes of it.
        seconds: when the run ends.
        shape: of the load over time.
        draw: where chance comes from.
    """
    due = 0.0
    while True:
        due += draw.expovariate(rate * shape(due / seconds))
        if due >= seconds:
            return
        yield due
