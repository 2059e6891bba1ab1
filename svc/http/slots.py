"""Slots: how many requests are handled at once, and which one is next where none is free.

If requests were handled as they arrive, a caller with thousands of connections would get nearly all of a busy worker,
and all others would wait behind it. Kubernetes' API Priority and Fairness shows the way: beyond a number of requests,
each caller has a queue of its own, and the callers take turns.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sized
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from svc.errors import ServiceBusy
from svc.http.messages import Request

_NEWEST_WEIGHT: Final = 0.05  # of the newest interval in the smoothed time between two freed slots
_CHECKS: Final = 4  # of who has waited too long, in the time that a request may wait


class _Waiting(NamedTuple):
    request: Request
    since: float
    slot: "asyncio.Future[None]"


class Slots:
    """The slots of one route. While a request is handled, it holds one.

    A freed slot goes to the oldest request of the caller whose turn it is, and then it is the next caller's turn. So a
    request waits behind at most one request of each other caller, and behind the earlier ones of its own.

    Args:
        slots: how many there are.
        max_queue: how many requests of one caller may wait.
        max_wait_seconds: the longest that a request may wait.
        identify: the caller of a request, by any name. It is not called while slots are free.

    Attributes:
        free: how many are free.
    """

    def __init__(self, slots: int, max_queue: int, max_wait_seconds: float, identify: Callable[[Request], str]) -> None:
        self.free = slots
        self._max_queue = max_queue
        self._max_wait_seconds = max_wait_seconds
        self._identify = identify
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, deque[_Waiting]] = {}  # by caller; the first one's turn is next
        self._count = 0  # of all requests in them
        self._freed_at = 0.0
        self._seconds_per_slot = 0.0  # between two freed slots, smoothed
        self._is_check_scheduled = False

    async def take(self, request: Request) -> None:
        """Takes a slot for the request, once one is free and it is the request's turn.

        Raises:
            ServiceBusy: the request waited too long, or would.
            ConnectionError: its caller has closed the connection.
        """
        if self.free > 0:
            self.free -= 1
            request.slots = self
            return
        waiting = self._enqueue(request)
        try:
            await waiting.slot
        except asyncio.CancelledError:
            slot = waiting.slot
            if slot.done() and not slot.cancelled() and slot.exception() is None:
                self.release()  # it was given one, and cancelled before it ran
            raise
        finally:
            request.slot_seconds += self._loop.time() - waiting.since
        request.slots = self

    def release(self) -> None:
        """Frees a slot."""
        if self._queues:
            now = self._loop.time()
            self._seconds_per_slot += _NEWEST_WEIGHT * (now - self._freed_at - self._seconds_per_slot)
            self._freed_at = now
            while self._queues:
                waiting = self._next()
                if waiting.slot.done():
                    continue
                if waiting.request.transport is not None:
                    waiting.slot.set_result(None)
                    return
                waiting.slot.set_exception(ConnectionResetError("the caller disconnected while it waited"))
        self.free += 1

    def _enqueue(self, request: Request) -> _Waiting:
        now = self._loop.time()
        if not self._queues:
            self._freed_at = now
        caller = self._identify(request)
        queue = self._queues.get(caller)
        if queue is None:
            queue = self._queues[caller] = deque()
        elif len(queue) >= self._max_queue or self._wait_seconds(queue) > self._max_wait_seconds:
            raise ServiceBusy
        waiting = _Waiting(request, now, self._loop.create_future())
        queue.append(waiting)
        self._count += 1
        if not self._is_check_scheduled:
            self._schedule_check()
        return waiting

    def _wait_seconds(self, queue: Sized) -> float:
        """How long one more request in this queue would wait, at most: one round for each request ahead of it."""
        return min(len(queue) * len(self._queues), self._count) * self._seconds_per_slot

    def _next(self) -> _Waiting:
        """Removes the request whose turn it is. If its caller has more, they wait for the next round."""
        caller, queue = next(iter(self._queues.items()))
        del self._queues[caller]
        waiting = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[caller] = queue
        return waiting

    def _schedule_check(self) -> None:
        self._is_check_scheduled = True
        self._loop.call_later(self._max_wait_seconds / _CHECKS, self._refuse_late)

    def _refuse_late(self) -> None:
        """Refuses the requests that would wait too long until the next check. Each queue is in order of arrival."""
        self._is_check_scheduled = False
        latest = self._loop.time() - self._max_wait_seconds * (1 - 1 / _CHECKS)
        for caller, queue in list(self._queues.items()):
            while queue and queue[0].since <= latest:
                slot = queue.popleft().slot
                self._count -= 1
                if not slot.done():
                    slot.set_exception(ServiceBusy())
            if not queue:
                del self._queues[caller]
        if self._queues:
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
