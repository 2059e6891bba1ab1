"""The proxy causes each network fault, and recovers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ops.drills.proxy import FaultProxy
from tests.listening import Serve, listening
from tests.patience import PATIENCE_SECONDS

SILENCE_SECONDS = 0.1  # during which nothing may arrive


@asynccontextmanager
async def proxied(serve: Serve) -> AsyncIterator[tuple[FaultProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Opens a connection to such a server through a proxy."""
    async with listening(serve) as port, FaultProxy(port).running() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        yield proxy, reader, writer
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what it receives, until either end is closed."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def read(reader: asyncio.StreamReader, count: int) -> bytes:
    """Reads so many bytes."""
    return await asyncio.wait_for(reader.readexactly(count), PATIENCE_SECONDS)


async def assert_silent(reader: asyncio.StreamReader) -> None:
    """Nothing arrives."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SILENCE_SECONDS)


async def assert_serves_new_connections(proxy: FaultProxy) -> None:
    """A new connection is forwarded in both directions."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"new")
    assert await read(reader, 3) == b"new"
    writer.close()


async def test_the_proxy_resets_connections() -> None:
    """The caller sees ECONNRESET, and a new connection works."""
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await read(reader, 1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)

        await assert_serves_new_connections(proxy)


async def test_a_black_hole_forwards_nothing_and_loses_nothing() -> None:
    """After it heals, all bytes arrive in order, and connections made meanwhile work."""
    sent = bytes(range(256)) * 1024
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await read(reader, 1) == b"a"
        proxy.black_hole()
        writer.write(sent)
        new_reader, new_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        new_writer.write(b"new")
        await assert_silent(reader)
        await assert_silent(new_reader)
        proxy.heal()
        assert await read(reader, len(sent)) == sent
        assert await read(new_reader, 3) == b"new"
        new_writer.close()


@pytest.mark.parametrize("resets", [True, False])
async def test_a_replaced_host_does_not_know_old_connections(*, resets: bool) -> None:
    """Data on an old connection is answered by a reset or not at all. A new connection works."""
    async with proxied(echo) as (proxy, reader, writer):
        writer.write(b"a")
        assert await read(reader, 1) == b"a"
        proxy.forget(resets=resets)
        await assert_silent(reader)
        writer.write(b"b")
        if resets:
            with pytest.raises(ConnectionResetError):
                await read(reader, 1)
        else:
            await assert_silent(reader)

        await assert_serves_new_connections(proxy)


@pytest.mark.parametrize(("fault", "value"), [("bytes_per_second", 2500.0), ("latency_seconds", 0.1)])
async def test_the_proxy_slows_a_connection_down(fault: str, value: float) -> None:
    """A round trip of 1,000 bytes takes at least 0.2 s at 2,500 bytes per second, or with a latency of 0.1 s."""
    async with proxied(echo) as (proxy, reader, writer):
        setattr(proxy, fault, value)
        started = time.monotonic()
        writer.write(b"x" * 1000)
        await read(reader, 1000)

        assert time.monotonic() - started >= 0.2


async def test_the_proxy_half_closes() -> None:
    """The caller reads the end of the stream. What it sends still arrives, and what is sent to it does not."""
    received = b""
    complete = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while data := await reader.read(100):
            received += data
            writer.write(b"response")
            if received == b"first second third":
                complete.set()

    async with proxied(respond) as (proxy, reader, writer):
        writer.write(b"first")
        assert await read(reader, 8) == b"response"
        proxy.half_close()
        assert await asyncio.wait_for(reader.read(), PATIENCE_SECONDS) == b""
        writer.write(b" second")
        writer.write(b" third")
        await asyncio.wait_for(complete.wait(), PATIENCE_SECONDS)
        assert await reader.read() == b""
