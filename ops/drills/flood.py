"""More requests than callers with a ledger could send: due at times that no answer moves, over many connections."""

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
CUT: Final = "cut"  # in the place of a status: the connection ended before its answer

_Answered: TypeAlias = Callable[["_Connection", str], None]


@dataclass
class Flood:
    """What a flood was answered.

    Attributes:
        seconds: how long it lasted.
        sent: how many requests were.
        answered: how many were while it lasted, by the answer's status.
        milliseconds: from when a request was due to its answer, by the answer's status.
    """

    seconds: float
    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    milliseconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def rate(self, *statuses: str) -> float:
        """Answers with one of these statuses, per second; with none named, all of them."""
        return sum(self.answered[each] for each in statuses or self.answered) / self.seconds

    def percentile(self, percent: float, status: str) -> float:
        """The milliseconds that so many per cent of the answers with a status took at most; 0 where there are none."""
        ordered = sorted(self.milliseconds[status])
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


async def adds(port: int, seconds: float, rate: float, connections: int) -> Flood:
    """Adds at so many per second, at random, on as many connections as they need.

    Args:
        port: of the service, on 127.0.0.1.
        seconds: how long.
        rate: adds per second.
        connections: the most; an add that is due while all are busy waits, and its wait counts.
    """
    sender = _Sender(port, connections, Flood(seconds))
    await sender.send(rate)
    await sender.settle()
    return sender.found


class _Sender:
    """Sends what is due on connections that are free, or new."""

    def __init__(self, port: int, connections: int, found: Flood) -> None:
        self.found = found
        self._port = port
        self._connections_most = connections
        self._end = time.monotonic() + found.seconds
        self._due: deque[float] = deque()
        self._free: list[_Connection] = []
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
        """Waits for the last answers, a while, and leaves."""
        await asyncio.gather(*self._connecting)
        settled = time.monotonic() + _SETTLE_SECONDS
        while len(self._free) < len(self._connected) and time.monotonic() < settled:  # noqa: ASYNC110 - no hurry
            await asyncio.sleep(0.01)
        for connection in self._connected:
            connection.close()

    def _send(self, due: float) -> None:
        self.found.sent += 1
        if self._free:
            self._free.pop().ask(due)
            return
        self._due.append(due)
        if len(self._connected) + len(self._connecting) < self._connections_most:
            task = asyncio.create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._note), "127.0.0.1", self._port)
        self._connected.add(connection)
        self._go_on(connection)

    def _note(self, connection: "_Connection", status: str) -> None:
        now = time.monotonic()
        self.found.milliseconds[status].append((now - connection.due) * 1000)
        self.found.answered[status] += now < self._end
        if status == CUT:
            self._connected.discard(connection)
        else:
            self._go_on(connection)

    def _go_on(self, connection: "_Connection") -> None:
        if self._due:
            connection.ask(self._due.popleft())
        else:
            self._free.append(connection)


class _Connection(asyncio.Protocol):
    """One connection, with one request under way at a time.

    Attributes:
        due: when that request was.
    """

    def __init__(self, answered: _Answered) -> None:
        self.due = 0.0
        self._answered = answered
        self._waits = False
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, though no subclass

    def ask(self, due: float) -> None:
        """Sends an add that was due then."""
        assert self._transport is not None
        self.due, self._waits = due, True
        self._transport.write(_ADD)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.partition(_LENGTH)[2].partition(b"\r\n")[0]):
            self._received, self._waits = b"", False
            self._answered(self, head[9:12].decode())

    def connection_lost(self, _: Exception | None) -> None:
        if self._waits:
            self._waits = False
            self._answered(self, CUT)

    def close(self) -> None:
        """Leaves."""
        self._waits = False
        assert self._transport is not None
        self._transport.close()
