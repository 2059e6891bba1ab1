"""Traces, as a collector gets them: spans, links, resource and context; and collectors that are away."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import ClientSession
from multidict import CIMultiDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from ops.common.process import Service
from svc.logs import names
from svc.telemetry import propagation, spans
from svc.telemetry.propagation import Sampler
from tests.conftest import Owner
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import Collector, attributes, collecting

Start = Callable[..., Service]

PROTOCOLS = ["http/protobuf", "grpc"]
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ALL = {"OTEL_TRACES_SAMPLER": "parentbased_always_on", "LOG_FORMAT": "json", "DRAIN_SECONDS": "0"}
OURS = {"TRUSTED_PROXIES": "127.0.0.1"}


def to(collector: Collector, protocol: str) -> dict[str, str]:
    """The standard variables that name a collector."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


def of_kind(collector: Collector, kind: Span.SpanKind.ValueType) -> list[Span]:
    return [span for span in collector.spans if span.kind == kind]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_spans_links_and_resource_come_through(serve: Start, protocol: str) -> None:
    """Each request has a span, and each batch one that is linked to all it served; they say what the log says."""
    with collecting(protocol) as collector:
        service = serve(
            **ALL,
            **to(collector, protocol),
            BUILD="abc",
            OTEL_RESOURCE_ATTRIBUTES="k8s.pod.name=pod-1,k8s.node.name=node-1,k8s.cluster.name=olimac",
        )
        async with ClientSession() as session:

            async def get(path: str) -> int:
                async with session.get(service.url + path, headers={"User-Agent": "tests"}) as answer:
                    return answer.status

            await get("/get/1")
            many = await asyncio.gather(*(get(f"/get/{1 + number % 6}") for number in range(300)))
            assert await get("/nowhere/secret") == 404
            async with session.post(f"{service.url}/add?name=Marigold&money=1") as added:
                assert added.status == 201
        assert await asyncio.to_thread(service.stop) == 0

    told = lines.requests(service.output)
    served, batches = of_kind(collector, Span.SPAN_KIND_SERVER), of_kind(collector, Span.SPAN_KIND_CLIENT)
    by_id = {span.span_id.hex(): span for span in served}
    assert set(many) == {200, 404}
    assert len(collector.spans) == len(served) + len(batches)
    assert sorted(line["span_id"] for line in told) == sorted(by_id)
    for line in told:
        check_request(by_id[line["span_id"]], line)
    for batch in batches:
        check_batch(batch, [by_id[link.span_id.hex()] for link in batch.links])
    linked = [link.span_id.hex() for batch in batches for link in batch.links]
    assert sorted(linked) == sorted(line["span_id"] for line in told if line["batch_size"])
    assert max(len(batch.links) for batch in batches) > 1
    sizes = [attributes(batch.attributes).get(names.DB_BATCH_SIZE, 1) for batch in batches]
    assert max(sizes) == max(line["batch_size"] for line in told) > 1
    assert "secret" not in str(collector.spans)
    assert "Marigold" not in str(collector.spans)
    for resource in collector.resources:
        assert resource.items() >= {"service.name": "clients-api", "service.version": "abc"}.items()
        assert resource.items() >= {"k8s.pod.name": "pod-1", "k8s.node.name": "node-1"}.items()
        assert resource["k8s.cluster.name"] == "olimac"
    for document in lines.documents(service.output):
        assert [document[name] for name in (names.POD, names.NODE, names.CLUSTER)] == ["pod-1", "node-1", "olimac"]


def check_request(span: Span, line: dict[str, Any]) -> None:
    """Asserts that a request's span says what its line says."""
    found = attributes(span.attributes)
    duration_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    assert line["sampled"]
    assert (span.trace_id.hex(), span.parent_span_id) == (line["trace_id"], b"")
    assert line["xray_trace_id"] == f"1-{line['trace_id'][:8]}-{line['trace_id'][8:]}"
    assert duration_ms == pytest.approx(line["duration_ms"], abs=0.01)
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 60
    assert found.keys() <= names.ATTRIBUTES.keys()
    assert (found[names.HTTP_METHOD], found[names.HTTP_STATUS]) == (line["method"], line["status"])
    assert found[names.CLIENT_ADDRESS] == line["client"] == "127.0.0.1"
    assert found[names.DATABASE_SECONDS] * 1000 == pytest.approx(line["database_ms"], abs=0.01)
    assert span.status.code == Status.STATUS_CODE_UNSET  # an error of the caller's is none of the service's
    is_known = line["route"] != "unknown"
    assert span.name == (f"{line['method']} {line['route']}" if is_known else line["method"])
    assert found.get(names.HTTP_ROUTE) == (line["route"] if is_known else None)
    assert (names.URL_PATH in found) == is_known


def check_batch(span: Span, riders: list[Span]) -> None:
    """Asserts that a batch's span fits those that it is linked to."""
    found, first = attributes(span.attributes), riders[0]
    assert (span.trace_id, span.parent_span_id) == (first.trace_id, first.span_id)
    assert [link.trace_id for link in span.links] == [rider.trace_id for rider in riders]
    for rider in riders:  # the clocks that say when are two
        assert rider.start_time_unix_nano <= span.start_time_unix_nano + 1_000_000
        assert rider.end_time_unix_nano >= span.end_time_unix_nano - 1_000_000
    assert found.keys() <= names.ATTRIBUTES.keys()
    assert span.name == found[names.DB_SUMMARY]
    assert span.name in ("SELECT clients", "INSERT clients")
    assert found[names.OLD_DB_SYSTEM] == found[names.DB_SYSTEM] == "postgresql"
    assert found[names.OLD_DB_STATEMENT] == found[names.DB_QUERY]


async def test_two_workers_each_have_an_exporter(serve: Start) -> None:
    """It is started after the fork, in each."""
    with collecting("http/protobuf") as collector:
        service = serve(**ALL, **to(collector, "http/protobuf"), WORKERS="2")
        for _ in range(40):  # each on a connection of its own, which either worker may get
            async with ClientSession() as session, session.get(f"{service.url}/get/1") as answer:
                assert answer.status == 200
        assert await asyncio.to_thread(service.stop) == 0

    assert len(of_kind(collector, Span.SPAN_KIND_SERVER)) == 40
    assert len(collector.resources) >= 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_trace_that_began_elsewhere_goes_on(serve: Start, protocol: str) -> None:
    """With W3C's or X-Ray's headers, the ids in span, line and answer are theirs; what was not sampled is not."""
    with collecting(protocol) as collector:
        service = serve(**ALL, **OURS, **to(collector, protocol))
        xray = f"Self=1-67891234-0123456789abcdef01234567;Root=1-{TRACE_ID[:8]}-{TRACE_ID[8:]};Parent={SPAN_ID}"
        sent = [
            {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "vendor=x"},
            {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"},
            {"X-Amzn-Trace-Id": f"{xray};Sampled=1"},
            {"X-Amzn-Trace-Id": f"{xray};Sampled=0"},
        ]
        async with ClientSession() as session:
            for headers in sent:
                async with session.get(f"{service.url}/get/1", headers=headers) as answer:
                    answered = answer.headers
                version, trace_id, span_id, flags = answered["traceresponse"].split("-")
                assert (version, trace_id, answered["X-Request-Id"]) == ("00", TRACE_ID, TRACE_ID)
                headers["span_id"], headers["flags"] = span_id, flags
        assert await asyncio.to_thread(service.stop) == 0

    told, served = lines.requests(service.output), of_kind(collector, Span.SPAN_KIND_SERVER)
    assert [line["trace_id"] for line in told] == [TRACE_ID] * 4
    assert [line["span_id"] for line in told] == [headers["span_id"] for headers in sent]
    assert [line["sampled"] for line in told] == [True, False, True, False]
    assert [headers["flags"] for headers in sent] == ["01", "00", "01", "00"]
    assert [span.span_id.hex() for span in served] == [told[0]["span_id"], told[2]["span_id"]]
    assert [span.parent_span_id.hex() for span in served] == [SPAN_ID] * 2
    assert [span.trace_state for span in served] == ["vendor=x", ""]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}


@pytest.mark.parametrize(
    ("proxies", "told"),
    [("", {}), ("10.0.0.0/8", {}), ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"})],
    ids=["nobody is trusted", "others are trusted", "the caller is behind a trusted proxy"],
)
async def test_strangers_decide_nothing(serve: Start, proxies: str, told: dict[str, str]) -> None:
    """Where the caller is not ours, what it says of traces counts for nothing."""
    with collecting("http/protobuf") as collector:
        sampler = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        service = serve(**{**ALL, **sampler}, **to(collector, "http/protobuf"), TRUSTED_PROXIES=proxies)
        headers = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", **told}
        async with ClientSession() as session, session.get(f"{service.url}/get/1", headers=headers) as answer:
            assert "traceresponse" not in answer.headers
        assert await asyncio.to_thread(service.stop) == 0

    (line,) = lines.requests(service.output)
    assert line["trace_id"] != TRACE_ID
    assert not line["sampled"]
    assert collector.spans == []


async def test_errors_are_marked(serve: Start, owner: Owner) -> None:
    """A batch that timed out and the requests that it failed: errors both, with their types."""
    with collecting("http/protobuf") as collector:
        service = serve(**ALL, **to(collector, "http/protobuf"), DB_STATEMENT_SECONDS="0.2")
        async with ClientSession() as session, owner.transaction():
            await owner.execute("LOCK TABLE clients")
            async with session.get(f"{service.url}/get/1") as answer:
                assert answer.status == 504
        assert await asyncio.to_thread(service.stop) == 0

    (request,), (batch,) = of_kind(collector, Span.SPAN_KIND_SERVER), of_kind(collector, Span.SPAN_KIND_CLIENT)
    for span in (request, batch):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert attributes(span.attributes)[names.ERROR_TYPE] == "QueryTimedOut"
    assert attributes(batch.attributes)[names.DB_STATUS] == "57014"


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address where somebody listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def refusing(protocol: str) -> Iterator[str]:
    """A collector that always says no."""
    with collecting(protocol, refuses=True) as collector:
        yield collector.endpoint
        assert collector.asked


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("away", ["absent", "refusing", "black-holed"])
async def test_a_collector_that_is_away_costs_nothing(serve: Start, protocol: str, away: str) -> None:
    """Every request is traced, and none fails or waits for it; the service stops within its bound."""
    with {"absent": nobody, "refusing": lambda: refusing(protocol), "black-holed": black_hole}[away]() as endpoint:
        service = serve(**ALL, **to(Collector(endpoint), protocol), OTEL_BSP_SCHEDULE_DELAY="200")
        slowest = 0.0

        async def call(session: ClientSession) -> None:
            nonlocal slowest
            for _ in range(150):
                started = time.monotonic()
                async with session.get(f"{service.url}/get/1") as answer:
                    assert answer.status == 200
                slowest = max(slowest, time.monotonic() - started)

        async with ClientSession() as session:
            for _ in range(4):
                await asyncio.gather(*(call(session) for _ in range(8)))
                await asyncio.sleep(0.3)
        stopped = time.monotonic()
        assert await asyncio.to_thread(service.stop) == 0
        stop_seconds = time.monotonic() - stopped

    print(f"slowest {1000 * slowest:.0f} ms, stopped within {stop_seconds:.2f} s")
    assert slowest < 1
    assert stop_seconds < 4  # 2 for the last spans, and what it takes to end a process
    assert len(lines.requests(service.output)) == 4 * 8 * 150
    complaints = [line for line in lines.records(service.output) if line.get("event") == names.LIBRARY]
    assert len(complaints) < 20


@pytest.mark.parametrize("ratio", [0, 1e-9, 0.05, 0.5, 1])
def test_the_sampler_decides_as_the_sdks(ratio: float) -> None:
    """For the same trace id, so that services agree."""
    theirs = TraceIdRatioBased(ratio)
    ours = Sampler(ratio, is_parent_based=True)
    for _ in range(2000):
        trace_id = random.getrandbits(128)
        is_wanted = theirs.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE

        assert ours.should_sample(f"{trace_id:032x}") == is_wanted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": ""},
        {"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"},
        {"traceparent": f"00-{TRACE_ID}-{'0' * 16}-01"},
        {"traceparent": f"ff-{TRACE_ID}-{SPAN_ID}-01"},
        {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}"},
        {"traceparent": "\udcff" * 55},
        {"X-Amzn-Trace-Id": "Root=1-67891234-x"},
        {"X-Amzn-Trace-Id": f"Root=1-{'0' * 8}-{'0' * 24}"},
    ],
)
def test_what_cannot_be_understood_is_no_remote_parent(headers: dict[str, str]) -> None:
    """A header that is not what it should be is as none."""
    assert propagation.extract(CIMultiDict(headers)) is None


def test_a_span_is_what_the_sdk_would_send() -> None:
    """The same span, made by the SDK and encoded by it, and put together from our pieces."""
    trace_id, span_id, parent_id = "0" * 31 + "1", "0" * 15 + "2", SPAN_ID
    context, parent = (
        SpanContext(int(trace_id, 16), int(number, 16), is_remote=is_remote, trace_flags=TraceFlags(1))
        for number, is_remote in ((span_id, False), (parent_id, True))
    )
    known: tuple[tuple[str, str | int], ...] = (("http.route", "/get/{id}"), ("http.response.status_code", 200))
    long = "x" * 300
    theirs = encode_spans(
        [
            ReadableSpan(
                name="GET /get/{id}",
                context=context,
                parent=parent,
                attributes={**dict(known), "url.path": long, "seconds": 0.25},
                links=[Link(SpanContext(int(TRACE_ID, 16), 7, is_remote=False, trace_flags=TraceFlags(1)))],
                kind=SpanKind.SERVER,
                start_time=1_700_000_000_000_000_000,
                end_time=1_700_000_000_500_000_000,
            )
        ]
    )
    ours = ScopeSpans.FromString(
        spans.join(
            [
                spans.common("GET /get/{id}", Span.SPAN_KIND_SERVER, known, is_remote=True),
                spans.identity(trace_id, span_id, parent_id, 1_700_000_000.5, 0.5),
                spans.attribute("url.path", long),
                spans.duration("seconds", 0.25),
                spans.link(TRACE_ID, "0" * 15 + "7"),
            ]
        )
    )
    (expected,) = theirs.resource_spans[0].scope_spans[0].spans
    (found,) = ours.spans

    assert found.flags == expected.flags | TraceFlags.SAMPLED  # which OTLP has a place for, and the SDK leaves out
    found.flags = expected.flags
    found.links[0].flags = expected.links[0].flags
    expected.ClearField("status")  # UNSET, said or not
    assert found == expected
