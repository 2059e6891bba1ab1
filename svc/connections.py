"""The connections that a worker holds: how many there may be, and how long one may keep the service waiting."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from itertools import chain, islice, takewhile
from typing import Final, Protocol, TypeAlias

# For the whole head of a request, from its first byte; for the first one, from connecting.
HEAD_SECONDS: Final = 10.0
# Longer than a balancer's idle time-out (60 s): who closes an idle connection first may lose a request on it.
KEEPALIVE_SECONDS: Final = 75.0
# For what fills a connection's buffer (16 KB, or a page of a list, some 50 KB) to be read: 2 KB a second do.
WRITE_SECONDS: Final = 30.0
UNREAD_MOST: Final = 1000  # that wait for it at once: each takes up to 100 KB and more, ten times one that is idle
_LOOK_SECONDS: Final = 0.5
# Thousands who came together are over together: to close so many takes 1 to 3 ms, and others have a turn in between.
_LOOK_MOST: Final = 50
_PAUSE_SECONDS: Final = 0.01
_OTHER_FILES: Final = 200  # of a worker: up to 100 connections to the database; the collector, logs, libraries


def afford(wanted: int) -> int:
    """So many connections, or as many as this process may have files open for; it takes what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - _OTHER_FILES))
    return wanted


class Held(Protocol):
    """A connection, as it is seen from here."""

    @property
    def has_request(self) -> bool:
        """Whether a request is there whose answer is not out."""

    def expire(self) -> None:
        """The head of its request did not arrive in time."""

    def cut(self) -> None:
        """Closes it at once."""


_Waiting: TypeAlias = dict[Held, float]  # since when, the longest first: what is put into a dict comes last


class Connections:
    """Which connections there are, and what each has kept the service waiting for, since when.

    A dict for each thing to wait for keeps them in order of time: a request costs a step in one of them, and one timer
    for all connections looks at those only whose time is over.

    Args:
        most: how many there may be.

    Attributes:
        count: how many there are.
        shed: how many were cut to make room, or refused since there was none.
        timed_out: how many were cut since a head did not arrive, or an answer was not read, in time.
    """

    def __init__(self, most: int) -> None:
        self.count = 0
        self.shed = 0
        self.timed_out = 0
        self._most = most
        self._time = asyncio.get_running_loop().time
        self._is_looking = False
        # For a head, of which part may be there; or one is there, the first of its connection, and not yet answered.
        self._arriving: _Waiting = {}
        # For the next request, or the end of a body that nobody wants; or the next one is there, and not yet answered.
        self._idle: _Waiting = {}
        # For the caller to read its answer.
        self._unread: _Waiting = {}

    def admit(self, new: Held) -> bool:
        """Takes a new connection, in place of the one that has waited longest for a request where there is no room."""
        if self.count >= self._most:
            self.shed += 1
            oldest = next(self._free(), None)
            if oldest is None:
                return False
            self._forget(oldest)
            oldest.cut()
        self.count += 1
        self._arriving[new] = self._time()
        if not self._is_looking:
            self._look_later()
        return True

    def _free(self) -> Iterator[Held]:
        """Those without a request, in order of how little is lost with them."""
        return filter(_is_free, chain(self._arriving, self._idle))

    def leave(self, connection: Held) -> None:
        """Lets go of one that is closed."""
        self.count -= 1
        self._forget(connection)
        self._unread.pop(connection, None)

    def _forget(self, connection: Held) -> None:
        if self._idle.pop(connection, None) is None:
            self._arriving.pop(connection, None)

    def arrive(self, connection: Held) -> None:
        """A head has begun to arrive."""
        if self._idle.pop(connection, None) is not None:
            self._arriving[connection] = self._time()

    def rest(self, connection: Held) -> None:
        """A request has been answered."""
        self._forget(connection)
        self._idle[connection] = self._time()

    def fill(self, connection: Held) -> None:
        """Its buffer is full: no more is sent until the caller has read."""
        self._unread[connection] = self._time()
        if len(self._unread) > UNREAD_MOST:
            self.shed += 1
            oldest = next(iter(self._unread))
            del self._unread[oldest]
            oldest.cut()

    def flow(self, connection: Held) -> None:
        """Its buffer has room again."""
        self._unread.pop(connection, None)
        if connection in self._idle:
            self.rest(connection)  # it was no rest until now

    def _look_later(self, seconds: float = _LOOK_SECONDS) -> None:
        self._is_looking = self.count > 0
        if self._is_looking:
            asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        idle = self._over(self._idle, KEEPALIVE_SECONDS, _is_free)
        arriving = self._over(self._arriving, HEAD_SECONDS, _is_free)
        unread = self._over(self._unread, WRITE_SECONDS)
        for connection in (*idle, *unread):
            self._forget(connection)
            self._unread.pop(connection, None)
            connection.cut()
        for connection in arriving:
            self._forget(connection)
            connection.expire()
        self.timed_out += len(arriving) + len(unread)
        is_more = max(len(idle), len(arriving), len(unread)) == _LOOK_MOST
        self._look_later(_PAUSE_SECONDS if is_more else _LOOK_SECONDS)

    def _over(self, waiting: _Waiting, seconds: float, is_meant: Callable[[Held], bool] | None = None) -> list[Held]:
        """Some of those that have waited for longer."""
        latest = self._time() - seconds
        over = takewhile(lambda connection: waiting[connection] <= latest, waiting)
        return list(islice(filter(is_meant, over), _LOOK_MOST))


def _is_free(connection: Held) -> bool:
    return not connection.has_request
