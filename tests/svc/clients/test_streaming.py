"""GET /getall of a list that is much larger than the memory that it may take."""

import asyncio
import json
import socket
from collections.abc import Callable

import psutil
import pytest
from aiohttp import ClientSession

from ops.common.process import Service
from tests.conftest import Client, Owner

ROWS = 100_000
INSERT = "INSERT INTO clients (name, money) SELECT repeat($1, 150), n FROM generate_series(1, $2) n"


async def test_slow_readers_delay_no_other_request(serve: Callable[..., Service], owner: Owner) -> None:
    """Fifty callers that request all clients and read nothing hold no connection to the database, and little memory."""
    await owner.execute(INSERT, "x", ROWS)
    service = serve(DB_POOL_SIZE="2")
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    readers = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    try:
        for reader in readers:
            reader.sendall(b"GET /getall HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for reader in readers:
            await asyncio.to_thread(reader.recv, 1)
        await wait_until_idle(process)
        async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
            assert response.status == 200
        growth = process.memory_info().rss - before
    finally:
        for reader in readers:
            reader.close()

    assert growth < 50_000_000


async def wait_until_idle(process: psutil.Process) -> None:
    """Waits until the process uses no more CPU time, since it waits for its readers."""
    used = -1.0
    while (now := sum(process.cpu_times())) != used:
        used = now
        await asyncio.sleep(0.1)


async def test_a_long_list_takes_little_memory(serve: Callable[..., Service], owner: Owner) -> None:
    """The response has all clients, and the process grows by less than half of the response's size."""
    await owner.execute(INSERT, "😀", ROWS)
    service = serve()
    process = psutil.Process(service.process.pid)
    size = objects = 0
    async with ClientSession() as session:
        async with session.get(f"{service.url}/getall?limit=1000") as response:
            await response.read()
        before = peak = process.memory_info().rss
        async with session.get(f"{service.url}/getall") as response:
            async for chunk in response.content.iter_chunked(2**16):
                size += len(chunk)
                objects += chunk.count(b"}")
                peak = max(peak, process.memory_info().rss)

    assert objects == ROWS + 4
    assert size > 60_000_000
    assert peak - before < size / 2


async def test_a_list_is_read_while_it_is_sent(api: Client, owner: Owner) -> None:
    """Clients that are removed before the stream reaches their page are not in the response."""
    await owner.execute(INSERT, "😀", ROWS)
    response = await api.get("/getall")
    objects = (await response.content.readany()).count(b"}")
    await owner.execute("DELETE FROM clients WHERE id > $1", ROWS // 2)
    objects += (await response.read()).count(b"}")

    assert objects == ROWS // 2


async def exchange(api: Client, raw: bytes) -> bytes:
    """Sends bytes, and returns what arrives until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(raw)
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("header", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_learns_the_end_of_a_list_from_the_end_of_the_connection(
    api: Client, owner: Owner, header: bytes
) -> None:
    """Without chunks, nothing else marks the end, so the connection closes even where the caller would keep it."""
    await owner.execute(INSERT, "x", 1500)
    head, _, body = (await exchange(api, b"GET /getall HTTP/1.0\r\n" + header + b"\r\n")).partition(b"\r\n\r\n")

    assert len(json.loads(body)) == 1504
    assert b"transfer-encoding" not in head.lower()
    assert b"keep-alive" not in head.lower()


async def test_http_1_0_keeps_the_connection_after_the_head_of_a_list(api: Client, owner: Owner) -> None:
    """A response to HEAD has no body, so its end is known."""
    await owner.execute(INSERT, "x", 1500)
    head = b"HEAD /getall HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    responses = await exchange(api, head + head + b"HEAD /getall HTTP/1.0\r\n\r\n")

    assert responses.count(b" 200 OK\r\n") == 3
    assert responses.lower().count(b"connection: keep-alive\r\n") == 2
