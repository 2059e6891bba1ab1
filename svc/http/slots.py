"""Slots: how many requests are handled at once, and which one is next where none is free.

If requests were handled as they arrive, a caller with thousands of connections would get nearly all of a busy worker,
and all others would wait behind it. Kubernetes' API Priority and Fairness shows the way: beyond a number of requests,
each caller has a queue of its own, and the callers take turns.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from svc.answers import Answer
from svc.errors import ServiceBusy
from svc.http.messages import Request

_CHECKS: Final = 4  # of who has waited too long, in the time that a request may wait

# A request, since when it waits, and what it waits for: a slot, which is None, or the error that refuses it one. It is
# given in a later step of the event loop, since the request then runs on at once, and may free its slot at once.
_Waiting: TypeAlias = tuple[Request, float, Answer[Exception | None]]


class Slots:
    """The slots of one route. While a request is handled, it holds one, and who handles it gives it up at the end.

    A freed slot goes to the oldest request of the caller whose turn it is, and then it is the next caller's turn. So a
    request waits behind at most one request of each other caller, and behind the earlier ones of its own.

    Args:
        slots: how many there are.
        max_queue: how many requests of one caller may wait.
        max_wait_seconds: the longest that a request may wait.
        identify: names the caller of a request. It is not called while slots are free.

    Attributes:
        free: how many are free.
    """

    def __init__(self, slots: int, max_queue: int, max_wait_seconds: float, identify: Callable[[Request], str]) -> None:
        self.free = slots
        self._max_queue = max_queue
        self._max_wait_seconds = max_wait_seconds
        self._identify = identify
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, deque[_Waiting]] = {}  # by caller, of those that wait
        self._turns: deque[str] = deque()  # the same callers; the first one is next
        self._is_check_scheduled = False

    async def take(self, request: Request) -> None:
        """Takes a slot for the request, once one is free and it is the request's turn.

        Raises:
            ServiceBusy: the request waited too long, or too many of its caller's wait.
            ConnectionError: its caller has closed the connection.
        """
        if self.free > 0:
            self.free -= 1
            request.slots = self
        else:
            await self.queue(request)

    async def queue(self, request: Request) -> None:
        """Takes a slot as take() does, where none is free."""
        caller = self._identify(request)
        queue = self._queues.get(caller)
        if queue is None:
            queue = self._queues[caller] = deque()
            self._turns.append(caller)
        elif len(queue) >= self._max_queue:
            raise ServiceBusy
        given: Answer[Exception | None] = Answer(self._loop)
        queue.append((request, self._loop.time(), given))
        if not self._is_check_scheduled:
            self._schedule_check()
        if (refusal := await given) is not None:
            raise refusal

    def release(self) -> None:
        """Frees a slot, or gives it to the request whose turn it is."""
        while self._turns:
            request, since, given = self._next()
            if given.done():  # the request was cancelled
                continue
            request.slot_seconds += self._loop.time() - since
            if request.is_connected:
                request.slots = self
                self._loop.call_soon(given.give, None)
                return
            gone = ConnectionResetError("the caller disconnected while its request waited")
            self._loop.call_soon(given.give, gone)
        self.free += 1

    def _next(self) -> _Waiting:
        """Removes the request whose turn it is. If its caller has more, they wait for the next round."""
        caller = self._turns[0]
        queue = self._queues[caller]
        waiting = queue.popleft()
        if queue:
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
            del self._queues[caller]
        return waiting

    def _schedule_check(self) -> None:
        self._is_check_scheduled = True
        self._loop.call_later(self._max_wait_seconds / _CHECKS, self._refuse_late)

    def _refuse_late(self) -> None:
        """Refuses the requests that would wait too long until the next check. Each queue is in order of arrival."""
        self._is_check_scheduled = False
        latest = self._loop.time() - self._max_wait_seconds * (1 - 1 / _CHECKS)
        for queue in self._queues.values():
            while queue and queue[0][1] <= latest:
                request, since, given = queue.popleft()
                request.slot_seconds += self._loop.time() - since
                self._loop.call_soon(given.give, ServiceBusy())
        self._queues = {caller: queue for caller, queue in self._queues.items() if queue}
        self._turns = deque(caller for caller in self._turns if caller in self._queues)
        if self._turns:
            self._schedule_check()


def give_up_slot(request: Request) -> Slots | None:
    """Frees the request's slot where it has one. Returns where that was."""
    slots, request.slots = request.slots, None
    if slots is not None:
        slots.release()
    return slots


@asynccontextmanager
async def without_slot(request: Request) -> AsyncIterator[None]:
    """Leaves the request's slot to others while it only waits for its caller, and then takes one again.

    Otherwise a few callers who send or read slowly would hold all slots. After an error, the request stays without one.

    Raises:
        ServiceBusy, ConnectionError: as Slots.take.
    """
    slots = give_up_slot(request)
    yield
    if slots is not None:
        await slots.take(request)
