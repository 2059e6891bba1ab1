"""Traces as a collector receives them: spans, resource and context; and unavailable collectors."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from svc import app
from svc.http.lifecycle import Lifecycle
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from svc.telemetry import spans
from svc.telemetry.settings import TelemetrySettings, TraceSettings
from svc.telemetry.setup import database_attributes
from tests.conftest import Client, Log, Owner, ServedApp
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.postgres.locks import cancel_waiting
from tests.svc.telemetry.otlp import Collector, attributes, collecting

Start = Callable[..., Service]

PROTOCOLS = ["http/protobuf", "grpc"]
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ALL = {
    "OTEL_TRACES_SAMPLER": "parentbased_always_on",
    "TRACES_PER_SECOND": "0",
    "LOG_LINES_PER_SECOND": "0",
    "LOG_FORMAT": "json",
    "DRAIN_SECONDS": "0",
}
TRUSTED = {"TRUSTED_PROXIES": "127.0.0.1"}
REQUESTS = 100  # more than an exporter queues in these tests


def to(collector: Collector, protocol: str) -> dict[str, str]:
    """The standard variables that configure a collector."""
    return {**collector.variables, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


def of_kind(collector: Collector, kind: Span.SpanKind.ValueType) -> list[Span]:
    return [span for span in collector.spans if span.kind == kind]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_spans_and_resource_are_exported(serve: Start, protocol: str) -> None:
    """Each request has a span, with a child for each batch that it was part of. The spans agree with the log."""
    with collecting(protocol) as collector:
        service = serve(
            **ALL,
            **to(collector, protocol),
            BUILD="abc",
            OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=pod-1,k8s.node.name=node-1,k8s.cluster.name=olimac",
        )
        async with ClientSession() as session:

            async def get(path: str) -> int:
                async with session.get(service.url + path, headers={"User-Agent": "tests"}) as response:
                    return response.status

            await get("/get/1")
            statuses = await asyncio.gather(*(get(f"/get/{1 + number % 6}") for number in range(300)))
            assert await get("/nowhere/secret") == 404
            async with session.post(f"{service.url}/add?name=Marigold&money=1") as added:
                assert added.status == 201
        await collector.wait_for(303 + 302)  # requests, and batches of all but one of them
        assert await asyncio.to_thread(service.stop) == 0

    logged = lines.requests(service.output)
    served, batches = of_kind(collector, Span.SPAN_KIND_SERVER), of_kind(collector, Span.SPAN_KIND_CLIENT)
    by_id = {span.span_id.hex(): span for span in served}
    assert set(statuses) == {200, 404}
    assert len(collector.spans) == len(served) + len(batches)
    assert sorted(map(lines.span_id, logged)) == sorted(by_id)
    for line in logged:
        check_request(by_id[lines.span_id(line)], line)
    for batch in batches:
        check_batch(batch, by_id[batch.parent_span_id.hex()])
    parents = sorted(batch.parent_span_id.hex() for batch in batches)
    assert parents == sorted(lines.span_id(line) for line in logged if line["batch_size"])
    sizes = [attributes(batch.attributes).get(names.DB_BATCH_SIZE, 1) for batch in batches]
    assert max(sizes) == max(line["batch_size"] for line in logged) > 1
    assert "secret" not in str(collector.spans)
    assert "Marigold" not in str(collector.spans)
    for resource in collector.resources:
        assert resource.items() >= {"service.name": "clients-api", "service.version": "abc"}.items()
        assert resource.items() >= {"k8s.pod.name": "pod-1", "k8s.node.name": "node-1"}.items()
        assert resource["k8s.cluster.name"] == "olimac"
    for document in lines.documents(service.output):
        assert document[names.POD] == logged[0][names.POD] == socket.gethostname()
        if names.PROCESS_CPU in document:
            assert [document[name] for name in (names.NODE, names.CLUSTER)] == ["node-1", "olimac"]


def check_request(span: Span, line: dict[str, Any]) -> None:
    """Asserts that a request's span agrees with its log line."""
    found = attributes(span.attributes)
    duration_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    assert line["sampled"]
    assert (span.trace_id.hex(), span.parent_span_id) == (line["trace_id"], b"")
    assert duration_ms == pytest.approx(line["duration_ms"], abs=0.01)
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60
    assert found.keys() <= names.ATTRIBUTES.keys()
    assert (found[names.HTTP_METHOD], found[names.HTTP_STATUS]) == (line["method"], line["status"])
    assert found[names.CLIENT_ADDRESS] == line["client"] == "127.0.0.1"
    assert found[names.DATABASE_SECONDS] * 1000 == pytest.approx(line["database_ms"], abs=0.01)
    assert span.status.code == Status.STATUS_CODE_UNSET  # a caller's error is not an error of the service
    is_known = line["route"] != "unknown"
    assert span.name == (f"{line['method']} {line['route']}" if is_known else line["method"])
    assert found.get(names.HTTP_ROUTE) == (line["route"] if is_known else None)
    assert (names.URL_PATH in found) == is_known


def check_batch(span: Span, request: Span) -> None:
    """Asserts that a batch's span agrees with the request that is its parent."""
    found = attributes(span.attributes)
    assert span.trace_id == request.trace_id
    # Requests and batches are timed by different clocks.
    assert request.start_time_unix_nano <= span.start_time_unix_nano + 1_000_000
    assert request.end_time_unix_nano >= span.end_time_unix_nano - 1_000_000
    assert found.keys() <= names.ATTRIBUTES.keys()
    assert span.name == found[names.DB_SUMMARY]
    assert span.name in ("SELECT clients", "INSERT clients")
    assert found[names.OLD_DB_SYSTEM] == found[names.DB_SYSTEM] == "postgresql"
    assert found[names.OLD_DB_STATEMENT] == found[names.DB_QUERY]


async def test_each_worker_has_an_exporter(serve: Start) -> None:
    """Each worker starts its exporter after the fork."""
    with collecting("http/protobuf") as collector:
        service = serve(**ALL, **to(collector, "http/protobuf"), WORKERS="2")
        for _ in range(40):  # each on a new connection, which either worker may accept
            async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
                assert response.status == 200
        await collector.wait_for(40 + 40)
        assert await asyncio.to_thread(service.stop) == 0

    assert len(of_kind(collector, Span.SPAN_KIND_SERVER)) == 40
    assert len(collector.resources) >= 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_remote_trace_is_continued(serve: Start, protocol: str) -> None:
    """Span, log line and response have the trace ID of W3C's or X-Ray's header, and its sampling decision."""
    with collecting(protocol) as collector:
        service = serve(**ALL, **TRUSTED, **to(collector, protocol))
        xray = f"Self=1-67891234-0123456789abcdef01234567;Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent={SPAN_ID}"
        sent = [
            {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "vendor=x"},
            {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"},
            {"X-Amzn-Trace-Id": f"{xray};Sampled=1"},
            {"X-Amzn-Trace-Id": f"{xray};Sampled=0"},
        ]
        async with ClientSession() as session:
            for headers in sent:
                async with session.get(f"{service.url}/get/1", headers=headers) as response:
                    received = response.headers
                version, trace_id, span_id, flags = received["traceresponse"].split("-")
                assert (version, trace_id, received["X-Request-Id"]) == ("00", TRACE_ID, TRACE_ID)
                headers["span_id"], headers["flags"] = span_id, flags
        await collector.wait_for(2 + 2)
        assert await asyncio.to_thread(service.stop) == 0

    logged, served = lines.requests(service.output), of_kind(collector, Span.SPAN_KIND_SERVER)
    assert [line["trace_id"] for line in logged] == [TRACE_ID] * 4
    assert [line["span_id"] for line in logged] == [headers["span_id"] for headers in sent]
    assert [line["sampled"] for line in logged] == [True, False, True, False]
    assert [headers["flags"] for headers in sent] == ["01", "00", "01", "00"]
    assert [span.span_id.hex() for span in served] == [logged[0]["span_id"], logged[2]["span_id"]]
    assert [span.parent_span_id.hex() for span in served] == [SPAN_ID] * 2
    assert [span.trace_state for span in served] == ["vendor=x", ""]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}


@pytest.mark.parametrize(
    ("proxies", "forwarded"),
    [("", {}), ("10.0.0.0/8", {}), ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"})],
    ids=["no proxy is trusted", "other proxies are trusted", "the caller is behind a trusted proxy"],
)
async def test_trace_headers_of_untrusted_callers_are_ignored(
    serve: Start, proxies: str, forwarded: dict[str, str]
) -> None:
    """A caller that is not a trusted proxy can neither choose the trace ID nor have its trace recorded."""
    with collecting("http/protobuf") as collector:
        sampler = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        service = serve(**{**ALL, **sampler}, **to(collector, "http/protobuf"), TRUSTED_PROXIES=proxies)
        headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", **forwarded}
        async with ClientSession() as session, session.get(f"{service.url}/get/1", headers=headers) as response:
            assert "traceresponse" not in response.headers
        assert await asyncio.to_thread(service.stop) == 0

    (line,) = lines.requests(service.output)
    assert line["trace_id"] != TRACE_ID
    assert not line["sampled"]
    assert collector.spans == []


async def test_spans_of_errors_have_the_error_type(serve: Start, owner: Owner) -> None:
    """A batch that timed out and its requests have the error status and the type of the error."""
    with collecting("http/protobuf") as collector:
        service = serve(**ALL, **to(collector, "http/protobuf"))
        async with ClientSession() as session, owner.transaction():
            await owner.execute("LOCK TABLE clients")
            getting = asyncio.create_task(session.get(f"{service.url}/get/1"))
            await cancel_waiting(owner)
            assert (await getting).status == 504
        await collector.wait_for(2)
        assert await asyncio.to_thread(service.stop) == 0

    (request,), (batch,) = of_kind(collector, Span.SPAN_KIND_SERVER), of_kind(collector, Span.SPAN_KIND_CLIENT)
    for span in (request, batch):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes(span.attributes)[names.ERROR_TYPE] == "QueryTimedOut"
    assert attributes(batch.attributes)[names.DB_STATUS] == "57014"


@contextmanager
def absent() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_unavailable_collector_delays_no_request(serve: Start, protocol: str) -> None:
    """No request fails or waits for a collector that is absent, silent or refusing, and the service stops without it.

    The exporter itself would wait 10 minutes, so a request or a stop that waited for it would exceed its time limit.
    """
    with absent() as nowhere, silent() as blocked, collecting(protocol, refuses=True) as refusing:
        services = [
            serve(
                **ALL,
                **to(collector, protocol),
                OTEL_BSP_MAX_QUEUE_SIZE="64",
                OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
                OTEL_EXPORTER_OTLP_TIMEOUT="600",
            )
            for collector in (Collector(nowhere), Collector(blocked), refusing)
        ]
        async with ClientSession(timeout=ClientTimeout(PATIENCE_SECONDS)) as session:
            for service in services:
                for _ in range(REQUESTS):
                    async with session.get(f"{service.url}/get/1") as response:
                        assert response.status == 200
        stops = (asyncio.to_thread(service.stop) for service in services)
        assert await asyncio.gather(*stops) == [0, 0, 0]

    assert refusing.exports > 0
    for service in services:
        assert len(lines.requests(service.output)) == REQUESTS
        warnings = [line for line in lines.records(service.output) if line.get("event") == names.LIBRARY]
        assert len(warnings) < 20


async def test_the_last_spans_are_exported_at_the_end(
    database_settings: DatabaseSettings,
    log: Log,
    aiohttp_client: Callable[[ServedApp], Awaitable[Client]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that still wait for the next export."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    traces = TelemetrySettings(traces=TraceSettings("http/protobuf", ratio=1.0, per_second=0))
    with collecting("http/protobuf") as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        settings = Settings(telemetry=traces, database=database_settings)
        async with app.build(settings, Lifecycle(), log.writer) as server:
            client = await aiohttp_client(ServedApp(server))
            await client.get("/get/1")
            await client.close()
            before = len(collector.spans)

    assert (before, len(collector.spans)) == (0, 2)


def test_an_encoded_span_equals_that_of_the_sdk() -> None:
    """A span that is joined from pieces equals the same span made and encoded by the SDK."""
    trace_id, span_id, parent_id = "0" * 31 + "1", "0" * 15 + "2", SPAN_ID
    context, parent = (
        SpanContext(int(trace_id, 16), int(number, 16), is_remote=is_remote, trace_flags=TraceFlags(1))
        for number, is_remote in ((span_id, False), (parent_id, True))
    )
    shared: tuple[tuple[str, str | int], ...] = (("http.route", "/get/{id}"), ("http.response.status_code", 200))
    long = "x" * 300
    theirs = encode_spans(
        [
            ReadableSpan(
                name="GET /get/{id}",
                context=context,
                parent=parent,
                attributes={**dict(shared), "url.path": long, "seconds": 0.25},
                kind=SpanKind.SERVER,
                start_time=1_700_000_000_000_000_000,
                end_time=1_700_000_000_500_000_000,
            )
        ]
    )
    ours = ScopeSpans.FromString(
        spans.join(
            [
                spans.common("GET /get/{id}", Span.SPAN_KIND_SERVER, shared, is_remote=True),
                spans.identity(trace_id, span_id, parent_id, 1_700_000_000.5, 0.5),
                spans.attribute("url.path", long),
                spans.duration("seconds", 0.25),
            ]
        )
    )
    (expected,) = theirs.resource_spans[0].scope_spans[0].spans
    (found,) = ours.spans

    assert found.flags == expected.flags | TraceFlags.SAMPLED  # a flag that OTLP defines and the SDK leaves out
    found.flags = expected.flags
    expected.ClearField("status")  # the SDK writes UNSET, which is the default
    assert found == expected


async def test_a_span_has_the_url_that_the_caller_asked_for(serve: Start) -> None:
    """Without its host, X-Ray shows no URL. A header that is not a host is left out."""
    expected: dict[str, tuple[str | None, int | None]] = {
        "flask.olimac.link": ("flask.olimac.link", None),
        "localhost:8080": ("localhost", 8080),
        "[2001:db8::7]:8080": ("2001:db8::7", 8080),
        "x" * 300: ("x" * 256, None),
        "localhost:99999": (None, None),
    }
    with collecting("http/protobuf") as collector:
        service = serve(**ALL, **TRUSTED, **to(collector, "http/protobuf"))
        async with ClientSession() as session:
            for host in expected:
                headers = {"Host": host, "X-Forwarded-Proto": "https", "X-Request-Id": "of-the-caller"}
                async with session.get(f"{service.url}/get/1", headers=headers) as response:
                    assert response.status == 200
        await collector.wait_for(2 * len(expected))
        assert await asyncio.to_thread(service.stop) == 0

    found = [attributes(span.attributes) for span in of_kind(collector, Span.SPAN_KIND_SERVER)]
    servers = [(each.get(names.SERVER_ADDRESS), each.get(names.SERVER_PORT)) for each in found]
    assert servers == list(expected.values())
    assert {(each[names.URL_SCHEME], each[names.URL_PATH]) for each in found} == {("https", "/get/1")}


@pytest.mark.parametrize(
    ("dsn", "connection"),
    [
        ("postgresql://user:secret@db.internal/clients?sslmode=disable", "postgresql://db.internal:5432"),
        ("postgresql://[::1]:5433/clients", "postgresql://[::1]:5433"),
        ("postgresql://one:1,two:2/clients?sslmode=disable", "postgresql://one:1"),
        ("postgresql:///clients?host=/run/postgresql", None),
    ],
)
def test_database_spans_have_the_databases_server(dsn: str, connection: str | None) -> None:
    """Without it, X-Ray shows the database as localhost. It has neither user nor password."""
    found = database_attributes(dsn)

    assert found.get(names.OLD_DB_CONNECTION) == connection
    assert "secret" not in str(found)
