"""Thousands of hostile connections to this machine: `python -m ops.drills.attackers PORT COUNT SECONDS`.

Each kind does one thing that must not affect other callers. An attacker whose connection was closed connects again 5 s
later.
"""

import asyncio
import contextlib
import itertools
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import uvloop

RAMP_SECONDS: Final = 5.0  # until all have connected
_RECONNECT_SECONDS: Final = 5.0
_DRIP_SECONDS: Final = 1.0  # between two bytes

Attack: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def idle(_: asyncio.StreamWriter) -> None:
    """Connects and sends nothing."""


async def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Sends one request and keeps the connection open."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def slow_head(writer: asyncio.StreamWriter) -> None:
    """Sends one byte of a request head per second (slowloris)."""
    await _drip(writer, b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: y\r\n" * 1000)


async def slow_body(writer: asyncio.StreamWriter) -> None:
    """Sends the start of a body, one byte per second."""
    writer.write(
        b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    await _drip(writer, b'{"name": "' + b"x" * 900)


async def never_reads(writer: asyncio.StreamWriter) -> None:
    """Requests the same list many times and reads no response."""
    writer.write(b"GET /getall HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)


async def large_head(writer: asyncio.StreamWriter) -> None:
    """Sends a header of 100 kB."""
    writer.write(b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\nX-Large: %b\r\n\r\n" % (b"x" * 100_000))


async def large_body(writer: asyncio.StreamWriter) -> None:
    """Announces a body of 10 MB and sends 200 kB of it."""
    writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000)


async def not_http(writer: asyncio.StreamWriter) -> None:
    """Sends random bytes."""
    writer.write(random.randbytes(1000))


# Percent of the attackers.
_SHARES: Final[dict[Attack, int]] = {
    idle: 40,
    keep_alive: 20,
    slow_head: 20,
    slow_body: 10,
    never_reads: 4,
    large_head: 2,
    large_body: 2,
    not_http: 2,
}


async def attack(port: int, count: int, seconds: float) -> None:
    """Attacks a server on loopback, prints how many connections of each kind it closed, and then disconnects."""
    end = time.monotonic() + seconds
    closed: Counter[str] = Counter()
    kinds = itertools.cycle([kind for kind, share in _SHARES.items() for _ in range(share)])

    async def reconnect(kind: Attack) -> None:
        await asyncio.sleep(random.uniform(0, RAMP_SECONDS))
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                async with _connected(port) as (reader, writer):
                    await _until_closed(kind, reader, writer)
            closed[kind.__name__] += 1
            await asyncio.sleep(_RECONNECT_SECONDS)

    attackers = [asyncio.create_task(reconnect(kind)) for kind in itertools.islice(kinds, count)]
    await asyncio.wait(attackers, timeout=seconds)
    print(json.dumps(closed), flush=True)
    for attacker in attackers:
        attacker.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _until_closed(kind: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await kind(writer)
    if kind is never_reads:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # the transport handles both directions
        await writer.wait_closed()
    while await reader.read(4096):
        pass


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


def main() -> None:
    """Runs the attack with as many open files as the system allows."""
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attack(port, count, seconds))


if __name__ == "__main__":
    main()
