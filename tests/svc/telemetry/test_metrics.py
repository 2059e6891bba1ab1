"""Metrics: documents are valid, counts equal the served requests, and the number of series is limited."""

import asyncio
import json
import os
import random
import signal
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

REQUESTS_PER_PATH = 200
CONNECTIONS = 16
REQUESTS_THAT_FILL_THE_QUEUE = 30_000  # the queue holds some 20,000 log lines
JUNK_REQUESTS = 6_000  # to warm up, and again to compare
MAX_GROWN_BYTES = 3 * 2**20  # of fragmentation; one series per request would be 5 MB


class Reader:
    """Reads a service's stdout from a pipe, unless it is paused. Counts the lines, and keeps the metrics documents."""

    def __init__(self) -> None:
        read_end, self.write_end = os.pipe()
        self.reading = threading.Event()
        self.reading.set()
        self.count = 0
        self.kept: list[bytes] = []
        self._thread = threading.Thread(target=self._read, args=(read_end,), daemon=True)
        self._thread.start()

    def _read(self, read_end: int) -> None:
        with os.fdopen(read_end, "rb") as pipe:
            for line in pipe:
                self.reading.wait()
                self.count += 1
                if b'"_aws"' in line:
                    self.kept.append(line)

    def finish(self) -> None:
        """Reads the rest. All other processes must have closed the pipe."""
        self.reading.set()
        os.close(self.write_end)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.reading.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_request_has_one_line_and_one_count(serve: Start, workers: int) -> None:
    """Until SIGTERM stops the service under load, lines and counts equal the responses, and all documents are valid."""
    service = serve(
        WORKERS=str(workers), MAX_CONCURRENT="1", LOG_FORMAT="json", DRAIN_SECONDS="0.2", METRICS_INTERVAL="1"
    )
    responses: Counter[str] = Counter()
    paths = ["/get/1", "/get/999", "/get/x", "/getall?limit=2&secret=1", "/nowhere/secret", "/healthz"]
    is_enough = asyncio.Event()

    async def call(session: ClientSession) -> None:
        while True:
            for path in paths:
                try:
                    async with session.get(service.url + path) as response:
                        await response.read()
                except (OSError, ServerDisconnectedError):
                    return  # the service has stopped
                responses[path] += 1
            if min(responses[path] for path in paths) >= REQUESTS_PER_PATH:
                is_enough.set()

    async with ClientSession() as session:
        calls = [asyncio.create_task(call(session)) for _ in range(20)]
        await asyncio.wait_for(is_enough.wait(), 60)
        service.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert await asyncio.to_thread(service.process.wait, 60) == 0

    logged, documents = lines.requests(service.output), lines.documents(service.output)
    assert len(logged) == responses.total() - responses["/healthz"]
    counts = Counter((line["route"], line["method"], f"{line['status'] // 100}xx") for line in logged)
    counts["/healthz", "GET", "2xx"] = responses["/healthz"]  # probes are counted, but not logged
    assert lines.counts(documents) == counts
    assert sum(len(lines.values(document, names.LATENCY)) for document in documents) == responses.total()
    assert lines.total(documents, names.ERRORS) == responses.total() - responses["/get/1"] - responses["/healthz"]
    waits = [value for document in documents for value in lines.values(document, names.SLOT_WAIT)]
    assert sorted(waits) == sorted(line[names.SLOT_MS] for line in logged if names.SLOT_MS in line)
    for metric in (names.FAULTS, names.SHED, names.LOG_LINES_DROPPED, names.DATABASE_IS_UNAVAILABLE):
        assert lines.total(documents, metric) == 0
    assert {metric for metric, *_ in lines.series(documents)} == names.METRICS.keys()
    for metric in (names.IN_FLIGHT, names.CONNECTIONS_IN_USE):
        assert max(value for document in documents for value in lines.values(document, metric)) >= 1
    assert {document[names.BUILD] for document in documents} == {"development"}

    assert {line["route"] for line in logged} == {"/get/{id}", "/getall", "unknown"}
    for line in logged:
        assert line["client"] == "127.0.0.1"
        assert 0 <= line["database_ms"] <= line["duration_ms"]
        assert (line["batch_size"] > 0) == (line["database_ms"] > 0)
    assert "secret" not in service.output
    stopped = [record for record in lines.records(service.output) if record.get("event") == names.STOPPED]
    assert [record["lines_dropped"] for record in stopped] == [0] * workers


async def test_latency_is_what_callers_measure(serve: Start, owner: Owner) -> None:
    """A lock delays each add. Its latency is at least the time that it was locked, and at most what the caller saw."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    locked_ms: list[float] = []
    caller_ms: list[float] = []
    async with ClientSession() as session:

        async def add() -> None:
            started = time.perf_counter()
            async with session.post(f"{service.url}/add?name=Slow&money=1") as response:
                assert response.status == 201
            caller_ms.append(1000 * (time.perf_counter() - started))

        for _ in range(20):
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients IN SHARE MODE")
                adding = asyncio.create_task(add())
                while not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    pass  # the add has not reached the lock
                started = time.perf_counter()
                await asyncio.sleep(random.uniform(0, 0.05))
                locked_ms.append(1000 * (time.perf_counter() - started))
            await adding
    service.stop()

    documents = lines.documents(service.output)
    samples = [value for document in documents for value in lines.values(document, names.LATENCY)]
    for locked, sample, caller in zip(locked_ms, samples, caller_ms, strict=True):
        assert locked <= sample <= caller


@pytest.mark.usefixtures("needs_wrk")
async def test_a_stalled_reader_delays_no_request(database_settings: DatabaseSettings, reader: Reader) -> None:
    """While stdout is not read, no request fails or waits, and the lines that are dropped are counted exactly."""
    service = Service(
        {"DATABASE_URL": database_settings.dsn, "LOG_FORMAT": "json", "DRAIN_SECONDS": "0", "METRICS_INTERVAL": "1"},
        stdout=reader.write_end,
    )
    loads: list[wrk.Load] = []

    async def load() -> None:
        loads.append(await asyncio.to_thread(wrk.run, service.url, "get", 4, CONNECTIONS, 1))

    try:
        service.wait_until_listening()
        await load()
        reader.reading.clear()
        async with asyncio.timeout(900):
            while sum(load.requests for load in loads[1:]) < REQUESTS_THAT_FILL_THE_QUEUE:
                await load()
        reader.reading.set()
        await load()
        assert await asyncio.to_thread(service.stop, signal.SIGTERM, 60) == 0
    finally:
        service.end()
    reader.finish()

    documents = [json.loads(line) for line in reader.kept]
    served, dropped = lines.total(documents, names.REQUESTS), lines.total(documents, names.LOG_LINES_DROPPED)
    others = 3 + len(documents)  # started, stopping, stopped, and the documents themselves
    print(f"p99 {[load.p99_ms for load in loads]} ms; {served:.0f} served, {dropped:.0f} lines dropped")
    assert sum(load.errors for load in loads) == 0
    assert dropped > 0
    assert reader.count - others + dropped == served
    responses = sum(load.requests for load in loads)
    assert responses <= served <= responses + len(loads) * CONNECTIONS  # wrk does not read the last responses


@pytest.mark.slow
async def test_memory_and_series_are_bounded_whatever_is_sent(
    database_settings: DatabaseSettings, reader: Reader
) -> None:
    """Random methods, paths, headers and user agents add neither memory nor metrics beyond the budget."""
    service = Service(
        {
            "DATABASE_URL": database_settings.dsn,
            "LOG_FORMAT": "json",
            "DRAIN_SECONDS": "0",
            "TRUSTED_PROXIES": "127.0.0.1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # no collector listens there
        },
        stdout=reader.write_end,
    )
    try:
        service.wait_until_listening()
        process = psutil.Process(service.process.pid)
        await asyncio.gather(*(send_junk(service.port, JUNK_REQUESTS // 20) for _ in range(20)))
        warm = process.memory_info().rss
        await asyncio.gather(*(send_junk(service.port, JUNK_REQUESTS // 20) for _ in range(20)))
        grown = process.memory_info().rss - warm
        assert await asyncio.to_thread(service.stop, signal.SIGTERM, 60) == 0
    finally:
        service.end()
    reader.finish()

    documents = lines.documents(b"".join(reader.kept).decode())
    print(
        f"{warm // 2**20} MB of memory, {grown / 2**20:+.1f} after the warm-up; {len(lines.series(documents))} series"
    )
    assert lines.total(documents, names.REQUESTS) == 2 * JUNK_REQUESTS
    assert lines.total(documents, names.LOG_LINES_DROPPED) == 0
    assert len(lines.series(documents)) <= names.MAX_SERIES
    assert grown <= MAX_GROWN_BYTES


async def send_junk(port: int, count: int) -> None:
    """Sends random but valid HTTP requests, fifty at a time on one connection."""
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
    """A request that is refused because too many are waiting is shed, and a fault. An unknown path is an error."""
    settings = Settings(database=database_settings)
    monkeypatch.setattr("svc.postgres.batching.Batcher._is_full", lambda *_: True)
    async with app.build(settings, Lifecycle(), log.writer) as server:
        client = await aiohttp_client(ServedApp(server))
        statuses = [(await client.get(path)).status for path in ("/get/1", "/get/1", "/nowhere")]
        await client.close()
    logged = log.read()

    assert statuses == [503, 503, 404]
    assert [line[names.ERROR] for line in logged if names.EVENT in line] == ["DatabaseBusy"] * 2 + ["NoSuchPath"]
    documents = [line for line in logged if "_aws" in line]
    assert [lines.total(documents, metric) for metric in (names.SHED, names.FAULTS, names.ERRORS)] == [2, 2, 1]


def test_a_document_equals_that_of_awss_library() -> None:
    """Only a single value differs: it is an array here, which the format allows."""
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


def test_counts_that_cannot_be_written_are_written_later() -> None:
    """While the writer's queue is full, counts add up and samples are discarded; no sample is wrong."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end)
    is_full = True
    offer = writer.offer
    writer.offer = lambda line: not is_full and offer(line)  # type: ignore[method-assign]
    service_metrics = Metrics(writer, {})
    for number in range(250):
        service_metrics.latencies_ms["/getall", "GET", 500].append(float(number))
        service_metrics.flush_full()
    service_metrics.shed += 7
    service_metrics.flush()
    is_full = False
    service_metrics.latencies_ms["/getall", "GET", 503].append(0.5)
    service_metrics.flush()
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        documents = lines.documents(pipe.read())

    assert lines.total(documents, names.REQUESTS) == lines.total(documents, names.FAULTS) == 251
    assert lines.total(documents, names.SHED) == 7
    assert [lines.values(document, names.LATENCY) for document in documents if names.LATENCY in document] == [[0.5]]


def test_the_catalogue_stays_within_the_budget_of_series() -> None:
    """All routes, three methods, four classes of status and three database operations make at most MAX_SERIES."""
    routes = len(app.routes(Mock(), Mock(), Mock(), Mock()).templates) + len(("unknown", "not_http"))
    series: dict[object, int] = {names.BY_ROUTE: routes * 3 * 4 + 1, names.BY_OPERATION: 3, names.OVERALL: 1}
    series[names.BY_ROUTE_AND_CALLER] = series[names.BY_ROUTE]  # each configured name of a caller adds one

    assert sum(series[metric.dimensions] for metric in names.METRICS.values()) <= names.MAX_SERIES
