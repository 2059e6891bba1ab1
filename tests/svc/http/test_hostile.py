"""Callers who are hostile or broken hold little, and not for long, and others do not feel them."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
import pytest

from ops.common.process import Service
from svc.http.connection import HEAD_MAX_BYTES, LINE_MAX_BYTES
from svc.http.connections import Connections
from svc.http.messages import BODY_MAX_BYTES
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Client, Log, Owner
from tests.svc.logs import lines

Start = Callable[..., Service]
Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GET = b"GET /get/1 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def calling(port: int | None) -> AsyncIterator[Caller]:
    """A connection to the service."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def rest(caller: Caller, seconds: float = 5) -> bytes:
    """What comes until the service closes the connection, which it has to do in time."""
    received = b""
    async with asyncio.timeout(seconds):
        try:
            while chunk := await caller[0].read(65536):
                received += chunk
        except ConnectionError:
            pass
    return received


async def ask(caller: Caller) -> bytes:
    """The head of the answer to one request, whose connection stays."""
    caller[1].write(GET)
    head = await caller[0].readuntil(b"\r\n\r\n")
    await caller[0].readuntil(b"}")
    return head


async def drip(caller: Caller, data: bytes, pause: float = 0.05) -> None:
    """Sends a byte at a time, until nobody takes them."""
    for byte in data:
        if caller[1].is_closing():
            return
        caller[1].write(bytes([byte]))
        await asyncio.sleep(pause)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", answers)]


async def logged(log: Log) -> list[lines.Record]:
    """The lines of requests, once they are written."""
    await asyncio.sleep(0.1)
    return [line for line in log.read() if line.get(names.EVENT) == names.REQUEST]


# Heads.


@pytest.fixture
def short_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.http.connections.HEAD_SECONDS", 0.5)


@pytest.mark.usefixtures("short_heads")
async def test_who_connects_and_says_nothing_is_closed_on(api: Client, log: Log) -> None:
    """Without an answer, since nothing was asked, and without a line."""
    async with calling(api.port) as caller:
        assert await rest(caller, 3) == b""

    assert await logged(log) == []


@pytest.mark.usefixtures("short_heads")
@pytest.mark.parametrize("earlier", [0, 1], ids=["the first", "a later one"])
async def test_a_head_that_drips_is_cut(api: Client, log: Log, earlier: int) -> None:
    """However steadily it comes: a head has to be whole in time, and the caller is told."""
    async with calling(api.port) as caller:
        for _ in range(earlier):
            await ask(caller)
        dripping = asyncio.create_task(drip(caller, GET[:-2] + b"X: " + b"y" * 1000))
        answer = await rest(caller, 3)
        dripping.cancel()
    last = (await logged(log))[-1]

    assert statuses(answer) == [408]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["title"] == "Head too slow"
    assert b"Connection: close" in answer
    assert (last["route"], last["status"], last["error"]) == ("not_http", 408, "HeadTooSlow")


@pytest.mark.usefixtures("short_heads")
async def test_a_head_behind_another_request_has_no_more_time(api: Client) -> None:
    """Half a head in one piece with a whole one, and then a drip."""
    async with calling(api.port) as caller:
        caller[1].write(GET + GET[:5])
        await asyncio.sleep(0.2)
        dripping = asyncio.create_task(drip(caller, b"x" * 1000))
        answers = await rest(caller, 3)
        dripping.cancel()

    assert statuses(answers) == [200, 408]


@pytest.mark.usefixtures("short_heads")
async def test_an_idle_connection_is_kept_for_longer(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between requests, nobody has to hurry as with a head; but none is kept for ever."""
    monkeypatch.setattr("svc.http.connections.KEEPALIVE_SECONDS", 1.2)
    async with calling(api.port) as caller:
        for _ in range(2):
            assert b" 200 OK" in await ask(caller)
            await asyncio.sleep(1.0)
        assert b" 200 OK" in await ask(caller)
        assert await rest(caller, 3) == b""


LINES = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 4000) for number in range(8))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * LINE_MAX_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 65 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + LINES + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + LINES,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + LINES + b"Content-Length: 5\r\n\r\nhello",
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
    ],
)
async def test_a_head_that_could_be_taken_in_two_ways_or_is_too_large_is_refused(api: Client, raw: bytes) -> None:
    """With one problem; what follows on its connection is no request, even if another server would see one."""
    async with calling(api.port) as caller:
        caller[1].write(raw + GET)
        answers = await rest(caller)

    assert statuses(answers) == [400]
    assert b"Connection: close" in answers


async def test_heads_are_measured_wherever_they_are_cut(api: Client) -> None:
    """Behind others, in pieces, and in one piece with the end of another."""
    small, large = GET[:-2] + b"X: " + b"y" * 4000 + b"\r\n\r\n", GET[:-2] + LINES + b"\r\n"
    everything = small * 5 + large + GET
    for size in (len(everything), HEAD_MAX_BYTES, 7000):
        async with calling(api.port) as caller:
            reading = asyncio.create_task(rest(caller))
            for start in range(0, len(everything), size):
                caller[1].write(everything[start : start + size])
                await asyncio.sleep(0.05)
            answers = await reading

        assert statuses(answers) == [200] * 5 + [400]


# Bodies.


@pytest.fixture
def short_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.http.fields.BODY_SECONDS", 0.5)
    monkeypatch.setattr("svc.http.protocol.LINGER_SECONDS", 0.5)


BODIES = {
    "never sent": (b"Content-Length: 40\r\n\r\n", b""),
    "half sent": (b"Content-Length: 40\r\n\r\n{", b""),
    "dripped": (b"Content-Length: 1000\r\n\r\n", b" " * 1000),
    "in tiny chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 1000),
    "a chunk without its data": (b"Transfer-Encoding: chunked\r\n\r\nfff\r\n", b""),
}


@pytest.mark.usefixtures("short_bodies")
@pytest.mark.parametrize(("head", "drops"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(("path", "status"), [(b"/add", 408), (b"/nowhere", 404), (b"/get/1", 405)])
async def test_a_body_that_does_not_come_is_not_waited_for(
    api: Client, head: bytes, drops: bytes, path: bytes, status: int
) -> None:
    """Where it is wanted, and where nobody reads it: there is an answer, and the connection is closed."""
    async with calling(api.port) as caller:
        caller[1].write(POST.replace(b"/add", path) + head)
        dripping = asyncio.create_task(drip(caller, drops))
        answer = await rest(caller, 3)
        dripping.cancel()

    assert statuses(answer) == [status]


@pytest.mark.usefixtures("short_bodies")
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
    """Its caller may send for a moment, so as to see the answer, and then finds the connection closed."""

    async def flood(caller: Caller) -> None:
        while True:
            caller[1].write(chunk)
            await caller[1].drain()
            await asyncio.sleep(0)

    async with calling(api.port) as caller:
        caller[1].write(POST + head)
        flooding = asyncio.create_task(flood(caller))
        answer = await rest(caller, 3)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    assert statuses(answer) == [413]
    assert str(BODY_MAX_BYTES).encode() in answer


# Answers.


def deaf(port: int | None) -> socket.socket:
    """A connection whose caller takes little into its buffers."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


@pytest.fixture
async def many(owner: Owner) -> None:
    """Clients whose list fills any buffer."""
    await owner.execute("INSERT INTO clients (name, money) SELECT repeat('x', 150), n FROM generate_series(1, 50000) n")


@pytest.fixture
def short_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.http.connections.WRITE_SECONDS", 0.7)


@pytest.mark.usefixtures("many", "short_writes")
@pytest.mark.parametrize("bytes_a_time", [0, 100], ids=["not read", "read at a crawl"])
async def test_a_stream_that_is_not_read_is_cut(api: Client, log: Log, bytes_a_time: int) -> None:
    """It is told of as one that its caller has left."""
    loop = asyncio.get_running_loop()
    caller = deaf(api.port)
    caller.send(b"GET /getall HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(30):
        await asyncio.sleep(0.05)
        if bytes_a_time:
            await loop.sock_recv(caller, bytes_a_time)
    (line,) = await logged(log)
    caller.close()

    assert (line["route"], line["status"]) == ("/getall", 499)
    assert line["duration_ms"] < 2000


@pytest.mark.usefixtures("many", "short_writes")
async def test_a_stream_that_is_read_slowly_goes_on(api: Client, log: Log) -> None:
    """Time is counted anew from one part to the next, so that a list may take as long as it takes."""
    async with calling(api.port) as (reader, writer):
        writer.write(b"GET /getall HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        started, received = time.monotonic(), 0
        while chunk := await reader.read(65536):
            received += len(chunk)
            await asyncio.sleep(0.01)
        took = time.monotonic() - started
    (line,) = await logged(log)

    assert (line["status"], received > 8_000_000) == (200, True)
    assert took > 1.4


@pytest.mark.usefixtures("short_writes")
@pytest.mark.parametrize("path", [b"/get/1", b"/openapi.json"])
async def test_who_asks_and_asks_and_reads_nothing_is_cut(api: Client, path: bytes) -> None:
    """Answers pile up to the size of a buffer, and no more is done for such a caller."""
    caller = deaf(api.port)
    requests = GET.replace(b"/get/1", path) * 100

    async def ask_on() -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(caller, requests)

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(ask_on(), 5)
    caller.close()


@pytest.mark.usefixtures("many")
async def test_of_too_many_who_do_not_read_the_longest_deaf_goes(
    api: Client, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is bounded further, since each takes much more than one that is idle."""
    monkeypatch.setattr("svc.http.connections.MAX_WRITE_PAUSED", 3)
    callers = [deaf(api.port) for _ in range(5)]
    for number, caller in enumerate(callers):
        caller.send(b"GET /getall HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n\r\n" % number)
        await asyncio.sleep(0.1)
    told = await logged(log)
    for caller in callers:
        caller.close()

    assert [(line["request_id"], line["status"]) for line in told] == [("0", 499), ("1", 499)]


# Pipelining.


async def test_a_flood_of_pipelined_requests_starves_nobody(serve: Start) -> None:
    """It is answered in order, in little memory, and others are served between."""
    service = serve()
    process = psutil.Process(service.process.pid)
    count = 2_000
    get = b"GET /get/%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\n\r\n"

    async def read_all(reader: asyncio.StreamReader) -> list[int]:
        return [
            int((await reader.readuntil(b"}")).partition(b"X-Request-Id: ")[2].partition(b"\r")[0])
            for _ in range(count)
        ]

    async with calling(service.port) as flooder, calling(service.port) as other:
        await ask(other)
        before = process.memory_info().rss
        flooder[1].write(b"".join(get % (number % 4 + 1, number) for number in range(count)))
        answers = asyncio.create_task(read_all(flooder[0]))
        waits = []
        while not answers.done():
            started = time.monotonic()
            await ask(other)
            waits.append(time.monotonic() - started)
        grew = process.memory_info().rss - before

    assert await answers == list(range(count))
    assert sorted(waits)[len(waits) // 2] < 0.02
    assert grew < 10_000_000


# Connections.


async def test_when_there_is_no_room_who_waited_longest_goes(serve: Start) -> None:
    """First those that never asked, oldest first; who asks now and then stays."""
    service = serve(MAX_CONNECTIONS="10", METRICS_INTERVAL="1", LOG_FORMAT="json", DRAIN_SECONDS="0")
    async with calling(service.port) as good:
        await ask(good)
        hostile = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(30)]
        await asyncio.sleep(1.2)
        assert b" 200 OK" in await ask(good)
        closed = [reader.at_eof() for reader, _ in hostile]
        for _, writer in hostile:
            writer.close()
    service.stop()
    told = lines.documents(service.output)

    assert closed == [True] * 21 + [False] * 9
    assert lines.total(told, names.CONNECTIONS_SHED) == 21
    # One that makes room is there for a moment more.
    assert max(value for document in told for value in lines.values(document, names.CONNECTIONS)) in {10, 11}


async def test_of_those_who_have_asked_the_longest_idle_goes(serve: Start) -> None:
    """In the order of their last requests, not of their coming."""
    service = serve(MAX_CONNECTIONS="3")
    callers = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
    for number in (0, 1, 2, 0):
        await ask(callers[number])
    async with calling(service.port) as newest:
        await ask(newest)
        await asyncio.sleep(0.1)
        closed = [reader.at_eof() for reader, _ in callers]
    for _, writer in callers:
        writer.close()

    assert closed == [False, True, False]


async def test_where_all_are_served_the_new_one_is_refused(serve: Start, owner: Owner) -> None:
    """No request under way is given up for another; who comes is told to come again."""
    service = serve(MAX_CONNECTIONS="3", DB_STATEMENT_SECONDS="5")
    callers = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
    async with owner.transaction():
        await owner.execute("LOCK TABLE clients")
        asked = [asyncio.create_task(ask(caller)) for caller in callers]
        await asyncio.sleep(0.3)
        async with calling(service.port) as newest:
            refused = await rest(newest)
    answers = await asyncio.gather(*asked)
    for _, writer in callers:
        writer.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in refused
    assert [statuses(answer) for answer in answers] == [[200]] * 3


async def test_thousands_who_only_connect_take_little(serve: Start) -> None:
    """They take memory up to the limit and no more, and nobody waits for them."""
    service = serve(MAX_CONNECTIONS="1000")
    process = psutil.Process(service.process.pid)
    hostile = []
    try:
        async with calling(service.port) as good:
            await ask(good)
            before = process.memory_info().rss
            for _ in range(3000):
                hostile.append(socket.create_connection(("127.0.0.1", service.port)))
                if len(hostile) % 100 == 0:
                    await asyncio.sleep(0)
                    started = time.monotonic()
                    await ask(good)
                    assert time.monotonic() - started < 1
            grew = process.memory_info().rss - before
            files = process.num_fds()
    finally:
        for caller in hostile:
            caller.close()
    print(f"grew {grew / 1000:.0f} bytes a connection")

    assert grew < 1000 * 20_000
    assert files < 1200


@pytest.mark.parametrize(("soft", "hard", "bounded"), [(64, 4096, None), (256, 256, 56)])
def test_the_limit_of_open_files_is_raised_or_obeyed(
    database_settings: DatabaseSettings, soft: int, hard: int, bounded: int | None
) -> None:
    """Connections are never so many that a file could not be opened, and where they are fewer than set, it is said."""
    limited = ["bash", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "-"]
    environment = {"DATABASE_URL": database_settings.dsn, "MAX_CONNECTIONS": "1000", "LOG_FORMAT": "json"}
    service = Service({**environment, "DRAIN_SECONDS": "0"}, before=limited)
    try:
        service.wait_until_listening()
        allowed = psutil.Process(service.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        service.stop()
        told = [line for line in lines.records(service.output) if line.get(names.EVENT) == names.CONNECTIONS_LIMITED]
    finally:
        service.end()

    assert allowed == (min(1200, hard), hard)
    assert [line[names.MAX_CONNECTIONS] for line in told] == ([] if bounded is None else [bounded])


async def test_who_leaves_in_the_middle_of_a_body_is_no_error(serve: Start) -> None:
    """A caller who is gone is told of as gone, and not as a fault with its traceback, which takes milliseconds."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    async with calling(service.port) as caller:
        caller[1].write(POST + b"Content-Length: 100\r\n\r\n{")
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.2)
    service.stop()

    assert [line["status"] for line in lines.requests(service.output)] == [499]
    assert "error" not in {line.get("level") for line in lines.records(service.output)}


class Stub:
    """A connection that is removed once it is aborted, and counts how often any of them was visited."""

    visits = 0

    def __init__(self, connections: Connections, *, asks: bool) -> None:
        self._connections = connections
        self._asks = asks

    @property
    def has_request(self) -> bool:
        Stub.visits += 1
        return self._asks

    def time_out_head(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._connections.remove(self)


async def test_who_is_at_a_request_is_not_looked_past_again_and_again() -> None:
    """Where a thousand have a request under way, a newcomer finds who makes room without a look at them all."""
    held = Connections(1000)
    for _ in range(999):
        assert held.add(Stub(held, asks=True))
    for _ in range(501):
        assert held.add(Stub(held, asks=False))

    assert (held.count, held.shed) == (1000, 500)
    assert Stub.visits < 999 + 2 * 501
    assert held.add(Stub(held, asks=True))
    assert not held.add(Stub(held, asks=True))
