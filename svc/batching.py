"""Natural batching: whatever was asked during the last round trip goes out together in the next.

Nothing is held back for company. Where nothing is under way, a question goes out at once and alone; the busier it
gets, the more questions share a round trip.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from svc.errors import DatabaseBusy, QueryTimedOut, ServiceError

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

Send = Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]

_NEWEST_WEIGHT: Final = 0.2  # of a round trip in the smoothed time of round trips
_SLOW: Final = 4  # times the smoothed time: who takes that long is not waited for
_LOOK_LEAST_SECONDS: Final = 0.001
_GROWTH: Final = 8  # a full batch that was quick lets the next have an eighth more


@dataclass(frozen=True, slots=True, eq=False)
class Trip:
    """One batch's way to its answers and back, or to an error.

    Attributes:
        questions: in the batch.
        sent: when, by time.monotonic().
        seconds: how long it took.
        queue_seconds: how long the oldest of its questions had waited to be sent.
        error: why there are no answers, where there are none.
        riders: what those who were charged for it left to be told of by name.
    """

    questions: int
    sent: float
    seconds: float
    queue_seconds: float
    error: Exception | None
    riders: list[Any] = field(default_factory=list)


Watch = Callable[[Trip], None]


class Account(Protocol):
    """Whoever wants to know what their questions cost."""

    def charge(self, trip: Trip, queue_seconds: float) -> None:
        """Notes a trip that one of their questions was part of, and how long that question waited to be sent."""


# Where the asker of a question is charged; nobody where it is unset.
account: ContextVar[Account] = ContextVar("account")


_Outcome: TypeAlias = tuple[Answer | None, Exception | None, Trip]


class _Waiting(Generic[Answer]):
    """Those who wait for one question's answer, and since when."""

    __slots__ = ("futures", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.futures: list[asyncio.Future[_Outcome[Answer]]] = []

    def is_left(self) -> bool:
        """Whether all have gone away."""
        for future in self.futures:  # noqa: SIM110 - it is run for each request, where all() costs 0.3 µs more
            if not future.done():
                return False
        return True


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a Batcher.

    Attributes:
        lanes: how many batches may be on their way at once.
        batch_most: questions in a batch.
        trip_seconds: what a round trip should take at most; where one takes longer, the next takes fewer questions.
        queue_most: questions that may wait; one more is DatabaseBusy.
        wait_seconds: the longest that a question may wait to be sent; where it would be longer, DatabaseBusy.
        answer_seconds: the longest from a question to its answer, that wait included; beyond it, QueryTimedOut.
    """

    lanes: int
    batch_most: int
    trip_seconds: float
    queue_most: int
    wait_seconds: float
    answer_seconds: float


class Batcher(Generic[Question, Answer]):
    """Answers questions in batches, over a few lanes that each have one batch on its way at a time.

    One lane does while it can, since larger batches cost less; another joins it where a batch is full, or where those
    under way take much longer than usual. Where a full batch takes too long, the next ones are smaller: a database in
    trouble goes on answering, instead of being asked again and again for more than it can do in time.

    A question joins only what has not been sent, so its answer is never older than the question. Equal questions in
    one unsent batch are asked once. A caller who goes away drops its own wait and nothing else. Where a batch fails
    for a reason that is not the service's (a ServiceError), it is split and sent again until the question at fault
    stands alone: only its callers get the error. All that comes of a batch shares the deadline of its oldest question.

    Args:
        send: answers a batch, in its order; all or nothing.
        limits: see there.
        watch: is told of each trip, once all its askers are charged.
    """

    def __init__(self, send: Send[Question, Answer], limits: Limits, watch: Watch | None = None) -> None:
        self._send = send
        self._watch = watch
        # Kept, since to ask Python 3.11 for it costs a system call.
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._batch_size = limits.batch_most  # of the next batch, at most
        self._round_trip_seconds = 0.0
        self._under_way: list[float] = []  # when each busy lane sent its batch, the newest last
        self._queue: dict[Question, _Waiting[Answer]] = {}
        self._look_out: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks only weakly

    async def ask(self, question: Question) -> Answer:
        """The answer.

        Raises:
            DatabaseBusy: too many questions are waiting, or this one waited too long to be sent.
            QueryTimedOut: it was sent, and not answered in time.
        """
        now = time.monotonic()
        waiting = self._queue.get(question)
        if waiting is None:
            if self._is_full(now):
                raise DatabaseBusy
            waiting = self._queue[question] = _Waiting(now)
        answered: asyncio.Future[_Outcome[Answer]] = self._loop.create_future()
        waiting.futures.append(answered)
        if self._is_lane_wanted(now):
            self._start_lane(now)
        elif self._look_out is None:
            self._look_later(now)
        answer, error, trip = await answered
        charged = account.get(None)
        if charged is not None:
            charged.charge(trip, trip.sent - now)
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]  # where there is no error, it is an Answer

    def _is_lane_wanted(self, now: float) -> bool:
        """Whether one more lane should take what waits.

        Fewer, larger batches cost less, so one lane does while it can. More join it where a batch is full, or where
        those under way take so long that something may be holding them up.
        """
        if not self._under_way:
            return True
        if len(self._under_way) == self._limits.lanes:
            return False
        is_slow = now - self._under_way[-1] > _SLOW * self._round_trip_seconds
        return is_slow or len(self._queue) >= self._batch_size

    def _look(self) -> None:
        """Sees to it that what waits does not wait for a batch that hangs, even where nobody else comes."""
        self._look_out = None
        now = time.monotonic()
        self._refuse_late(now)
        if self._queue:
            if self._is_lane_wanted(now):
                self._start_lane(now)
            self._look_later(now)

    def _look_later(self, now: float) -> None:
        oldest = next(iter(self._queue.values())).since
        seconds = min(_SLOW * self._round_trip_seconds, oldest + self._limits.wait_seconds - now)
        self._look_out = self._loop.call_later(max(seconds, _LOOK_LEAST_SECONDS), self._look)

    def _refuse_late(self, now: float) -> None:
        """Refuses those who waited too long. The queue is in order of arrival."""
        while self._queue:
            question, waiting = next(iter(self._queue.items()))
            if now - waiting.since <= self._limits.wait_seconds:
                return
            del self._queue[question]
            _fail(waiting, DatabaseBusy())

    def _start_lane(self, now: float) -> None:
        self._under_way.append(now)
        lane = self._loop.create_task(self._run_lane(now))
        self._running.add(lane)
        lane.add_done_callback(self._running.discard)

    def _is_full(self, now: float) -> bool:
        """Whether one more question would wait too long: for a lane to be back, and for the batches ahead of it."""
        waiting = len(self._queue)
        lanes = self._limits.lanes
        wait_seconds = waiting // (self._batch_size * lanes) * self._round_trip_seconds
        if len(self._under_way) == lanes:
            wait_seconds += max(0.0, self._under_way[0] + self._round_trip_seconds - now)
        return wait_seconds > self._limits.wait_seconds or waiting >= self._limits.queue_most

    async def _run_lane(self, started: float) -> None:
        while batch := self._take():
            await self._serve(batch, batch[0][1].since + self._limits.answer_seconds)
            now = time.monotonic()
            self._under_way.remove(started)
            if not self._is_lane_wanted(now):
                return
            started = now
            self._under_way.append(started)
        self._under_way.remove(started)

    def _learn(self, trip: Trip) -> None:
        """Takes a round trip as a sign of those to come."""
        if trip.error is None:  # a server that hangs for a while has not become a slow one
            self._round_trip_seconds += _NEWEST_WEIGHT * (trip.seconds - self._round_trip_seconds)
        if trip.questions < self._batch_size:
            return  # what took long was not its size: a network may have, and smaller batches would only be more of it
        if trip.seconds > self._limits.trip_seconds:
            self._batch_size = max(1, trip.questions // 2)
        else:
            self._batch_size = min(self._limits.batch_most, self._batch_size + 1 + self._batch_size // _GROWTH)

    def _take(self) -> list[tuple[Question, _Waiting[Answer]]]:
        """The next batch, without those whom nobody waits for any more, or who waited too long."""
        batch: list[tuple[Question, _Waiting[Answer]]] = []
        self._refuse_late(time.monotonic())
        while self._queue and len(batch) < self._batch_size:
            question = next(iter(self._queue))
            waiting = self._queue.pop(question)
            if not waiting.is_left():
                batch.append((question, waiting))
        return batch

    async def _serve(self, batch: list[tuple[Question, _Waiting[Answer]]], deadline: float) -> None:
        sent = time.monotonic()
        error: Exception | None = None
        answers: Sequence[Answer] = ()
        try:
            answers = await self._answers([question for question, _ in batch], deadline - sent)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is the callers' to see
            error = raised
        trip = Trip(len(batch), sent, time.monotonic() - sent, sent - batch[0][1].since, error)
        is_theirs = error is not None and not isinstance(error, ServiceError)
        self._learn(trip)
        if error is None:
            for (_, waiting), answer in zip(batch, answers, strict=True):
                _settle(waiting, (answer, None, trip))
        elif len(batch) == 1 and is_theirs:
            _settle(batch[0][1], (None, error, trip))
        elif not is_theirs:
            for _, waiting in batch:
                _settle(waiting, (None, type(error)(), trip))
        if self._watch is not None:
            # Those who wait run first: their turns were asked for just above.
            self._loop.call_soon(self._watch, trip)
        if is_theirs and len(batch) > 1:
            half = len(batch) // 2
            await self._serve(batch[:half], deadline)
            await self._serve(batch[half:], deadline)

    async def _answers(self, questions: Sequence[Question], seconds: float) -> Sequence[Answer]:
        if seconds <= 0:  # went by while the batch that these are a part of failed
            raise QueryTimedOut
        try:
            async with asyncio.timeout(seconds):
                return await self._send(questions)
        except TimeoutError:
            raise QueryTimedOut from None


def _settle(waiting: _Waiting[Answer], outcome: _Outcome[Answer]) -> None:
    for future in waiting.futures:
        if not future.done():
            future.set_result(outcome)


def _fail(waiting: _Waiting[Answer], error: Exception) -> None:
    for future in waiting.futures:
        if not future.done():
            future.set_exception(error)
