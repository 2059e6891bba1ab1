"""More requests than callers with a ledger can send. Each is due at a time that does not depend on responses."""

import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

NAME: Final = "flood"  # of all clients that a flood adds

_BODY: Final = b"name=%b&money=1.25" % NAME.encode()
_ADD: Final = (
    b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_LENGTH: Final = b"\r\nContent-Length: "
_SETTLE_SECONDS: Final = 10.0
CLOSED: Final = "closed"  # instead of a status: the connection was closed before the response

_OnResponse: TypeAlias = Callable[["_Connection", str], None]


@dataclass
class Flood:
    """The responses to a flood.

    Attributes:
        seconds: how long it lasted.
        sent: number of requests.
        responses: number of responses while it lasted, by status.
        milliseconds: from when a request was due to its response, by status.
    """

    seconds: float
    sent: int = 0
    responses: Counter[str] = field(default_factory=Counter)
    milliseconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def rate(self, *statuses: str) -> float:
        """Returns the responses per second with one of these statuses, or with any if none is given."""
        return sum(self.responses[each] for each in statuses or self.responses) / self.seconds

    def percentile(self, percent: float, status: str) -> float:
        """Returns a percentile, in milliseconds, of the responses with this status; 0 if there are none."""
        ordered = sorted(self.milliseconds[status])
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


async def adds(port: int, seconds: float, rate: float, max_connections: int) -> Flood:
    """Sends adds at random times with this average rate, on as many connections as they need.

    Args:
        port: of the service, on 127.0.0.1.
        seconds: how long.
        rate: adds per second.
        max_connections: an add that is due while all are busy waits, and its wait counts.
    """
    sender = _Sender(port, max_connections, Flood(seconds))
    await sender.send(rate)
    await sender.settle()
    return sender.flood


class _Sender:
    """Sends each request on an idle connection, or on a new one."""

    def __init__(self, port: int, max_connections: int, flood: Flood) -> None:
        self.flood = flood
        self._port = port
        self._max_connections = max_connections
        self._end = time.monotonic() + flood.seconds
        self._due: deque[float] = deque()
        self._idle: list[_Connection] = []
        self._connected: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def send(self, rate: float) -> None:
        """Sends until the end."""
        next_due = time.monotonic()
        while next_due < self._end:
            await asyncio.sleep(max(0.0, next_due - time.monotonic()))
            while next_due <= time.monotonic():
                self._send(next_due)
                next_due += random.expovariate(rate)

    async def settle(self) -> None:
        """Waits a while for the last responses, then disconnects."""
        await asyncio.gather(*self._connecting)
        settled = time.monotonic() + _SETTLE_SECONDS
        while len(self._idle) < len(self._connected) and time.monotonic() < settled:  # noqa: ASYNC110 - not urgent
            await asyncio.sleep(0.01)
        for connection in self._connected:
            connection.close()

    def _send(self, due: float) -> None:
        self.flood.sent += 1
        if self._idle:
            self._idle.pop().send(due)
            return
        self._due.append(due)
        if len(self._connected) + len(self._connecting) < self._max_connections:
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._on_response), "127.0.0.1", self._port)
        self._connected.add(connection)
        self._send_next(connection)

    def _on_response(self, connection: "_Connection", status: str) -> None:
        now = time.monotonic()
        self.flood.milliseconds[status].append((now - connection.due) * 1000)
        self.flood.responses[status] += now < self._end
        if status == CLOSED:
            self._connected.discard(connection)
        else:
            self._send_next(connection)

    def _send_next(self, connection: "_Connection") -> None:
        if self._due:
            connection.send(self._due.popleft())
        else:
            self._idle.append(connection)


class _Connection(asyncio.Protocol):
    """One connection with one request in progress at a time.

    Attributes:
        due: when that request was due.
    """

    def __init__(self, on_response: _OnResponse) -> None:
        self.due = 0.0
        self._on_response = on_response
        self._is_waiting = False
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but is not a subclass

    def send(self, due: float) -> None:
        """Sends an add that was due then."""
        assert self._transport is not None
        self.due, self._is_waiting = due, True
        self._transport.write(_ADD)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.partition(_LENGTH)[2].partition(b"\r\n")[0]):
            self._received, self._is_waiting = b"", False
            self._on_response(self, head[9:12].decode())

    def connection_lost(self, _: Exception | None) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._on_response(self, CLOSED)

    def close(self) -> None:
        """Closes the connection without waiting for a response."""
        self._is_waiting = False
        assert self._transport is not None
        self._transport.close()
