"""Natural batching: the items that arrive during one round trip are sent together in the next.

An item is what one caller asks of a statement, such as an id to look up. No item is delayed to fill a batch. Where no
batch is in flight, an item is sent at once and alone; the higher the load, the more items share a round trip.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from svc.answers import Answer
from svc.errors import DatabaseBusy, QueryTimedOut, RowRefused

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

Send = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]

_NEWEST_WEIGHT: Final = 0.2  # of the newest round trip in the smoothed round-trip time
_SLOW_FACTOR: Final = 4  # a batch that takes this many times the smoothed time is not waited for
_MIN_CHECK_SECONDS: Final = 0.001
_GROWTH_DIVISOR: Final = 8  # after a fast full batch, the next may have an eighth more items


@dataclass(slots=True, eq=False)  # not frozen, which would double what it costs
class RoundTrip:
    """One batch, from its sending to its results or its error.

    Attributes:
        operation: the name of the Batcher.
        items: the number of items in the batch.
        sent_at: when it was sent, by time.monotonic().
        seconds: how long it took.
        queue_seconds: how long its oldest item had waited to be sent.
        error: why there are no results; None where there are.
    """

    operation: str
    items: int
    sent_at: float
    seconds: float
    queue_seconds: float
    error: Exception | None


OnRoundTrip = Callable[[RoundTrip], None]


class RoundTripObserver(Protocol):
    """A request that records the round trips that it was part of."""

    def add_round_trip(self, round_trip: RoundTrip, queue_seconds: float) -> None:
        """Records a round trip, and how long this request's own item waited to be sent."""


# The round trip is None where the item was not sent.
_Outcome: TypeAlias = tuple[Result | None, Exception | None, RoundTrip | None]


class _Waiting(Generic[Result]):
    """The callers who wait for one item's result, and since when."""

    __slots__ = ("answers", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.answers: list[Answer[_Outcome[Result]]] = []

    def is_abandoned(self) -> bool:
        """Whether no caller waits any more."""
        for answer in self.answers:  # noqa: SIM110 - runs for each request, and all() costs 0.3 µs more
            if not answer.done():
                return False
        return True

    def give(self, outcome: _Outcome[Result]) -> None:
        """Gives the outcome to the callers, who may run at once."""
        for answer in self.answers:
            answer.give(outcome)


class _Sender:
    """A task that sends batches one after the other.

    Attributes:
        task: that it runs in.
        sent_at: when its current batch was sent.
        deadline: until when it may wait for the results.
        is_late: whether it was cancelled since it did not get them in time.
    """

    __slots__ = ("deadline", "is_late", "sent_at", "task")

    task: asyncio.Task[None]

    def __init__(self, started_at: float) -> None:
        self.sent_at = started_at
        self.deadline = math.inf
        self.is_late = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a Batcher.

    Attributes:
        max_in_flight: batches in flight at once.
        max_batch_size: items in a batch.
        large_batch_size: the items from which on a batch's size, and not the network, is taken for the reason that its
            round trip takes long; fewer, where batches have become smaller.
        max_round_trip_seconds: after a large batch that takes longer, the next one has fewer items.
        max_wait_seconds: the longest that an item may wait to be sent; beyond it, DatabaseBusy.
        deadline_seconds: the longest from an item's arrival to its result; beyond it, QueryTimedOut.
    """

    max_in_flight: int
    max_batch_size: int
    large_batch_size: int
    max_round_trip_seconds: float
    max_wait_seconds: float
    deadline_seconds: float


class Batcher(Generic[Item, Result]):
    """Sends items in batches, a few of them in flight at once.

    One sender is enough while it keeps up, since larger batches cost less per item. Another sender starts where a
    batch is full, or where the batches in flight take much longer than usual. After a large batch that takes too long,
    the next ones are smaller: a slow database goes on answering, on all connections, instead of failing again and again
    at more than it can do in time.

    An item joins only a batch that has not been sent, so its result is never older than the item. Equal items in one
    unsent batch are sent once. A caller that is cancelled drops only its own wait. Where a batch fails because of an
    item (RowRefused), it is split and sent again until the item at fault is alone, and only that item's callers get the
    error. All parts of a batch share the deadline of its oldest item. Any other error is that of all the batch's
    callers: to send it again would not help, and a write may have happened.

    Args:
        operation: a name for what it sends.
        send: gives the results of a batch, in its order; all or none.
        limits: the bounds.
        on_round_trip: a hook that is called after each round trip, once its requests have recorded it.
    """

    def __init__(
        self, operation: str, send: Send[Item, Result], limits: Limits, on_round_trip: OnRoundTrip | None = None
    ) -> None:
        self._operation = operation
        self._send = send
        self._on_round_trip = on_round_trip
        # Kept, since asking for it costs a system call on Python 3.11.
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._batch_size = limits.max_batch_size  # the maximum of the next batch
        self._round_trip_seconds = 0.0
        self._in_flight: list[_Sender] = []  # each with a batch; the one whose batch was sent last is the last
        self._queue: dict[Item, _Waiting[Result]] = {}
        self._check_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None

    async def submit(self, item: Item, request: RoundTripObserver | None = None) -> Result:
        """The item's result.

        Args:
            item: to send.
            request: records the round trip that brought the result.

        Raises:
            DatabaseBusy: the item waited too long to be sent, or would.
            QueryTimedOut: it was sent, and its result did not arrive in time.
        """
        now = time.monotonic()
        waiting = self._queue.get(item)
        if waiting is None:
            if self._is_full(now):
                raise DatabaseBusy
            waiting = self._queue[item] = _Waiting(now)
        answer: Answer[_Outcome[Result]] = Answer(self._loop)
        waiting.answers.append(answer)
        if self._needs_sender(now):
            self._start_sender(now)
        elif self._check_timer is None:
            self._schedule_check(now)
        result, error, round_trip = await answer
        if request is not None and round_trip is not None:
            request.add_round_trip(round_trip, round_trip.sent_at - now)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # where there is no error, it is a Result

    def _needs_sender(self, now: float) -> bool:
        """Whether one more batch should be sent now.

        Fewer, larger batches cost less, so one sender is enough while it keeps up. More start where a batch is full,
        or where the batches in flight take so long that they may be stuck.
        """
        if not self._in_flight:
            return True
        if len(self._in_flight) == self._limits.max_in_flight:
            return False
        is_slow = now - self._in_flight[-1].sent_at > _SLOW_FACTOR * self._round_trip_seconds
        return is_slow or len(self._queue) >= self._batch_size

    def _check_queue(self) -> None:
        """Sends what waits for a batch that is stuck, even where no further item arrives to start a sender."""
        self._check_timer = None
        now = time.monotonic()
        self._reject_late(now)
        if self._queue:
            if self._needs_sender(now):
                self._start_sender(now)
            self._schedule_check(now)

    def _schedule_check(self, now: float) -> None:
        oldest = next(iter(self._queue.values())).since
        seconds = min(_SLOW_FACTOR * self._round_trip_seconds, oldest + self._limits.max_wait_seconds - now)
        self._check_timer = self._loop.call_later(max(seconds, _MIN_CHECK_SECONDS), self._check_queue)

    def _reject_late(self, now: float) -> None:
        """Rejects the items that waited too long. The queue is in order of arrival."""
        while self._queue:
            item, waiting = next(iter(self._queue.items()))
            if now - waiting.since <= self._limits.max_wait_seconds:
                return
            del self._queue[item]
            self._loop.call_soon(waiting.give, (None, DatabaseBusy(), None))

    def _start_sender(self, now: float) -> None:
        sender = _Sender(now)
        self._in_flight.append(sender)
        sender.task = self._loop.create_task(self._run_sender(sender))

    def _is_full(self, now: float) -> bool:
        """Whether one more item would wait too long: for the next batch to end, and for the batches ahead of it."""
        waiting = len(self._queue)
        max_in_flight = self._limits.max_in_flight
        if waiting < self._batch_size and len(self._in_flight) < max_in_flight:
            return False  # as below, for most requests
        wait_seconds = waiting // (self._batch_size * max_in_flight) * self._round_trip_seconds
        if len(self._in_flight) == max_in_flight:
            wait_seconds += max(0.0, self._in_flight[0].sent_at + self._round_trip_seconds - now)
        return wait_seconds > self._limits.max_wait_seconds

    async def _run_sender(self, sender: _Sender) -> None:
        while True:
            sender.sent_at = now = time.monotonic()
            if batch := self._take_batch(now):
                sender.deadline = batch[0][1].since + self._limits.deadline_seconds
                if self._deadline_timer is None:
                    self._schedule_deadline_check()
                await self._send_batch(batch, sender, now)
            self._in_flight.remove(sender)
            if not self._queue or not self._needs_sender(time.monotonic()):
                return
            self._in_flight.append(sender)

    def _schedule_deadline_check(self) -> None:
        """Schedules the check for the first deadline. No batch sent later has an earlier one."""
        first = min((sender.deadline for sender in self._in_flight if not sender.is_late), default=math.inf)
        if first < math.inf:
            seconds = max(first - time.monotonic(), _MIN_CHECK_SECONDS)
            self._deadline_timer = self._loop.call_later(seconds, self._check_deadlines)

    def _check_deadlines(self) -> None:
        """Ends the waits whose deadlines have passed. A timer for each batch would cost more than one for many."""
        self._deadline_timer = None
        now = time.monotonic()
        for sender in self._in_flight:
            if sender.deadline <= now and not sender.is_late:
                sender.is_late = sender.task.cancel()
        self._schedule_deadline_check()

    def _adapt(self, round_trip: RoundTrip) -> None:
        """Adapts the expected round-trip time and the batch size to the newest round trip."""
        if round_trip.error is None:  # a server that hangs for a while has not become a slow one
            self._round_trip_seconds += _NEWEST_WEIGHT * (round_trip.seconds - self._round_trip_seconds)
        if round_trip.seconds > self._limits.max_round_trip_seconds:
            # In a smaller batch, the slow network may be the reason, which more round trips would only load more.
            if round_trip.items >= min(self._batch_size, self._limits.large_batch_size):
                self._batch_size = max(1, round_trip.items // 2)
        elif round_trip.items >= self._batch_size:
            larger = self._batch_size + 1 + self._batch_size // _GROWTH_DIVISOR
            self._batch_size = min(self._limits.max_batch_size, larger)

    def _take_batch(self, now: float) -> list[tuple[Item, _Waiting[Result]]]:
        """The next batch, without items that waited too long or whose callers were all cancelled."""
        batch: list[tuple[Item, _Waiting[Result]]] = []
        self._reject_late(now)
        while self._queue and not batch:
            taken = list(islice(self._queue.items(), self._batch_size))
            for item, _ in taken:
                del self._queue[item]
            batch = [each for each in taken if not each[1].is_abandoned()]
        return batch

    async def _send_batch(self, batch: list[tuple[Item, _Waiting[Result]]], sender: _Sender, sent_at: float) -> None:
        error: Exception | None = None
        results: Sequence[Result] = ()
        try:
            results = await self._results([item for item, _ in batch], sender, sent_at)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the callers get it
            error = raised
        ended_at = time.monotonic()
        queue_seconds = sent_at - batch[0][1].since
        round_trip = RoundTrip(self._operation, len(batch), sent_at, ended_at - sent_at, queue_seconds, error)
        is_split = isinstance(error, RowRefused) and len(batch) > 1
        self._adapt(round_trip)
        # All callers run in one step of the event loop; but not in this one, so that the next batch is sent before.
        outcomes: Iterable[_Outcome[Result]] = ()
        if error is None:
            outcomes = [(result, None, round_trip) for result in results]
        elif not is_split:
            outcomes = repeat((None, error, round_trip))
        self._loop.call_soon(self._answer, batch, outcomes, round_trip)
        if is_split:
            half = len(batch) // 2
            await self._send_batch(batch[:half], sender, time.monotonic())
            await self._send_batch(batch[half:], sender, time.monotonic())

    def _answer(
        self,
        batch: list[tuple[Item, _Waiting[Result]]],
        outcomes: Iterable[_Outcome[Result]],
        round_trip: RoundTrip,
    ) -> None:
        """Gives the callers of a batch their outcomes, of which there are none where the batch is split."""
        for (_, waiting), outcome in zip(batch, outcomes, strict=False):
            waiting.give(outcome)
        if self._on_round_trip is not None:
            # The callers that are in tasks run first, since they were scheduled just above.
            self._loop.call_soon(self._on_round_trip, round_trip)

    async def _results(self, items: Sequence[Item], sender: _Sender, sent_at: float) -> Sequence[Result]:
        if sent_at >= sender.deadline:  # it passed while the batch that held these items failed
            raise QueryTimedOut
        try:
            results = await self._send(items)
        except asyncio.CancelledError:
            if not sender.is_late:
                raise
            sender.is_late = False
            sender.task.uncancel()
            raise QueryTimedOut from None
        if len(results) != len(items):  # else some callers would wait for ever, or get another's result
            raise RuntimeError(f"{self._operation}: {len(results)} results for {len(items)} items")
        return results
