"""The connections of a worker: how many may be open, and how long each may stay in a state."""

import asyncio
import resource
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

# For the whole head of a request, from its first byte; for a connection's first request, from connecting.
HEAD_SECONDS: Final = 10.0
# Longer than a balancer's idle time-out (60 s by default): the side that closes an idle connection first may lose a
# request on it.
KEEPALIVE_SECONDS: Final = 75.0
# For the caller to read what fills a connection's buffer (16 KB, or a page of a list, some 50 KB): 2 KB/s is enough.
WRITE_SECONDS: Final = 30.0
MAX_WRITE_PAUSED: Final = 1000  # each takes up to 100 KB and more, ten times as much as an idle one
CHECK_SECONDS: Final = 0.5
# Thousands of connections that were opened together time out together. To close this many takes 1 to 3 ms; between
# two such groups, other work runs.
_MAX_CLOSED_AT_ONCE: Final = 50
_PAUSE_SECONDS: Final = 0.01
_OTHER_FILES: Final = 200  # of a worker: up to 100 connections to the database; the collector, logs, libraries


def limit_to_open_files(max_connections: int) -> int:
    """The most connections, up to max_connections, for which this process can open files.

    It raises the process's soft limit of open files as far as that needs and the hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(max_connections, soft - _OTHER_FILES))
    return max_connections


class OpenConnection(Protocol):
    """The part of a connection that Connections uses."""

    @property
    def has_request(self) -> bool:
        """Whether a request has arrived whose response is not yet written."""

    def time_out_head(self) -> None:
        """Closes it, with a 408 where part of a head has arrived."""

    def abort(self) -> None:
        """Closes it at once, without sending what is buffered."""


_Since: TypeAlias = dict[OpenConnection, float]  # when each entered the state, the oldest first


class Connections:
    """The open connections by state, and since when each has been in it.

    A dict per state keeps its connections in order of time: a request costs one step in one of them, and a single
    timer visits only the connections that are overdue.

    Args:
        max_connections: how many may be open.
        keepalive_seconds: how long one may wait for its next request.

    Attributes:
        count: how many are open.
        shed: how many were closed to make room, or refused for lack of it.
        timed_out: how many were closed because a head did not arrive, or a response was not read, in time.
    """

    def __init__(self, max_connections: int, keepalive_seconds: float = KEEPALIVE_SECONDS) -> None:
        self.count = 0
        self.shed = 0
        self.timed_out = 0
        self._max_connections = max_connections
        self._keepalive_seconds = keepalive_seconds
        self._time = asyncio.get_running_loop().time
        self._is_check_scheduled = False
        # A head is awaited, and part of it may have arrived; or the connection's first request is being answered.
        self._reading_head: _Since = {}
        # The next request is awaited, or the rest of a body that no handler reads; or a later request is in progress.
        self._idle: _Since = {}
        # The caller does not read the response.
        self._write_paused: _Since = {}
        # Moved here from the first two by _first_without_request, until its response is written.
        self._answering: set[OpenConnection] = set()

    def add(self, new: OpenConnection) -> bool:
        """Adds a new connection; where there is no room, it replaces the one that has waited longest for a request.

        Returns:
            Whether it was added. False where all others are answering requests.
        """
        if self.count >= self._max_connections:
            self.shed += 1
            oldest = self._first_without_request(self._reading_head) or self._first_without_request(self._idle)
            if oldest is None:
                return False
            self._leave_state(oldest)
            oldest.abort()
        self.count += 1
        self._reading_head[new] = self._time()
        if not self._is_check_scheduled:
            self._schedule_check(CHECK_SECONDS)
        return True

    @property
    def new(self) -> int:
        """How many have not been answered yet since they were opened, or have sent part of their next head."""
        return len(self._reading_head)

    def _first_without_request(self, state: _Since) -> OpenConnection | None:
        """The connection that has waited longest for a request and has none yet.

        Those with a request are moved aside: there may be thousands with half a body, and no search should pass over
        them all again and again.
        """
        while state:
            first = next(iter(state))
            if not first.has_request:
                return first
            del state[first]
            self._answering.add(first)
        return None

    def remove(self, connection: OpenConnection) -> None:
        """Removes a connection that is closed."""
        self.count -= 1
        self._leave_state(connection)
        self._write_paused.pop(connection, None)

    def _leave_state(self, connection: OpenConnection) -> None:
        if self._idle.pop(connection, None) is None and self._reading_head.pop(connection, None) is None:
            self._answering.discard(connection)

    def set_reading_head(self, connection: OpenConnection) -> None:
        """The first byte of a head has arrived."""
        if self._idle.pop(connection, None) is not None:
            self._reading_head[connection] = self._time()

    def set_idle(self, connection: OpenConnection) -> None:
        """A request has been answered."""
        self._leave_state(connection)
        self._idle[connection] = self._time()

    def set_write_paused(self, connection: OpenConnection) -> None:
        """The connection's buffer is full: nothing more is written until the caller has read."""
        self._write_paused[connection] = self._time()
        if len(self._write_paused) > MAX_WRITE_PAUSED:
            self.shed += 1
            oldest = next(iter(self._write_paused))
            del self._write_paused[oldest]
            oldest.abort()

    def set_write_resumed(self, connection: OpenConnection) -> None:
        """The connection's buffer has room again."""
        self._write_paused.pop(connection, None)
        if connection not in self._reading_head and not connection.has_request:
            self.set_idle(connection)  # its idle time starts now, when its response has been read

    def _schedule_check(self, seconds: float) -> None:
        self._is_check_scheduled = self.count > 0
        if self._is_check_scheduled:
            asyncio.get_running_loop().call_later(seconds, self._close_overdue)

    def _close_overdue(self) -> None:
        idle = self._take_overdue(self._idle, self._keepalive_seconds, self._first_without_request)
        reading_head = self._take_overdue(self._reading_head, HEAD_SECONDS, self._first_without_request)
        write_paused = self._take_overdue(self._write_paused, WRITE_SECONDS, _first)
        for connection in (*idle, *write_paused):
            self._leave_state(connection)
            self._write_paused.pop(connection, None)
            connection.abort()
        for connection in reading_head:
            connection.time_out_head()
        self.timed_out += len(reading_head) + len(write_paused)
        has_more = max(len(idle), len(reading_head), len(write_paused)) == _MAX_CLOSED_AT_ONCE
        self._schedule_check(_PAUSE_SECONDS if has_more else CHECK_SECONDS)

    def _take_overdue(
        self, state: _Since, seconds: float, first: Callable[[_Since], OpenConnection | None]
    ) -> list[OpenConnection]:
        """Removes from a state some of the connections that have been in it for longer."""
        latest = self._time() - seconds
        overdue: list[OpenConnection] = []
        while len(overdue) < _MAX_CLOSED_AT_ONCE and (oldest := first(state)) and state[oldest] <= latest:
            del state[oldest]
            overdue.append(oldest)
        return overdue


def _first(state: _Since) -> OpenConnection | None:
    return next(iter(state), None)
