"""GET /getall of a list that is much larger than the memory that it may take."""

import asyncio
import gzip
import json
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable

import psutil
import pytest
from aiohttp import ClientSession

from svc import app
from svc.http.lifecycle import Lifecycle
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from tests.conftest import Client, Log, Owner, ServedApp
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS, PATIENT_QUEUE
from tests.service import Service

ROWS = 100_000
INSERT = "INSERT INTO clients (name, money) SELECT repeat($1, 150), n FROM generate_series(1, $2) n"


async def test_slow_readers_delay_no_other_request(serve: Callable[..., Service], owner: Owner) -> None:
    """Fifty callers that request all clients and read nothing hold no connection to the database, and little memory.

    Nor does one of them hold the only slot, or the others would get no first byte.
    """
    await owner.execute(INSERT, "x", ROWS)
    service = serve(**PATIENT_QUEUE, DB_POOL_SIZE="2", MAX_CONCURRENT="1")
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
        async with asyncio.timeout(PATIENCE_SECONDS):
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


async def test_ab_reads_lists_with_keep_alive(serve: Callable[..., Service], owner: Owner) -> None:
    """ApacheBench sends HTTP/1.0 with keep-alive, and has no chunks."""
    if not shutil.which("ab"):
        missing("ab is missing (on Debian: apt install apache2-utils)")
    await owner.execute(INSERT, "x", 1500)
    service = serve()
    command = ["ab", "-k", "-n", "20", "-c", "4", f"{service.url}/getall"]
    report = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )

    assert re.findall(r"(?:Complete|Failed|Non-2xx).*?(\d+)", report.stdout) == ["20", "0"]


async def test_http_1_0_keeps_the_connection_after_the_head_of_a_list(api: Client, owner: Owner) -> None:
    """A response to HEAD has no body, so its end is known."""
    await owner.execute(INSERT, "x", 1500)
    head = b"HEAD /getall HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    responses = await exchange(api, head + head + b"HEAD /getall HTTP/1.0\r\n\r\n")

    assert responses.count(b" 200 OK\r\n") == 3
    assert responses.lower().count(b"connection: keep-alive\r\n") == 2


async def getall(api: Client, *accepted: str, path: str = "/getall", method: str = "GET") -> tuple[str, bytes]:
    """The Content-Encoding of the response, and its body as it was sent."""
    headers = [("Accept-Encoding", value) for value in accepted]
    async with (
        ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session,
        session.request(method, api.make_url(path), headers=headers) as response,
    ):
        assert (response.status, response.headers["Vary"]) == (200, "Accept-Encoding")
        return response.headers.get("Content-Encoding", ""), await response.read()


@pytest.mark.parametrize("path", ["/getall", "/getall?limit=1000"])
async def test_a_list_is_compressed_where_it_is_asked_for(api: Client, owner: Owner, path: str) -> None:
    """Streamed or in a page, it is the same list in fewer bytes."""
    await owner.execute(INSERT, "x", 2500)
    _, plain = await getall(api, path=path)
    encoding, compressed = await getall(api, "gzip, deflate, br", path=path)

    assert encoding == "gzip"
    assert gzip.decompress(compressed) == plain
    assert len(compressed) < len(plain) / 3
    assert await getall(api, "gzip", path=path, method="HEAD") == ("gzip", b"")


@pytest.mark.parametrize(
    "accepted", ["gzip", "GZIP", "br, gzip;q=0.5", "*", "*;q=0.1", "identity;q=0.5, gzip", "x , gzip"]
)
async def test_gzip_is_accepted(api: Client, owner: Owner, accepted: str) -> None:
    """By its name or by a star, and at least as much as no compression."""
    await owner.execute(INSERT, "x", 10)

    assert (await getall(api, accepted))[0] == "gzip"


@pytest.mark.parametrize(
    "accepted",
    [
        *("", "br", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "gzip;q=x", "gzip;q=1;x=y", "xgzip"),
        *("identity, gzip;q=0.9", "br," * 2000 + "gzip"),
    ],
)
async def test_gzip_is_not_sent_unasked(api: Client, owner: Owner, accepted: str) -> None:
    """Where it is not named, is refused, or is less welcome than no compression."""
    await owner.execute(INSERT, "x", 10)

    assert (await getall(api, accepted))[0] == ""


async def test_the_headers_of_one_name_are_read_together(api: Client, owner: Owner) -> None:
    """A header may be in several lines."""
    await owner.execute(INSERT, "x", 10)

    assert (await getall(api, "br", "gzip"))[0] == "gzip"
    assert (await getall(api, "*", "gzip;q=0"))[0] == ""


async def test_only_long_lists_are_compressed(api: Client) -> None:
    """What fits into one packet gains nothing, and other paths do not compress at all."""
    for path in ("/getall", "/getall?limit=2"):
        assert (await getall(api, "gzip", path=path))[0] == ""
    for path in ("/get/1", "/openapi.json", "/docs", "/nowhere"):
        async with api.get(path, headers={"Accept-Encoding": "gzip"}) as response:
            assert "Content-Encoding" not in response.headers


async def test_a_response_may_vary_with_the_origin_too(
    database_settings: DatabaseSettings, lifecycle: Lifecycle, log: Log
) -> None:
    """With CORS, its headers depend on both, so a cache has to keep their responses apart."""
    settings = Settings(cors_origins=("https://app.example",), database=database_settings)
    async with (
        app.build(settings, lifecycle, log.writer) as server,
        ServedApp(server) as served,
        ClientSession() as session,
        session.get(served.make_url("/getall"), headers={"Host": "localhost"}) as response,
    ):
        assert response.headers.getall("Vary") == ["Origin, Accept-Encoding"]


async def test_a_compressed_list_can_be_read_while_it_is_sent(api: Client, owner: Owner) -> None:
    """Each page is decompressed before the next one has been queried, so the first clients are early."""
    await owner.execute(INSERT, "x", ROWS)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=4096)
    writer.write(b"GET /getall HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    decompressor = zlib.decompressobj(wbits=31)
    start = b""
    while start.count(b"}") < 900:
        start += decompressor.decompress(await reader.read(1000))
    read_early = len(start)
    while chunk := await reader.read(65536):
        start += decompressor.decompress(chunk)
    writer.close()

    assert decompressor.eof
    assert json.loads(start)[-1]["id"] == ROWS + 4
    assert read_early < len(start) / 20
