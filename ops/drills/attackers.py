"""Thousands of hostile connections to this machine: for `python -m ops.drills.attackers PORT COUNT SECONDS`.

Each kind does one thing that must cost others nothing. Whoever is cut comes again 5 s later.
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

RAMP_SECONDS: Final = 5.0  # until all are there
_AGAIN_SECONDS: Final = 5.0
_DRIP_SECONDS: Final = 1.0  # from byte to byte

Attack: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def idle(_: asyncio.StreamWriter) -> None:
    """Connects and says nothing."""


async def kept(writer: asyncio.StreamWriter) -> None:
    """Asks once, and keeps the connection."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


async def slow_head(writer: asyncio.StreamWriter) -> None:
    """A byte of a head each second (slowloris)."""
    await _drip(writer, b"GET /get/1 HTTP/1.1\r\nHost: x\r\n" + b"X-Slow: y\r\n" * 1000)


async def slow_body(writer: asyncio.StreamWriter) -> None:
    """Half a body, and a byte more each second."""
    writer.write(b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    await _drip(writer, b'{"name": "' + b"x" * 900)


async def deaf(writer: asyncio.StreamWriter) -> None:
    """Asks for the same list again and again, and reads no answer."""
    writer.write(b"GET /getall HTTP/1.1\r\nHost: x\r\n\r\n" * 200)


async def large_head(writer: asyncio.StreamWriter) -> None:
    """A header that no one needs."""
    writer.write(b"GET /get/1 HTTP/1.1\r\nHost: x\r\nX-Large: %b\r\n\r\n" % (b"x" * 100_000))


async def large_body(writer: asyncio.StreamWriter) -> None:
    """A body that no one needs."""
    writer.write(b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000)


async def no_http(writer: asyncio.StreamWriter) -> None:
    """Bytes at random."""
    writer.write(random.randbytes(1000))


# Of each hundred.
_SHARES: Final[dict[Attack, int]] = {
    idle: 40,
    kept: 20,
    slow_head: 20,
    slow_body: 10,
    deaf: 4,
    large_head: 2,
    large_body: 2,
    no_http: 2,
}


async def attack(port: int, count: int, seconds: float) -> None:
    """Attacks the service on loopback, prints how often each kind of attacker was cut, and only then lets go of it."""
    end = time.monotonic() + seconds
    cut: Counter[str] = Counter()
    kinds = itertools.cycle([kind for kind, share in _SHARES.items() for _ in range(share)])

    async def come_again_and_again(kind: Attack) -> None:
        await asyncio.sleep(random.uniform(0, RAMP_SECONDS))
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                async with _connected(port) as (reader, writer):
                    await _until_cut(kind, reader, writer)
            cut[kind.__name__] += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    attackers = [asyncio.create_task(come_again_and_again(kind)) for kind in itertools.islice(kinds, count)]
    await asyncio.wait(attackers, timeout=seconds)
    print(json.dumps(cut), flush=True)
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


async def _until_cut(kind: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await kind(writer)
    if kind is deaf:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is there for both directions
        await writer.wait_closed()
    while await reader.read(4096):
        pass


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


def main() -> None:
    """Attacks."""
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attack(port, count, seconds))


if __name__ == "__main__":
    main()
