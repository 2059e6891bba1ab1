"""What the service counts: valid documents, sums that are what was served, and no more series than are allowed."""

import asyncio
import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from unittest.mock import Mock

import psutil
import pytest
from aiohttp import ClientSession, ServerDisconnectedError
from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer

from ops.bench import wrk
from ops.common.process import Service
from svc import app
from svc.http.lifecycle import Lifecycle
from svc.logs import names
from svc.logs.writer import LineWriter
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from svc.telemetry import metrics
from svc.telemetry.metrics import Metrics
from tests.conftest import Client, Log, Owner, ServedApp
from tests.svc.logs import lines

Start = Callable[..., Service]

STALL_SECONDS = 15
MEMORY_BYTES = 8 * 2**20  # caches and fragments; where each request left one object behind, it would be 20 MB and more
JUNK_REQUESTS = 500_000


class Reader:
    """Reads a service's stdout, unless it is paused, and keeps the lines that are wanted."""

    def __init__(self, is_wanted: Callable[[bytes], bool]) -> None:
        read_end, self.write_end = os.pipe()
        self.reading = threading.Event()
        self.reading.set()
        self.count = 0
        self.kept: list[bytes] = []
        self._is_wanted = is_wanted
        self._thread = threading.Thread(target=self._read, args=(read_end,), daemon=True)
        self._thread.start()

    def _read(self, read_end: int) -> None:
        with os.fdopen(read_end, "rb") as pipe:
            for line in pipe:
                self.reading.wait()
                self.count += 1
                if self._is_wanted(line):
                    self.kept.append(line)

    def finish(self) -> None:
        """Reads what is left; all others have to have closed the pipe."""
        self.reading.set()
        os.close(self.write_end)
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Of documents."""
    made = Reader(lambda line: b'"_aws"' in line)
    yield made
    made.reading.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_request_has_one_line_and_one_count(serve: Start, workers: int) -> None:
    """Under load, and then SIGTERM amid it: lines and counts are as many as there were answers, and all are valid."""
    service = serve(WORKERS=str(workers), LOG_FORMAT="json", DRAIN_SECONDS="0.2", METRICS_INTERVAL="1")
    answered: Counter[str] = Counter()
    paths = ["/get/1", "/get/999", "/get/x", "/getall?limit=2&secret=1", "/nowhere/secret", "/healthz"]

    async def call(session: ClientSession) -> None:
        while True:
            for path in paths:
                try:
                    async with session.get(service.url + path) as response:
                        await response.read()
                except (OSError, ServerDisconnectedError):
                    return  # it has stopped, or does so while the connection is made
                answered[path] += 1

    async with ClientSession() as session:
        calls = [asyncio.create_task(call(session)) for _ in range(20)]
        await asyncio.sleep(3)
        service.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*calls), 30)
    assert await asyncio.to_thread(service.process.wait, 30) == 0

    told, counted = lines.requests(service.output), lines.documents(service.output)
    assert min(answered.values()) > 50
    assert len(told) == answered.total() - answered["/healthz"]
    of_lines = Counter((line["route"], line["method"], f"{line['status'] // 100}xx") for line in told)
    of_lines["/healthz", "GET", "2xx"] = answered["/healthz"]  # counted, and not told
    assert lines.counts(counted) == of_lines
    assert sum(len(lines.values(document, names.LATENCY)) for document in counted) == answered.total()
    assert lines.total(counted, names.ERRORS) == answered.total() - answered["/get/1"] - answered["/healthz"]
    for metric in (names.FAULTS, names.SHED, names.LOG_LINES_DROPPED, names.DATABASE_IS_UNAVAILABLE):
        assert lines.total(counted, metric) == 0
    assert {metric for metric, *_ in lines.series(counted)} == names.METRICS.keys()
    for metric in (names.IN_FLIGHT, names.CONNECTIONS_IN_USE):
        assert max(value for document in counted for value in lines.values(document, metric)) >= 1
    assert {document[names.BUILD] for document in counted} == {"development"}

    assert {line["route"] for line in told} == {"/get/{id}", "/getall", "unknown"}
    for line in told:
        assert line["client"] == "127.0.0.1"
        assert 0 <= line["database_ms"] <= line["duration_ms"]
        assert (line["batch_size"] > 0) == (line["database_ms"] > 0)
    assert "secret" not in service.output
    stopped = [record for record in lines.records(service.output) if record.get("event") == names.STOPPED]
    assert [record["lines_dropped"] for record in stopped] == [0] * workers


async def test_percentiles_are_what_callers_measure(serve: Start, owner: Owner) -> None:
    """Adds that the database holds up for random times: percentiles of the samples are those that callers saw."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    seen_ms: list[float] = []
    async with ClientSession() as session:

        async def add() -> None:
            started = time.perf_counter()
            async with session.post(f"{service.url}/add?name=Slow&money=1") as answer:
                assert answer.status == 201
            seen_ms.append(1000 * (time.perf_counter() - started))

        await add()  # which makes the connections
        seen_ms.clear()
        for _ in range(40):
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients IN SHARE MODE")
                adding = asyncio.create_task(add())
                await asyncio.sleep(0.02 + random.expovariate(20))
            await adding
    service.stop()

    found = lines.documents(service.output)
    samples = [value for document in found for value in lines.values(document, names.LATENCY)][1:]
    assert len(samples) == len(seen_ms) == 40
    for percent in (50, 90, 99):
        inside, outside = (statistics.quantiles(sorted(ms), n=100)[percent - 1] for ms in (samples, seen_ms))
        assert inside <= outside
        assert inside == pytest.approx(outside, rel=0.1, abs=10)


@pytest.mark.usefixtures("needs_wrk")
async def test_a_reader_who_stalls_slows_nobody(database_settings: DatabaseSettings, reader: Reader) -> None:
    """Nobody reads stdout for 15 s under load: no request fails or is slow, and what is dropped is counted exactly."""
    service = Service(
        {"DATABASE_URL": database_settings.dsn, "LOG_FORMAT": "json", "DRAIN_SECONDS": "0", "METRICS_INTERVAL": "1"},
        stdout=reader.write_end,
    )
    try:
        service.wait_until_listening()
        before = await asyncio.to_thread(wrk.run, service.url, "get", 4, 64, 5)
        reader.reading.clear()
        stalled = await asyncio.to_thread(wrk.run, service.url, "get", 4, 64, STALL_SECONDS)
        reader.reading.set()
        after = await asyncio.to_thread(wrk.run, service.url, "get", 4, 64, 5)
        assert await asyncio.to_thread(service.stop) == 0
    finally:
        service.end()
    reader.finish()

    found = [json.loads(line) for line in reader.kept]
    served, dropped = lines.total(found, names.REQUESTS), lines.total(found, names.LOG_LINES_DROPPED)
    others = 3 + len(found)  # started, stopping, stopped, and the documents themselves
    p99s = f"p99 {before.p99_ms:.1f}, stalled {stalled.p99_ms:.1f}, then {after.p99_ms:.1f} ms"
    print(f"{p99s}; {served:.0f} served, {dropped:.0f} lines dropped")
    assert before.errors == stalled.errors == after.errors == 0
    assert stalled.p99_ms <= 2 * max(before.p99_ms, after.p99_ms)
    assert dropped > 0
    assert reader.count - others + dropped == served
    answered = before.requests + stalled.requests + after.requests
    assert answered <= served <= answered + 3 * 64  # wrk leaves some of the last ones unread


async def test_whatever_is_sent_memory_is_flat_and_series_are_few(
    database_settings: DatabaseSettings, reader: Reader
) -> None:
    """Half a million requests with random methods, paths, headers and user agents make no series beyond the budget."""
    service = Service(
        {
            "DATABASE_URL": database_settings.dsn,
            "LOG_FORMAT": "json",
            "DRAIN_SECONDS": "0",
            "TRUSTED_PROXIES": "127.0.0.1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # where nobody listens
        },
        stdout=reader.write_end,
    )
    sizes: list[int] = []
    try:
        service.wait_until_listening()
        process = psutil.Process(service.process.pid)
        for _ in range(10):
            await asyncio.gather(*(send_junk(service.port, JUNK_REQUESTS // 10 // 20) for _ in range(20)))
            sizes.append(process.memory_info().rss)
        assert await asyncio.to_thread(service.stop) == 0
    finally:
        service.end()
    reader.finish()

    found = lines.documents(b"".join(reader.kept).decode())
    print(f"MB of memory, each tenth: {[size // 10**6 for size in sizes]}; {len(lines.series(found))} series")
    assert lines.total(found, names.REQUESTS) == JUNK_REQUESTS
    assert lines.total(found, names.LOG_LINES_DROPPED) == 0
    assert len(lines.series(found)) <= names.MAX_SERIES
    assert sizes[-1] <= sizes[1] + MEMORY_BYTES


async def send_junk(port: int, count: int) -> None:
    """So many requests that are HTTP, and random in all else, fifty at a time on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(count // 50):
            writer.write(b"".join([junk() for _ in range(50)]))
            for _ in range(50):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()


def junk() -> bytes:
    word = b"%x" % random.getrandbits(64)
    method = random.choice((b"GET", b"GET", b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"MKCOL"))
    path = random.choice((b"/" + word, b"/get/" + word, b"/get/%d" % random.getrandbits(70), b"/docs/" + word, b"/add"))
    return (
        b"%b %b?%b HTTP/1.1\r\nHost: %b\r\nUser-Agent: \xff%b\r\nX-%b: %b\r\nX-Request-Id: %b\r\n"
        b"traceparent: 00-%032x-%016x-0%d\r\nX-Forwarded-For: %d.2.3.4\r\nContent-Length: 0\r\n\r\n"
    ) % (
        *(method, path, word, word, word, word, word, word),
        *(random.getrandbits(128), random.getrandbits(64), random.getrandbits(1), random.randrange(1, 255)),
    )


async def test_shed_requests_and_faults_are_counted(
    database_settings: DatabaseSettings,
    log: Log,
    aiohttp_client: Callable[[ServedApp], Awaitable[Client]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that is refused since too many wait is shed, and a fault; one that nobody would serve is an error."""
    settings = Settings(database=database_settings)
    monkeypatch.setattr("svc.postgres.batching.Batcher._is_full", lambda *_: True)
    async with app.build(settings, Lifecycle(), log.writer) as server:
        client = await aiohttp_client(ServedApp(server))
        statuses = [(await client.get(path)).status for path in ("/get/1", "/get/1", "/nowhere")]
        await client.close()
    found = log.read()

    assert statuses == [503, 503, 404]
    assert [line[names.ERROR] for line in found if names.EVENT in line] == ["DatabaseBusy"] * 2 + ["NoSuchPath"]
    counted = [line for line in found if "_aws" in line]
    assert [lines.total(counted, metric) for metric in (names.SHED, names.FAULTS, names.ERRORS)] == [2, 2, 1]


def test_a_document_is_what_awss_library_makes() -> None:
    """But for the form of a single value, which may be an array too."""
    properties = {names.BUILD: "abc"}
    dimensions = ((), ((names.ROUTE_DIMENSION, "/getall"), (names.METHOD_DIMENSION, "GET")))
    values: metrics.Values = {names.REQUESTS: [3], names.LATENCY: [1.5, 2.5, 3.5], names.SHED: []}
    context = MetricsContext(names.NAMESPACE, dict(properties))
    context.set_dimensions([dict(one) for one in dimensions])
    for name, numbers in values.items():
        for number in numbers:
            context.put_metric(name, number, names.METRICS[name].unit)
    (theirs,) = (json.loads(text) for text in LogSerializer.serialize(context))
    ours = json.loads(metrics.document(dimensions, values, properties))

    lag_ms = ours["_aws"].pop("Timestamp") - theirs["_aws"].pop("Timestamp")
    assert abs(lag_ms) < 1000
    assert ours == {**theirs, names.REQUESTS: [3]}


def test_what_cannot_be_told_is_told_later() -> None:
    """While there is no room for a line, counts add up and samples are given up; no sample is a wrong one."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end)
    is_full = True
    offer = writer.offer
    writer.offer = lambda line: not is_full and offer(line)  # type: ignore[method-assign]
    counted = Metrics(writer, {})
    for number in range(250):
        counted.latencies_ms["/getall", "GET", 500].append(float(number))
        counted.flush_full()
    counted.shed += 7
    counted.flush()
    is_full = False
    counted.latencies_ms["/getall", "GET", 503].append(0.5)
    counted.flush()
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        found = lines.documents(pipe.read())

    assert lines.total(found, names.REQUESTS) == lines.total(found, names.FAULTS) == 251
    assert lines.total(found, names.SHED) == 7
    assert [lines.values(document, names.LATENCY) for document in found if names.LATENCY in document] == [[0.5]]


def test_the_budget_is_what_the_catalogue_can_make() -> None:
    """The most series: of routes and what is none, three methods, four classes of status; of kinds of questions."""
    routes = len(app.routes(Mock(), Mock(), Mock(), Mock()).templates) + len(("unknown", "not_http"))
    kinds: dict[object, int] = {names.BY_ROUTE: routes * 3 * 4 + 1, names.BY_OPERATION: 3, names.OVERALL: 1}

    assert sum(kinds[metric.dimensions] for metric in names.METRICS.values()) <= names.MAX_SERIES
