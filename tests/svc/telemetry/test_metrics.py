"""Metrics: documents are valid, counts equal the served requests, and the number of series is limited."""

import asyncio
import fcntl
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
from svc import app
from svc.http.lifecycle import Lifecycle
from svc.logs import names
from svc.logs.writer import LineWriter
from svc.postgres.batching import RoundTrip
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from svc.telemetry import metrics
from svc.telemetry.distribution import Distribution
from svc.telemetry.metrics import Metrics
from tests.conftest import Client, Log, Owner, ServedApp
from tests.patience import PATIENCE_SECONDS, PATIENT_QUEUE
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.logs.lines import MAX_ERROR

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
        self._thread.join(PATIENCE_SECONDS)
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
        **PATIENT_QUEUE,
        WORKERS=str(workers),
        MAX_CONCURRENT="1",
        LOG_FORMAT="json",
        LOG_LINES_PER_SECOND="0",
        DRAIN_SECONDS="0.2",
        METRICS_INTERVAL="1",
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
        await asyncio.wait_for(is_enough.wait(), PATIENCE_SECONDS)
        service.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*calls), PATIENCE_SECONDS)
    assert await asyncio.to_thread(service.process.wait, PATIENCE_SECONDS) == 0

    logged, documents = lines.requests(service.output), lines.documents(service.output)
    assert len(logged) == responses.total() - responses["/healthz"]
    counts = Counter((line["route"], line["method"], f"{line['status'] // 100}xx") for line in logged)
    counts["/healthz", "GET", "2xx"] = responses["/healthz"]  # probes are counted, but not logged
    assert lines.counts(documents) == counts
    of_requests = [document for document in documents if document.get(names.ROUTE_DIMENSION) not in (None, "/healthz")]
    latencies = [value for document in of_requests for value in lines.values(document, names.LATENCY)]
    assert sorted(latencies) == pytest.approx(sorted(line["duration_ms"] for line in logged), rel=MAX_ERROR)
    assert lines.total(documents, names.ERRORS) == responses.total() - responses["/get/1"] - responses["/healthz"]
    waits = [value for document in documents for value in lines.values(document, names.SLOT_WAIT)]
    logged_waits = sorted(line[names.SLOT_MS] for line in logged if names.SLOT_MS in line)
    assert sorted(waits) == pytest.approx(logged_waits, rel=MAX_ERROR)
    for metric in (names.FAULTS, names.SHED, names.LOG_LINES_DROPPED, names.DATABASE_IS_UNAVAILABLE):
        assert lines.total(documents, metric) == 0
    assert {metric for metric, *_ in lines.series(documents)} == names.METRICS.keys()
    for metric in (names.IN_FLIGHT, names.CONNECTIONS_IN_USE):
        assert max(value for document in documents for value in lines.values(document, metric)) >= 1
    of_process = [document for document in documents if names.PROCESS_CPU in document]
    assert {document[names.BUILD] for document in of_process} == {"development"}

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
    for locked, sample, caller in zip(sorted(locked_ms), sorted(samples), sorted(caller_ms), strict=True):
        assert locked * (1 - MAX_ERROR) <= sample <= caller * (1 + MAX_ERROR)


@pytest.mark.usefixtures("needs_wrk")
async def test_a_stalled_reader_delays_no_request(database_settings: DatabaseSettings, reader: Reader) -> None:
    """While stdout is not read, no request fails or waits, and the lines that are dropped are counted exactly."""
    service = Service(
        {
            "DATABASE_URL": database_settings.dsn,
            "LOG_FORMAT": "json",
            "LOG_LINES_PER_SECOND": "0",
            "DRAIN_SECONDS": "0",
            "METRICS_INTERVAL": "1",
        },
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
        assert await asyncio.to_thread(service.stop) == 0
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
        assert await asyncio.to_thread(service.stop) == 0
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
    """Only a distribution differs, which AWS's library does not have."""
    properties = {names.BUILD: "abc"}
    dimensions = ((), ((names.ROUTE_DIMENSION, "/getall"), (names.METHOD_DIMENSION, "GET")))
    latencies_ms = Distribution()
    for value in (1.5, 2.5, 3.5):
        latencies_ms.add(value)
    context = MetricsContext(names.NAMESPACE, dict(properties))
    context.set_dimensions([dict(one) for one in dimensions])
    context.put_metric(names.REQUESTS, 3, names.METRICS[names.REQUESTS].unit)
    context.put_metric(names.LATENCY, 0, names.METRICS[names.LATENCY].unit)
    (theirs,) = (json.loads(text) for text in LogSerializer.serialize(context))
    values: metrics.Values = {names.REQUESTS: 3, names.LATENCY: latencies_ms, names.SLOT_WAIT: Distribution()}
    (ours,) = (json.loads(line) for line in metrics.documents(dimensions, values, properties))

    lag_ms = ours["_aws"].pop("Timestamp") - theirs["_aws"].pop("Timestamp")
    assert abs(lag_ms) < 1000
    (target,) = latencies_ms.parts(100)
    assert ours == {**theirs, names.LATENCY: json.loads(json.dumps(target))}


def test_what_cannot_be_written_is_written_later() -> None:
    """While the writer's queue is full, counts and distributions add up."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end)
    is_full = True
    offer = writer.offer
    writer.offer = lambda line: not is_full and offer(line)  # type: ignore[method-assign]
    service_metrics = Metrics(writer, {})
    on_round_trip = service_metrics.on_round_trip("get")
    for number in range(250):
        service_metrics.latencies_ms["/getall", "GET", 500].add(float(number))
        on_round_trip(RoundTrip("get", 3, 0.0, 0.001, 0.002, None))
        service_metrics.flush()
    service_metrics.shed += 7
    service_metrics.flush()
    is_full = False
    service_metrics.latencies_ms["/getall", "GET", 503].add(1000.0)
    service_metrics.flush()
    service_metrics.flush()
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        documents = lines.documents(pipe.read())

    assert lines.total(documents, names.REQUESTS) == lines.total(documents, names.FAULTS) == 251
    assert lines.total(documents, names.SHED) == 7
    assert lines.total(documents, names.BATCH_SIZE_METRIC) == 750
    latencies = [value for document in documents for value in lines.values(document, names.LATENCY)]
    assert latencies == pytest.approx([*map(float, range(250)), 1000.0], rel=MAX_ERROR)
    assert lines.total(documents, names.LATENCY) == pytest.approx(sum(range(250)) + 1000)


def test_documents_are_few_whatever_the_traffic_and_no_field_is_beyond_the_limit() -> None:
    """100 times the requests, of all routes and over six orders of magnitude, make no more documents."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 2**20)
    service_metrics = Metrics(LineWriter(write_end), {names.BUILD: "b", names.POD: "p", names.NODE: "n"})
    on_round_trip = service_metrics.on_round_trip("get")
    service_metrics.flush()
    sizes = []
    for requests in (500, 50_000):
        for _ in range(requests):
            seconds = random.lognormvariate(-6, 1.5)
            for route in ("/getall", "/get/{id}", "/add", "unknown"):
                service_metrics.latencies_ms[route, "GET", 200].add(seconds * 1e3)
            on_round_trip(RoundTrip("get", random.randrange(1, 128), 0.0, seconds, random.expovariate(1000), None))
        service_metrics.flush()
        sizes.append(os.read(read_end, 2**20))
    os.close(write_end)
    os.close(read_end)

    few, many = (lines.documents(text.decode()) for text in sizes)  # checks the number of fields
    assert len(many) <= len(few) * 2 < 60
    assert lines.total(many, names.REQUESTS) == 200_000
    assert len(sizes[1]) < 50_000


def test_the_catalogue_stays_within_the_budget_of_series() -> None:
    """All routes, three methods, four classes of status and three database operations make at most MAX_SERIES."""
    routes = len(app.routes(Mock(), Mock(), Mock(), Mock()).templates) + len(("unknown", "not_http"))
    series: dict[object, int] = {names.BY_ROUTE: routes * 3 * 4 + 1, names.BY_OPERATION: 3, names.OVERALL: 1}
    series[names.BY_ROUTE_AND_CALLER] = series[names.BY_ROUTE]  # each configured name of a caller adds one

    assert sum(series[metric.dimensions] for metric in names.METRICS.values()) <= names.MAX_SERIES
