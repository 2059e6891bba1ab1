"""What a drill claims about its measurements."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A measurement and its limit. Exactly one of `at_most` and `at_least` is given.

    Attributes:
        description: what was measured.
        measured: the value.
        at_most: the maximum of the value.
        at_least: the minimum of the value.
        unit: of the value and its limit.
    """

    description: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the value is within its limit."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        assert self.at_most is not None
        return self.measured <= self.at_most
