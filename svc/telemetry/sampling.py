"""Chooses which requests are recorded one by one, so that the cost follows the time and not the number of requests."""

import math
import sys
from collections.abc import Iterator
from typing import Final, Generic, TypeAlias, TypeVar

from svc.telemetry.propagation import RemoteParent
from svc.telemetry.record import RequestRecord
from svc.telemetry.settings import TraceSettings

Kind: TypeAlias = tuple[str, str, int]  # of requests: route, method and status
_Item = TypeVar("_Item")

_NOTABLE_TRACES_PER_SECOND: Final = 50.0

# The rate of a kind is the smaller of two averages. The slow one lets a burst after a quiet time pass as a whole; the
# fast one lets all requests pass again soon after a flood. It covers the time of ten requests of the budget, since one
# that covers few requests is often much too low.
_MIN_FAST_SECONDS: Final = 1.0
_SLOW_SECONDS: Final = 10.0
_FAST_REQUESTS: Final = 10
UPDATE_SECONDS: Final = 0.02  # between two updates of a rate
_SHARE_SECONDS: Final = 0.25  # between two divisions of the budget among the kinds
LATE_SECONDS: Final = 2.0  # the longest that skipped requests wait for one that stands for them


class _Rate(Generic[_Item]):
    """How many requests of a kind arrive, and how many of them are chosen.

    Attributes:
        at: until when the averages are computed.
        fast: the requests of the last `fast_seconds`, the older the less.
        slow: the same of the last ten seconds.
        chosen_at: when the last one was chosen.
        step: the share of the next requests to choose, up to 1.
        credit: the steps since the last chosen request; at 1, another one is due.
        waiting: the number of requests since the last chosen one.
        last: one of the newest of these.
    """

    __slots__ = ("_fast_seconds", "at", "chosen_at", "credit", "fast", "last", "slow", "step", "waiting")

    def __init__(self, fast_seconds: float, now: float) -> None:
        self._fast_seconds = fast_seconds
        self.at = self.chosen_at = now
        self.fast = self.slow = 0.0
        self.step = 1.0
        self.credit = 0.0
        self.waiting = 0
        self.last: _Item | None = None

    def move_to(self, now: float) -> None:
        """Lets the averages forget what is past."""
        elapsed, self.at = now - self.at, now
        self.fast *= math.exp(-elapsed / self._fast_seconds)
        self.slow *= math.exp(-elapsed / _SLOW_SECONDS)

    def per_second(self) -> float:
        """How many requests arrive."""
        return min(self.fast / self._fast_seconds, self.slow / _SLOW_SECONDS)

    def adapt(self, share: float) -> None:
        """Chooses so many requests per second from now on."""
        self.step = share / max(share, self.per_second())

    def add(self, requests: int) -> None:
        """Counts requests."""
        self.fast += requests
        self.slow += requests
        self.waiting += requests
        self.credit += requests * self.step


class Sampler(Generic[_Item]):
    """Chooses about as many requests per second as its budget has, which is shared fairly among kinds of requests.

    A kind with fewer requests than its share is chosen whole. Of any other, each chosen request stands for all of its
    kind since the last chosen one. So sums over chosen requests are exact, except for the last 2 s.

    Args:
        per_second: the budget; 0 is without a limit.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._fast_seconds = min(_SLOW_SECONDS, max(_MIN_FAST_SECONDS, _FAST_REQUESTS / (per_second or 1)))
        self._share = per_second
        self._divided_at = -math.inf
        self._rates: dict[Kind, _Rate[_Item]] = {}

    def choose(self, kind: Kind, now: float, item: _Item) -> int:
        """How many requests this one stands for; 0 if it is not chosen.

        Args:
            kind: of the request.
            now: by a monotonic clock.
            item: the request, which `late` returns if no other is chosen in its place.
        """
        if not self._per_second:
            return 1
        rate = self._rate(kind, now)
        rate.add(1)
        if rate.credit < 1:
            rate.last = item
            return 0
        rate.credit -= 1
        weight, rate.waiting, rate.last, rate.chosen_at = rate.waiting, 0, None, now
        rate.adapt(self._share)
        return weight

    def skippable(self, kind: Kind) -> int:
        """How many of the next requests of a kind would not be chosen, if they ended within the next 20 ms."""
        rate = self._rates.get(kind)
        return max(0, math.ceil((1 - rate.credit) / rate.step) - 1) if rate else 0

    def skip(self, kind: Kind, now: float, items: int, newest: _Item) -> None:
        """Counts requests that were not chosen, since they were skippable.

        Args:
            kind: of the requests.
            now: by a monotonic clock.
            items: how many.
            newest: one of the newest of them, which `late` returns if no other is chosen in its place.
        """
        if not self._per_second:
            return
        rate = self._rate(kind, now)
        rate.add(items)
        rate.credit = min(rate.credit, 1.0)
        rate.last = newest

    def late(self, now: float, seconds: float = LATE_SECONDS) -> Iterator[tuple[_Item, int]]:
        """A skipped request of each kind of which none was chosen for so long, and how many it stands for."""
        for rate in self._rates.values():
            if rate.last is not None and now - rate.chosen_at >= seconds:
                item, weight = rate.last, rate.waiting
                rate.waiting, rate.last, rate.chosen_at = 0, None, now
                yield item, weight

    @property
    def is_waiting(self) -> bool:
        """Whether there are skipped requests that no chosen one stands for yet."""
        return any(rate.last is not None for rate in self._rates.values())

    def _rate(self, kind: Kind, now: float) -> _Rate[_Item]:
        """The rate of a kind, updated at times."""
        rate = self._rates.get(kind)
        if rate is None:
            rate = self._rates[kind] = _Rate(self._fast_seconds, now)
        elif now - rate.at < UPDATE_SECONDS:
            return rate
        rate.move_to(now)
        if now - self._divided_at >= _SHARE_SECONDS:
            self._divided_at = now
            for other in self._rates.values():
                other.move_to(now)
            self._share = _fair_share(self._per_second, [other.per_second() for other in self._rates.values()])
        rate.adapt(self._share)
        return rate


def _fair_share(budget: float, rates: list[float]) -> float:
    """The most that a kind may have of the budget, where kinds that need less leave the rest to the others."""
    left = budget
    for number, rate in enumerate(sorted(rates)):
        share = left / (len(rates) - number)
        if rate > share:
            return share
        left -= rate
    return max(rates) + left


class TraceSampler:
    """Decides which traces are recorded, once a request has ended.

    Args:
        settings: the trusted callers' part in it, the share of traces, and the budget.
    """

    def __init__(self, settings: TraceSettings) -> None:
        # As in the SDK's TraceIdRatioBased, the ID's last 64 bits must be below the ratio's share of 2**64. Strings of
        # 16 hexadecimal digits sort like their numbers, and all of them sort before "g".
        bound = round(settings.ratio * 2**64)
        self._bound = f"{bound:016x}" if bound < 2**64 else "g"
        self._records_any = bound > 0
        self._is_parent_based = settings.is_parent_based
        self._notable = Sampler[None](_NOTABLE_TRACES_PER_SECOND if settings.per_second else 0)
        self._others = Sampler[None](settings.per_second)

    def is_sampled(self, parent: RemoteParent) -> bool | None:
        """What a trusted caller decided about its trace; None where it did not, or where that does not count."""
        return parent.is_sampled if self._is_parent_based else None

    def should_record(self, request: RequestRecord, kind: Kind, now: float, *, is_notable: bool) -> bool:
        """Whether to record the trace of a request that has ended.

        Args:
            request: the request.
            kind: its kind.
            now: by a monotonic clock.
            is_notable: whether it failed or was slow.
        """
        if request.remote_parent is not None and (decision := self.is_sampled(request.remote_parent)) is not None:
            return decision
        if is_notable:
            return self._records_any and self._notable.choose(kind, now, None) > 0
        if request.trace_id[16:] < self._bound:
            return self._others.choose(kind, now, None) > 0
        if self._records_any:
            self._others.skip(kind, now, 1, None)
        return False

    def skippable(self, kind: Kind, *, is_notable: bool) -> int:
        """As Sampler.skippable, of requests that have no remote parent."""
        return self._sampler(is_notable).skippable(kind) if self._records_any else sys.maxsize

    def skip(self, kind: Kind, now: float, items: int, *, is_notable: bool) -> None:
        """As Sampler.skip."""
        self._sampler(is_notable).skip(kind, now, items, None)

    def _sampler(self, is_notable: bool) -> Sampler[None]:
        return self._notable if is_notable else self._others
