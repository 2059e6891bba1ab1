"""An open loop: sends requests at the times of a Poisson process, whatever happens to earlier ones, on loopback only.

`ops.load` is such a generator, too, with Locust's scenarios and reports. This one is only a timer, sockets and
httptools' parser, since it shares the machine with a service that carries tens of thousands of requests per second. It
runs as a process of its own: `python -m ops.bench.open_loop`.
"""

import asyncio
import contextlib
import ctypes
import gc
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from ops.common.loopback import is_loopback
from ops.load.arrivals import scheduled_times, steady

_OPENED_CONNECTIONS: Final = 64  # before the first request is due, as in the closed loop
_CONNECT_SECONDS: Final = 2.0  # a server with a short queue does not accept that many
_MAX_CONNECTIONS: Final = 256  # further requests wait, which counts
_TIMEOUT_SECONDS: Final = 10.0  # after the end of the load, for what is still in progress
_GRACE_SECONDS: Final = 60.0
_PREPARED_REQUESTS: Final = 20_000  # sent in a cycle
_MAX_LATE_MS: Final = 1.0
_MAX_CPU_SHARE: Final = 0.9


class OpenLoopError(Exception):
    """The generator failed, or the URL is not of this machine."""


@dataclass(frozen=True)
class Load:
    """The report of one run.

    Attributes:
        requests: that were due and were sent or waited for a connection.
        seconds: in which they were due.
        errors: no response in time, a broken connection, or a status of 400 or above.
        p50_ms: median latency from the time at which each request was due, in milliseconds. A request without a
            response counts with the time that it has waited.
        p99_ms: its 99th percentile.
        p999_ms: its 99.9th percentile.
        late_ms: 99th percentile of how much later than due the generator came to send a request, in milliseconds.
        cpu_share: of one core that the generator used.
    """

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_ms: float
    cpu_share: float

    @property
    def limit(self) -> str:
        """Why the figures describe the generator rather than the service; empty if they do not."""
        return limit(self.late_ms, self.cpu_share)


def limit(late_ms: float, cpu_share: float) -> str:
    """Why figures describe the generator rather than the service; empty if they do not."""
    if late_ms > _MAX_LATE_MS:
        return f"1 % of the requests were sent {late_ms:.1f} ms late or later"
    return f"the generator used {100 * cpu_share:.0f} % of a core" if cpu_share > _MAX_CPU_SHARE else ""


def run(url: str, workload: str, largest_id: int, rate: float, seconds: int, *, before: Sequence[str] = ()) -> Load:
    """Sends one kind of request, at times that do not depend on the responses.

    Args:
        url: of the service.
        workload: get or add.
        largest_id: of the clients to get.
        rate: requests per second, on average.
        seconds: how long.
        before: a command that starts the generator, with its arguments.

    Raises:
        OpenLoopError: with the reason. If the address is not of loopback, no request was sent.
    """
    if not is_loopback(url):
        raise OpenLoopError(f"{url} is not an address of loopback; the benchmark loads only this machine")
    command = [
        *before,
        sys.executable,
        "-m",
        "ops.bench.open_loop",
        url,
        workload,
        *map(str, (largest_id, rate, seconds)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + _TIMEOUT_SECONDS + _GRACE_SECONDS, check=True
        )
        return Load(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.CalledProcessError as error:
        raise OpenLoopError(f"the open loop failed: {error.stderr.strip()[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise OpenLoopError(f"the open loop did not end within {_GRACE_SECONDS:g} s after the last request") from None


class _Timer:
    """Linux's timerfd. The event loop's own timers are of whole milliseconds, in which twenty requests can be due."""

    _ABSOLUTE: Final = 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, when: float) -> None:
        """Makes the descriptor readable at this time of time.monotonic(), and not before."""
        whole = int(when)
        setting = (ctypes.c_long * 4)(0, 0, whole, max(int((when - whole) * 1e9), 1))
        if self._libc.timerfd_settime(self.fd, self._ABSOLUTE, setting, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")


class _Connection(asyncio.Protocol):
    """A connection with at most one request in progress. httptools calls on_message_complete()."""

    def __init__(self, generator: "_Generator") -> None:
        self._generator = generator
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.due: float | None = None  # of the request in progress

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self._generator.release(self)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self._transport
        assert self.due is not None
        self._generator.ended(self.due, is_error=self._parser.get_status_code() >= 400)
        self.due = None
        if self._parser.should_keep_alive():
            self._generator.release(self)
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self.due is not None:
            self._generator.ended(self.due, is_error=True)
        self._generator.lost(self)


class _Generator:
    """Sends requests when they are due, each over the most recently used idle connection.

    Attributes:
        latencies: seconds from the time at which each request was due to its end.
        late: seconds by which the generator was late for each request.
        errors: requests without a response, or with a status of 400 or above.
    """

    def __init__(self, host: str, port: int, requests: Iterator[bytes]) -> None:
        self._address = host, port
        self._requests = requests
        self._timer = _Timer()
        self._idle: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[float] = deque()  # the due times of requests that wait for a connection
        self._times: Iterator[float] = iter(())
        self._due = 0.0
        self._all_sent = asyncio.Event()
        self._all_ended = asyncio.Event()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.errors = 0

    async def run(self, times: Iterator[float]) -> None:
        """Sends a request at each of these times, in seconds from now, and waits for the responses."""
        for _ in range(_OPENED_CONNECTIONS):
            self._connect()
        await asyncio.wait(self._connecting, timeout=_CONNECT_SECONDS)
        loop, start = asyncio.get_running_loop(), time.monotonic()
        self._times = (start + each for each in times)
        self._due = next(self._times, math.inf)
        loop.add_reader(self._timer.fd, self._send_due)
        self._wait_for_due()
        await self._all_sent.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_ended.wait(), _TIMEOUT_SECONDS)
        for due in [*self._waiting, *(each.due for each in self._connections if each.due is not None)]:
            self.ended(due, is_error=True)

    def release(self, connection: _Connection) -> None:
        """The connection is idle."""
        self._connections.add(connection)
        self._idle.append(connection)
        self._send_waiting()

    def lost(self, connection: _Connection) -> None:
        """The connection is closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def ended(self, due: float, *, is_error: bool) -> None:
        """The request that was due at this time has a response, or will get none."""
        self.latencies.append(time.monotonic() - due)
        self.errors += is_error
        if self._all_sent.is_set():
            self._check_end()

    def _check_end(self) -> None:
        if len(self.latencies) == len(self.late):
            self._all_ended.set()

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._due <= now:
            self.late.append(now - self._due)
            self._waiting.append(self._due)
            self._due = next(self._times, math.inf)
        self._send_waiting()
        self._wait_for_due()

    def _wait_for_due(self) -> None:
        if self._due < math.inf:
            self._timer.set(self._due)
        else:
            asyncio.get_running_loop().remove_reader(self._timer.fd)
            self._all_sent.set()
            self._check_end()

    def _send_waiting(self) -> None:
        while self._waiting and self._idle:
            self._idle.pop().send(next(self._requests), self._waiting.popleft())
        while len(self._waiting) > len(self._connecting) < _MAX_CONNECTIONS - len(self._connections):
            self._connect()

    def _connect(self) -> None:
        task = asyncio.create_task(self._open())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Connection(self), *self._address)
        except OSError:
            if self._waiting:
                self.ended(self._waiting.popleft(), is_error=True)


def _requests(workload: str, host: str, largest_id: int) -> Iterator[bytes]:
    """The requests of workload.lua, in a cycle."""
    rng = random.Random()
    lines = {
        "get": lambda: f"GET /get/{rng.randint(1, largest_id)}",
        "add": lambda: f"POST /add?name=Client+{rng.randint(1, 10**9)}&money={rng.randint(-99999, 99999) / 100:.2f}",
    }
    made = [f"{lines[workload]()} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for _ in range(_PREPARED_REQUESTS)]
    return itertools.cycle(made)


def _percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """A percentile of sorted values, in milliseconds."""
    return 1000 * seconds[min(math.ceil(len(seconds) * percent / 100), len(seconds)) - 1] if seconds else 0.0


async def _main(url: str, workload: str, largest_id: int, rate: float, seconds: float) -> Load:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    generator = _Generator(address.hostname, address.port, _requests(workload, address.netloc, largest_id))
    times = scheduled_times(rate, seconds, steady, random.Random())
    started, used = time.monotonic(), time.process_time()
    gc.disable()  # a collection would make it late; there are no cycles to collect
    await generator.run(times)
    share = (time.process_time() - used) / (time.monotonic() - started)
    latencies, late = sorted(generator.latencies), sorted(generator.late)
    return Load(
        len(latencies),
        seconds,
        generator.errors,
        p50_ms=_percentile_ms(latencies, 50),
        p99_ms=_percentile_ms(latencies, 99),
        p999_ms=_percentile_ms(latencies, 99.9),
        late_ms=_percentile_ms(late, 99),
        cpu_share=share,
    )


if __name__ == "__main__":
    _url, _workload, *_numbers = sys.argv[1:]
    print(json.dumps(asdict(uvloop.run(_main(_url, _workload, int(_numbers[0]), *map(float, _numbers[1:]))))))
