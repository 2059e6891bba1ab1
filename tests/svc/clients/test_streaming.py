"""GET /getall of a list that is much larger than the memory that it may take."""

import asyncio
import socket
from collections.abc import Callable

import psutil
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
            reader.sendall(b"GET /getall HTTP/1.1\r\nHost: x\r\n\r\n")
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
