"""GET /getall of very many clients."""

import asyncio
import socket
import time
from collections.abc import Callable

import psutil
from aiohttp import ClientSession

from ops.common.process import Service
from tests.conftest import Owner

ROWS = 1_000_000


async def test_slow_readers_hold_up_nobody(serve: Callable[..., Service], owner: Owner) -> None:
    """Fifty callers who ask for all and read nothing cost no connection to the database, and little memory."""
    insert = "INSERT INTO clients (name, money) SELECT repeat('x', 150), n FROM generate_series(1, 100000) n"
    await owner.execute(insert)
    service = serve(DB_POOL_SIZE="2")
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    readers = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    try:
        for reader in readers:
            reader.sendall(b"GET /getall HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1)
        async with ClientSession() as session:
            for _ in range(20):
                async with session.get(f"{service.url}/get/1") as answer:
                    assert answer.status == 200
        grew = process.memory_info().rss - before
    finally:
        for reader in readers:
            reader.close()

    assert grew < 50_000_000


async def test_a_million_clients_leave_memory_flat(serve: Callable[..., Service], owner: Owner) -> None:
    """All rows in order, the first byte within 100 ms, and the process grows by less than 50 MB."""
    insert = "INSERT INTO clients (name, money) SELECT 'client ' || n, n FROM generate_series(1, $1) n"
    await owner.execute(insert, ROWS)
    await owner.execute("VACUUM ANALYZE clients")
    service = serve()
    process = psutil.Process(service.process.pid)
    async with ClientSession() as session:
        async with session.get(f"{service.url}/getall?limit=1000") as answer:
            await answer.read()
        before = most = process.memory_info().rss
        started = time.monotonic()
        async with session.get(f"{service.url}/getall") as answer:
            objects = (await answer.content.readany()).count(b'{"id":')
            first_byte = time.monotonic() - started
            async for chunk, _ in answer.content.iter_chunks():
                objects += chunk.count(b'{"id":')
                most = max(most, process.memory_info().rss)
        took = time.monotonic() - started
    print(f"first byte {first_byte * 1000:.1f} ms, all {took:.1f} s, grew {(most - before) / 1e6:.1f} MB")

    assert abs(objects - (ROWS + 4)) < 2000  # a chunk's border may cut an object's first bytes
    assert first_byte < 0.1
    assert most - before < 50_000_000
