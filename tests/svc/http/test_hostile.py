"""Hostile and broken callers use little memory for a short time, and do not disturb other callers."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import psutil
import pytest

from svc import app
from svc.http.connection import MAX_HEAD_BYTES, MAX_LINE_BYTES
from svc.http.connections import Connections
from svc.http.lifecycle import Lifecycle
from svc.http.messages import MAX_BODY_BYTES
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings
from tests.conftest import Client, Log, Owner, ServedApp
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines

Start = Callable[..., Service]
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def connect(port: int | None) -> AsyncIterator[Caller]:
    """A connection to the service."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def reset_at_end(caller: Caller) -> None:
    """Lets the connection end with a reset, by which the service sees at once that nobody reads any more."""
    no_linger = struct.pack("ii", 1, 0)
    caller[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)


async def read_to_end(caller: Caller) -> bytes:
    """The bytes that arrive until the service closes the connection."""
    received = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while chunk := await caller[0].read(65536):
                received += chunk
        except ConnectionError:
            pass
    return received


async def get(caller: Caller) -> bytes:
    """Sends a request and returns the head of its response. The connection stays open."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        caller[1].write(GET)
        head = await caller[0].readuntil(b"\r\n\r\n")
        await caller[0].readuntil(b"}\n")
    return head


async def send_slowly(caller: Caller, data: bytes) -> None:
    """Sends one byte at a time until the connection is closed."""
    for byte in data:
        if caller[1].is_closing():
            return
        caller[1].write(bytes([byte]))
        await asyncio.sleep(0.02)


async def let_service_read() -> None:
    """Runs the event loop until the service in this process has read what was sent to it."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - another process, or its log, sets no event
            await asyncio.sleep(0.01)


async def logged(log: Log, count: int) -> list[lines.Record]:
    """The log lines of requests, as soon as there are `count` of them."""
    found: list[lines.Record] = []

    def is_logged() -> bool:
        found.extend(line for line in log.read() if line.get(names.EVENT) == names.REQUEST)
        return len(found) >= count

    await until(is_logged)
    return found


def statuses(responses: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", responses)]


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overdue connections are closed sooner than in production, so the tests take less time."""
    monkeypatch.setattr("svc.http.connections.CHECK_SECONDS", 0.02)


# Heads.


def limit_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the time limit of heads, but lets each byte of send_slowly() arrive in time."""
    monkeypatch.setattr("svc.http.connections.HEAD_SECONDS", 0.2)


async def test_a_connection_without_a_request_is_closed(api: Client, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no response and is not logged."""
    with monkeypatch.context() as patched:
        limit_heads(patched)
        async with connect(api.port) as caller:
            assert await read_to_end(caller) == b""
    await api.get("/nowhere")

    assert [line["status"] for line in await logged(log, 1)] == [404]


@pytest.mark.parametrize("earlier", [0, 1], ids=["first request", "later request"])
async def test_a_head_that_arrives_slowly_is_refused(
    api: Client, log: Log, earlier: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit is for the whole head, however steadily its bytes arrive."""
    async with connect(api.port) as caller:
        for _ in range(earlier):
            await get(caller)
        caller[1].write(GET[:1])
        await let_service_read()
        limit_heads(monkeypatch)
        sending = asyncio.create_task(send_slowly(caller, GET[1:-2] + b"X: " + b"y" * 5000))
        response = await read_to_end(caller)
        sending.cancel()
    last = (await logged(log, earlier + 1))[-1]

    assert statuses(response) == [408]
    assert json.loads(response.partition(b"\r\n\r\n")[2])["title"] == "Head too slow"
    assert b"Connection: close" in response
    assert (last["route"], last["status"], last["error"]) == ("not_http", 408, "HeadTooSlow")


async def test_a_pipelined_head_has_the_same_time_limit(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part of the head arrives together with a complete request, and the rest arrives slowly."""
    async with connect(api.port) as caller:
        caller[1].write(GET + GET[:5])
        first = await caller[0].readuntil(b"}\n")
        limit_heads(monkeypatch)
        sending = asyncio.create_task(send_slowly(caller, b"x" * 5000))
        second = await read_to_end(caller)
        sending.cancel()

    assert statuses(first + second) == [200, 408]


async def test_an_idle_connection_has_a_longer_time_limit(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between requests, a connection may wait for longer than a head may take, but not for ever."""
    async with connect(api.port) as idle:
        assert b" 200 OK" in await get(idle)
        with monkeypatch.context() as patched:
            limit_heads(patched)
            async with connect(api.port) as newer:
                assert await read_to_end(newer) == b""
        assert b" 200 OK" in await get(idle)


async def test_an_idle_connection_is_closed_in_the_end(
    database_settings: DatabaseSettings, lifecycle: Lifecycle, log: Log
) -> None:
    """KEEPALIVE_SECONDS bounds its time. It gets no response: a caller might take it for that to its next request."""
    settings = Settings(ServerSettings(host="0.0.0.0"), keepalive_seconds=0.1, database=database_settings)
    async with (
        app.build(settings, lifecycle, log.writer) as server,
        ServedApp(server) as served,
        connect(served.port) as idle,
    ):
        assert b" 200 OK" in await get(idle)
        assert await read_to_end(idle) == b""


JSON = b'{"name": "Sofia", "money": 5}'


@pytest.mark.parametrize(
    "parts",
    [
        (b"Content-Length: 29\r\n\r\n", JSON),
        (b"Content-Length: 29\r\n\r\n" + JSON[:9], JSON[9:20], JSON[20:]),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1d\r\n" + JSON + b"\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1d\r\n" + JSON + b"\r\n0\r\n", b"\r\n"),
    ],
)
async def test_a_body_is_not_taken_for_a_head(
    api: Client, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is idle after a body that arrived in segments of its own, as many callers send it."""
    async with connect(api.port) as idle:
        idle[1].write(POST)
        for part in parts:
            idle[1].write(part)
            await let_service_read()
        assert statuses(await idle[0].readuntil(b"\r\n\r\n")) == [201]
        await idle[0].readuntil(b"}\n")
        with monkeypatch.context() as patched:
            limit_heads(patched)
            async with connect(api.port) as newer:
                assert await read_to_end(newer) == b""
        assert b" 200 OK" in await get(idle)


async def test_a_head_behind_a_body_has_the_same_time_limit(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a body and the start of the next head arrive together."""
    async with connect(api.port) as caller:
        caller[1].write(POST + b"Content-Length: 29\r\n\r\n")
        await let_service_read()
        caller[1].write(JSON + GET[:5])
        first = await caller[0].readuntil(b"\r\n\r\n")
        limit_heads(monkeypatch)
        second = await read_to_end(caller)

    assert statuses(first + second) == [201, 408]


HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 4000) for number in range(8))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 65 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + HEADERS + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + HEADERS,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + HEADERS + b"Content-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX\0: y\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: y\nZ: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}   ",
        POST + b"Content-Length: 4, 5\r\n\r\n{}   ",
        POST + b"Content-Length: +4\r\n\r\n{}  ",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        GET.replace(b"Host: localhost", b"X: y"),
        GET.replace(b"Host: localhost", b"Host: x y"),
        GET.replace(b"Host: localhost", b"Host: x, y"),
        GET.replace(b"Host: localhost", b"Host: x/y"),
        GET.replace(b"Host: localhost", b"Host: user@x"),
        GET.replace(b"Host: localhost", b"Host: x:80:80"),
        GET.replace(b"Host: localhost", b"Host: x:port"),
        GET.replace(b"Host: localhost", b"Host: [::1"),
        GET.replace(b"Host: localhost", b"Host: \xc3\xa9"),
        GET.replace(b"Host: localhost", b"Host: x\r\nHost: x"),
        GET.replace(b"1.1", b"1.0").replace(b"Host: localhost", b"Host: x y\r\nConnection: keep-alive"),
        *(GET.replace(b"1.1", version) for version in (b"0.9", b"1.2", b"2.0", b"3.0", b"1.10")),
    ],
)
async def test_an_ambiguous_or_too_large_head_is_refused(api: Client, raw: bytes) -> None:
    """There is one response, and no later bytes are read as a request, even if another server would read them so."""
    async with connect(api.port) as caller:
        caller[1].write(raw + GET)
        responses = await read_to_end(caller)

    assert statuses(responses) == [400]
    assert b"Connection: close" in responses


@pytest.mark.parametrize(
    "host", [b"", b"x", b"x:80", b"x:", b"127.0.0.1:8080", b"[::1]", b"[::1]:80", b"a_b-c.d~", b"x%20y", b"XN--P1AI."]
)
async def test_a_valid_host_is_accepted(api: Client, host: bytes) -> None:
    """It is a name or an address, with or without a port; another one may follow on the same connection."""
    async with connect(api.port) as caller:
        for name in (host, b"another", host):
            caller[1].write(GET.replace(b"Host: localhost", b"Host: " + name))
            assert b" 200 OK" in await caller[0].readuntil(b"\r\n\r\n")
            await caller[0].readuntil(b"}\n")


async def test_the_size_of_a_head_is_limited_however_it_is_split(api: Client) -> None:
    """A head may arrive behind others, in pieces, or in one piece with the end of another."""
    small, large = GET[:-2] + b"X: " + b"y" * 4000 + b"\r\n\r\n", GET[:-2] + HEADERS + b"\r\n"
    everything = small * 5 + large + GET
    for size in (len(everything), MAX_HEAD_BYTES, 7000):
        async with connect(api.port) as caller:
            reading = asyncio.create_task(read_to_end(caller))
            for start in range(0, len(everything), size):
                caller[1].write(everything[start : start + size])
                await let_service_read()
            responses = await reading

        assert statuses(responses) == [200] * 5 + [400]


def upgrade(raw: bytes, protocol: bytes) -> bytes:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head + b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\n\r\n" + body


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("raw", [GET, POST + b"Content-Length: 29\r\n\r\n" + JSON], ids=["no body", "body"])
async def test_an_upgrade_is_ignored(api: Client, protocol: bytes, raw: bytes) -> None:
    """What follows in the same segment is the next request, whose head is as limited as any."""
    asking, last = upgrade(raw, protocol), GET[:-2] + b"Connection: close\r\n\r\n"
    status = 200 if raw == GET else 201
    large = GET[:-2] + HEADERS + b"\r\n"
    for behind, expected in ((last, [200]), (asking * 3 + last, [status] * 3 + [200]), (large + GET, [400])):
        async with connect(api.port) as caller:
            caller[1].write(asking + behind)
            assert statuses(await read_to_end(caller)) == [status, *expected]


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize("raw", [GET, POST + b"Content-Length: 29\r\n\r\n" + JSON], ids=["no body", "body"])
async def test_an_upgrade_keeps_the_connection(api: Client, protocol: bytes, raw: bytes) -> None:
    """Java's client asks for HTTP/2 with each request, and sends the body by itself."""
    async with connect(api.port) as caller:
        for _ in range(3):
            head, end, body = upgrade(raw, protocol).partition(b"\r\n\r\n")
            caller[1].write(head + end)
            await let_service_read()
            caller[1].write(body)
            assert b"Connection: close" not in await caller[0].readuntil(b"\r\n\r\n")
            await caller[0].readuntil(b"}\n")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_upgrade_behind_other_requests_loses_nothing_silently(api: Client, protocol: bytes) -> None:
    """Either everything is answered, or the connection closes and the caller may send the rest again."""
    async with connect(api.port) as caller:
        caller[1].write(GET + upgrade(GET, protocol) + GET[:-2] + b"Connection: close\r\n\r\n")
        responses = await read_to_end(caller)

    assert statuses(responses) == [200] * (3 if protocol == b"websocket" else 2)
    assert responses.count(b"Connection: close") == 1


# Bodies.


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.http.connection.LINGER_SECONDS", 0.1)


@pytest.fixture
def short_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.http.fields.BODY_SECONDS", 0.1)


BODIES = {
    "nothing": (b"Content-Length: 40\r\n\r\n", b""),
    "half": (b"Content-Length: 40\r\n\r\n{", b""),
    "slow bytes": (b"Content-Length: 5000\r\n\r\n", b" " * 5000),
    "slow tiny chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 1000),
    "a chunk without its data": (b"Transfer-Encoding: chunked\r\n\r\nfff\r\n", b""),
}


@pytest.mark.usefixtures("short_bodies", "short_linger")
@pytest.mark.parametrize(("head", "slow"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("path", "status"), [(b"/add", 408), (b"/nowhere", 404), (b"/get/1", 405)])
async def test_an_incomplete_body_has_a_time_limit(
    api: Client, head: bytes, slow: bytes, path: bytes, status: int
) -> None:
    """Whether or not a handler reads the body, there is a response, and the connection is closed."""
    async with connect(api.port) as caller:
        caller[1].write(POST.replace(b"/add", path) + head)
        sending = asyncio.create_task(send_slowly(caller, slow))
        response = await read_to_end(caller)
        sending.cancel()

    assert statuses(response) == [status]


@pytest.mark.usefixtures("short_linger")
@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (b"Content-Length: 1000000000\r\n\r\n", b" " * 65536),
        (b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10000),
    ],
)
async def test_a_body_that_is_too_large_is_not_read_to_its_end(api: Client, head: bytes, chunk: bytes) -> None:
    """The caller may send for a moment longer, so that it sees the response, and then the connection is closed."""

    async def send_on(caller: Caller) -> None:
        while True:
            caller[1].write(chunk)
            await caller[1].drain()
            await asyncio.sleep(0)

    async with connect(api.port) as caller:
        caller[1].write(POST + head)
        sending = asyncio.create_task(send_on(caller))
        response = await read_to_end(caller)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    assert statuses(response) == [413]
    assert str(MAX_BODY_BYTES).encode() in response


# Responses.


@contextmanager
def small_socket(port: int | None) -> Iterator[socket.socket]:
    """A connection whose receive buffer is small, so that an unread response soon fills the service's buffers."""
    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(("127.0.0.1", port))
        small.setblocking(False)
        yield small


@pytest.fixture
async def long_list(owner: Owner) -> None:
    """Clients whose list is larger than all buffers together."""
    if await owner.fetchval("SELECT count(*) FROM clients") < 5000:
        add = "INSERT INTO clients (name, money) SELECT repeat('x', 150), n FROM generate_series(1, 5000) n"
        await owner.execute(add)


GETALL = b"GET /getall HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.usefixtures("long_list")
@pytest.mark.parametrize("bytes_at_once", [0, 100], ids=["not read", "read very slowly"])
async def test_a_response_that_is_not_read_is_aborted(
    api: Client, log: Log, monkeypatch: pytest.MonkeyPatch, bytes_at_once: int
) -> None:
    """It is logged as a request whose caller has disconnected."""
    monkeypatch.setattr("svc.http.connections.WRITE_SECONDS", 0.3)
    loop = asyncio.get_running_loop()

    async def read_slowly(caller: socket.socket) -> None:
        while bytes_at_once:
            await loop.sock_recv(caller, bytes_at_once)
            await asyncio.sleep(0.02)

    with small_socket(api.port) as caller:
        caller.send(GETALL)
        reading = asyncio.create_task(read_slowly(caller))
        (line,) = await logged(log, 1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    assert (line["route"], line["status"]) == ("/getall", 499)


@pytest.mark.usefixtures("long_list")
async def test_a_response_that_is_read_slowly_is_completed(
    api: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit starts again with each part, so a list may take as long as it takes."""
    assert isinstance(api.server, ServedApp)
    loop, received = asyncio.get_running_loop(), 0
    started = now = loop.time()
    # The clock of the connections goes by what has been read: the time limit allows for four parts.
    monkeypatch.setattr(api.server.served._open_connections, "_time", lambda: now)
    with small_socket(api.port) as caller:
        caller.send(GETALL)
        while chunk := await loop.sock_recv(caller, 2048):
            received += len(chunk)
            now += PATIENCE_SECONDS * len(chunk) / 200_000
            await asyncio.sleep(0.001)  # the connections are checked meanwhile
    (line,) = await logged(log, 1)

    assert (line["status"], received > 800_000) == (200, True)
    assert now - started > 4 * PATIENCE_SECONDS


@pytest.mark.parametrize("path", [b"/get/1", b"/openapi.json"])
async def test_a_caller_who_reads_no_response_is_disconnected(
    api: Client, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """The service buffers few responses for a caller who sends many requests and reads nothing."""
    monkeypatch.setattr("svc.http.connections.WRITE_SECONDS", 0.3)
    requests = GET.replace(b"/get/1", path) * 100

    async def send_on(caller: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(caller, requests)

    with small_socket(api.port) as caller, pytest.raises(ConnectionError):
        await asyncio.wait_for(send_on(caller), PATIENCE_SECONDS)


@pytest.mark.usefixtures("long_list")
async def test_of_too_many_unread_responses_the_oldest_is_aborted(
    api: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number has its own limit, since each takes much more memory than an idle connection."""
    monkeypatch.setattr("svc.http.connections.MAX_WRITE_PAUSED", 3)
    with ExitStack() as stack:
        for number in range(5):
            caller = stack.enter_context(small_socket(api.port))
            caller.send(b"GET /getall HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n\r\n" % number)
            await asyncio.get_running_loop().sock_recv(caller, 1)
        found = await logged(log, 2)

    assert [(line["request_id"], line["status"]) for line in found] == [("0", 499), ("1", 499)]


# Pipelining.


async def test_pipelined_requests_do_not_starve_other_callers(serve: Start) -> None:
    """They are answered in order and in little memory, and other callers are served in between."""
    service = serve(LOG_FORMAT="json", LOG_LINES_PER_SECOND="0", DRAIN_SECONDS="0")
    process = psutil.Process(service.process.pid)
    count, others = 1_000, 20
    numbered = b"GET /get/%d HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %d\r\n\r\n"

    async def read(reader: asyncio.StreamReader, responses: int) -> list[int]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            heads = [await reader.readuntil(b"}\n") for _ in range(responses)]
        return [int(head.partition(b"X-Request-Id: ")[2].partition(b"\r")[0]) for head in heads]

    async with connect(service.port) as pipelining, connect(service.port) as other:
        await get(pipelining)
        await get(other)
        before = process.memory_info().rss
        # All are there before the first is read, so that a busy machine delays none of them.
        process.suspend()
        pipelining[1].write(b"".join(numbered % (number % 4 + 1, number) for number in range(count)))
        other[1].write(b"".join(numbered % (1, number) for number in range(count, count + others)))
        await let_service_read()
        process.resume()
        answered, of_other = await asyncio.gather(read(pipelining[0], count), read(other[0], others))
        growth = process.memory_info().rss - before
    service.stop()
    order = [int(line[names.REQUEST_ID]) for line in lines.requests(service.output) if names.REQUEST_ID in line]

    assert answered == list(range(count))
    assert of_other == list(range(count, count + others))
    assert order.index(count + others - 1) < count // 2
    assert growth < 10_000_000


# Connections.


@pytest.fixture
async def small_port(database_settings: DatabaseSettings, lifecycle: Lifecycle, log: Log) -> AsyncIterator[int]:
    """The port of a service in this process that allows 3 connections."""
    settings = Settings(ServerSettings(host="0.0.0.0"), max_connections=3, database=database_settings)
    async with app.build(settings, lifecycle, log.writer) as server, ServedApp(server) as served:
        assert served.port is not None
        yield served.port


async def test_a_new_connection_replaces_the_one_that_waited_longest(serve: Start) -> None:
    """Connections that never sent a request are replaced first, the oldest of them first."""
    service = serve(MAX_CONNECTIONS="10", METRICS_INTERVAL="1", LOG_FORMAT="json", DRAIN_SECONDS="0")

    def most_connections() -> float:
        samples = [each[names.CONNECTIONS] for each in lines.documents(service.output) if names.CONNECTIONS in each]
        return max((each["Max"] for each in samples), default=0)

    async with connect(service.port) as good:
        await get(good)
        hostile = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(30)]
        await until(lambda: sum(reader.at_eof() for reader, _ in hostile) >= 21)
        closed = [reader.at_eof() for reader, _ in hostile]  # at once: without a request, each has only 10 s
        assert b" 200 OK" in await get(good)
        await until(lambda: most_connections() >= 10)
        for _, writer in hostile:
            writer.close()
    service.stop()

    assert closed == [True] * 21 + [False] * 9
    assert lines.total(lines.documents(service.output), names.CONNECTIONS_SHED) == 21
    # While a connection makes room for another, both are open for a moment.
    assert most_connections() in {10, 11}


async def test_a_new_connection_replaces_the_longest_idle_one(small_port: int) -> None:
    """The time of the last request counts, not the time of connecting."""
    callers = [await asyncio.open_connection("127.0.0.1", small_port) for _ in range(3)]
    for number in (0, 1, 2, 0):
        await get(callers[number])
    async with connect(small_port) as newest:
        await get(newest)
        await until(lambda: any(reader.at_eof() for reader, _ in callers))
        closed = [reader.at_eof() for reader, _ in callers]
    for _, writer in callers:
        writer.close()

    assert closed == [False, True, False]


async def test_a_new_connection_is_refused_while_all_others_have_requests(small_port: int, owner: Owner) -> None:
    """No request in progress is given up; the new caller gets a 503 that asks it to retry."""
    callers = [await asyncio.open_connection("127.0.0.1", small_port) for _ in range(3)]
    async with owner.transaction():
        await owner.execute("LOCK TABLE clients")
        requests = [asyncio.create_task(get(caller)) for caller in callers]
        await let_service_read()
        async with connect(small_port) as newest:
            refused = await read_to_end(newest)
    responses = await asyncio.gather(*requests)
    for _, writer in callers:
        writer.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused
    assert [statuses(response) for response in responses] == [[200]] * 3


async def test_idle_connections_take_little_memory(serve: Start) -> None:
    """Thousands of connections take memory up to the limit, and another caller is served in between."""
    service = serve(MAX_CONNECTIONS="500")
    process = psutil.Process(service.process.pid)
    hostile = []
    try:
        async with connect(service.port) as good:
            await get(good)
            before = process.memory_info().rss
            for _ in range(15):
                hostile += [socket.create_connection(("127.0.0.1", service.port)) for _ in range(100)]
                await get(good)
            growth = process.memory_info().rss - before
            files = process.num_fds()
    finally:
        for caller in hostile:
            caller.close()

    assert growth < 500 * 20_000
    assert files < 700


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "hard", "limit"), [(64, 4096, None), (256, 256, 56)])
def test_connections_are_limited_to_open_files(
    database_settings: DatabaseSettings, soft: int, hard: int, limit: int | None
) -> None:
    """The soft limit of open files is raised; where the hard limit is too low, fewer connections are logged."""
    limited = ["bash", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "-"]
    environment = {"DATABASE_URL": database_settings.dsn, "MAX_CONNECTIONS": "1000", "LOG_FORMAT": "json"}
    service = Service({**environment, "DRAIN_SECONDS": "0"}, before=limited)
    try:
        service.wait_until_listening()
        allowed = psutil.Process(service.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        service.stop()
        logged = [line for line in lines.records(service.output) if line.get(names.EVENT) == names.CONNECTIONS_LIMITED]
    finally:
        service.end()

    assert allowed == (min(1200, hard), hard)
    assert [line[names.MAX_CONNECTIONS] for line in logged] == ([] if limit is None else [limit])


@pytest.mark.parametrize(("reset", "status"), [(False, 400), (True, 499)])
async def test_a_disconnection_during_a_body_is_no_error(api: Client, log: Log, reset: bool, status: int) -> None:
    """It is not logged with a traceback, which would take milliseconds.

    A closed connection looks like one that is closed on the caller's sending side only, so there is a response.
    """
    async with connect(api.port) as caller:
        caller[1].write(POST + b"Content-Length: 100\r\n\r\n{")
        await let_service_read()
        if reset:
            reset_at_end(caller)
    found: list[lines.Record] = []

    def is_logged() -> bool:
        found.extend(log.read())
        return any(line.get(names.EVENT) == names.REQUEST for line in found)

    await until(is_logged)

    assert [line["status"] for line in found if line.get(names.EVENT) == names.REQUEST] == [status]
    assert "error" not in {line.get("level") for line in found}


class FakeConnection:
    """A connection that counts how often the connections of its class were checked for a request."""

    checks = 0

    def __init__(self, connections: Connections, *, has_request: bool) -> None:
        self._connections = connections
        self._has_request = has_request

    @property
    def has_request(self) -> bool:
        FakeConnection.checks += 1
        return self._has_request

    def time_out_head(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._connections.remove(self)


async def test_connections_with_requests_are_not_checked_again_and_again() -> None:
    """While a thousand have a request, a new connection finds the one to replace without checking them all again."""
    connections = Connections(1000)
    for _ in range(999):
        assert connections.add(FakeConnection(connections, has_request=True))
    for _ in range(501):
        assert connections.add(FakeConnection(connections, has_request=False))

    assert (connections.count, connections.shed) == (1000, 500)
    assert FakeConnection.checks < 999 + 2 * 501
    assert connections.add(FakeConnection(connections, has_request=True))
    assert not connections.add(FakeConnection(connections, has_request=True))
