"""Which requests of a real service have a line and a trace, and what their times mean."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ops.common.process import Service
from svc.logs import names
from svc.telemetry.record import SLOW_SECONDS
from tests.conftest import Owner
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import attributes, collecting

Start = Callable[..., Service]

REQUESTS = 400
PAUSE_SECONDS = 0.5


async def test_failed_and_slow_requests_have_lines_and_traces_and_the_others_some(serve: Start, owner: Owner) -> None:
    """Each failed and slow request has its line and its trace; weights add up to the exact counts of the metrics."""
    with collecting("http/protobuf") as collector:
        service = serve(
            LOG_FORMAT="json",
            LOG_LINES_PER_SECOND="1.5",
            TRACES_PER_SECOND="0.1",
            OTEL_TRACES_SAMPLER_ARG="0.5",
            DRAIN_SECONDS="0",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
        async with ClientSession() as session:

            async def get(path: str) -> int:
                async with session.get(service.url + path) as response:
                    return response.status

            for number in range(REQUESTS):
                assert await get("/get/1") == 200
                assert await get(f"/unknown/{number}") == 404
                if number % 40 == 0:
                    assert await get("/get/x") == 400
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients")
                slow = asyncio.create_task(get("/get/2"))
                await asyncio.sleep(2 * SLOW_SECONDS)
            assert await slow == 200
        assert await asyncio.to_thread(service.stop) == 0

    logged, documents = lines.requests(service.output), lines.documents(service.output)
    weights = Counter[tuple[str, str, str]]()
    for line in logged:
        weights[line["route"], line["method"], f"{line['status'] // 100}xx"] += line[names.SAMPLE_WEIGHT]
    assert weights == lines.counts(documents)
    failed = [line for line in logged if line["status"] == 400]
    slow_lines = [line for line in logged if line["duration_ms"] > SLOW_SECONDS * 1000]
    assert len(failed) == REQUESTS / 40
    assert len(slow_lines) >= 1
    assert len(logged) < REQUESTS  # of twice as many
    for line in failed + slow_lines:
        assert line["sampled"]
    served = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {span.span_id.hex() for span in served} >= {lines.span_id(line) for line in logged if line["sampled"]}
    assert len(served) < 30 + len(slow_lines)


async def test_a_line_has_the_id_that_the_caller_sees_once(serve: Start) -> None:
    """Without an ID of the caller's own, the trace's ID is the X-Request-Id; otherwise the line has both."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    seen = []
    async with ClientSession() as session:
        for headers in ({}, {"X-Request-Id": "of-the-caller"}):
            async with session.get(f"{service.url}/get/1", headers=headers) as response:
                seen.append(response.headers["X-Request-Id"])
    service.stop()

    without, with_own = lines.requests(service.output)
    assert seen == [without[names.TRACE_ID], with_own[names.REQUEST_ID]]
    assert names.REQUEST_ID not in without


async def test_a_streamed_list_counts_to_its_first_byte(serve: Start, owner: Owner) -> None:
    """A caller who reads slowly is not our latency, and no work for the list after its start is part of it."""
    await owner.execute("INSERT INTO clients (name, money) SELECT repeat('x', 100), 1 FROM generate_series(1, 100000)")
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    async with ClientSession() as session, session.get(f"{service.url}/getall") as response:
        await response.content.readany()
        await asyncio.sleep(PAUSE_SECONDS)
        await response.read()
    service.stop()

    (line,) = lines.requests(service.output)
    (latency,) = [value for each in lines.documents(service.output) for value in lines.values(each, names.LATENCY)]
    assert line[names.STREAM_MS] >= PAUSE_SECONDS * 1000
    assert line["duration_ms"] == pytest.approx(latency, abs=0.001)
    assert line["database_ms"] <= line["duration_ms"]
    assert line["batch_size"] == 1


async def test_traces_of_failures_follow_the_sampler(serve: Start) -> None:
    """With always_off nothing is recorded, not even a failure; with a tiny ratio failures still are."""
    for sampler, expected in (("always_off", 0), ("traceidratio", 1)):
        with collecting("http/protobuf") as collector:
            service = serve(
                LOG_FORMAT="json",
                DRAIN_SECONDS="0",
                OTEL_TRACES_SAMPLER=sampler,
                OTEL_TRACES_SAMPLER_ARG="1e-9",
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            )
            async with ClientSession() as session:
                for path in ("/get/1", "/get/x"):
                    async with session.get(service.url + path):
                        pass
            assert await asyncio.to_thread(service.stop) == 0

        assert len(collector.spans) == expected
        assert [attributes(span.attributes)[names.HTTP_STATUS] for span in collector.spans] == [400] * expected
