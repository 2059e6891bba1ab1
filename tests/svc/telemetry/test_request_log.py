"""Which requests of a real service have a line and a trace, and what their times mean."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from math import log as ln
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import ClientSession
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from svc.logs import names
from svc.telemetry.metrics import Metrics
from svc.telemetry.record import SLOW_SECONDS, RequestRecord
from svc.telemetry.request_log import RequestLog
from svc.telemetry.sampling import TraceSampler
from svc.telemetry.settings import TraceSettings
from svc.telemetry.traces import Traces
from tests.conftest import Log, Owner
from tests.patience import wait_until
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import attributes, collecting

Start = Callable[..., Service]

REQUESTS = 400
PAUSE_SECONDS = 0.5


async def test_failed_and_slow_requests_have_lines_and_traces_and_the_others_some(serve: Start, owner: Owner) -> None:
    """Each failed and slow request has its line and its trace; weights add up to the exact counts of the metrics."""
    trace_ids: list[str] = []
    with collecting("http/protobuf") as collector:
        service = serve(
            LOG_FORMAT="json",
            LOG_LINES_PER_SECOND="1.5",
            TRACES_PER_SECOND="0.1",
            OTEL_TRACES_SAMPLER_ARG="0.5",
            DRAIN_SECONDS="0",
            **collector.variables,
        )
        async with ClientSession() as session:

            async def get(path: str) -> int:
                async with session.get(service.url + path) as response:
                    trace_ids.append(response.headers["X-Request-Id"])
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
        # Spans are exported in their order.
        await wait_until(lambda: trace_ids[-1] in {span.trace_id.hex() for span in collector.spans})
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
    assert len(logged) - len(slow_lines) < REQUESTS  # of twice as many
    for line in failed + slow_lines:
        assert line["sampled"]
    served = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {span.span_id.hex() for span in served} >= {lines.span_id(line) for line in logged if line["sampled"]}
    assert len(served) < 30 + len(slow_lines)


@pytest.mark.parametrize("seconds", [SLOW_SECONDS / 10, SLOW_SECONDS * 10])
async def test_a_flood_has_the_lines_and_traces_of_its_budget(log: Log, seconds: float) -> None:
    """So has one of slow requests, as where a caller with thousands of connections waits for its turns."""
    lines_per_second, flood_seconds, requests = 2.0, 5.0, 10_000
    metrics = Metrics(None, {})
    settings = TraceSettings(ratio=1.0, per_second=lines_per_second)
    traced: list[RequestRecord] = []
    request_log = RequestLog(
        lines_per_second, metrics, TraceSampler(settings), cast(Traces, SimpleNamespace(add_request=traced.append))
    )
    started = time.perf_counter() - flood_seconds
    for number in range(requests):
        request_log.add(ended(started + number / requests * flood_seconds, seconds))
    request_log.close()

    logged = log.read()
    assert sum(line[names.SAMPLE_WEIGHT] for line in logged) == requests
    assert metrics.latencies_ms["/get/{id}", "GET", 200].count == requests
    # Slow requests have ten times the budget of others. The rate is known only after a while: of a flood after a quiet
    # time, ten seconds' budget has lines, and then fewer and fewer.
    budget = lines_per_second * (10 if seconds > SLOW_SECONDS else 1)
    burst = 10 * budget
    assert budget * flood_seconds < len(logged) < 1.2 * burst * (1 + ln(requests / burst))
    assert 1 < len(traced) < len(logged) * 5


def ended(at: float, seconds: float) -> RequestRecord:
    """A successful get that ended."""
    fields: dict[str, Any] = {
        **dict.fromkeys(("database_seconds", "queue_seconds", "slot_seconds", "stream_seconds"), 0.0),
        **dict.fromkeys(("remote_parent", "error")),
        **dict.fromkeys(("batch_size", "body_bytes"), 1),
    }
    name = {"route": "/get/{id}", "method": "GET", "status": 200, "client": "127.0.0.1", "caller": ""}
    trace_id = f"{random.getrandbits(128):032x}"
    identity = {"trace_id": trace_id, "id": trace_id, "is_sampled": False, "ended": at, "ended_at": 0.0}
    return cast(RequestRecord, SimpleNamespace(seconds=seconds, **fields, **name, **identity))


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
                **collector.variables,
            )
            async with ClientSession() as session:
                for path in ("/get/1", "/get/x"):
                    async with session.get(service.url + path):
                        pass
            await collector.wait_for(expected)
            assert await asyncio.to_thread(service.stop) == 0

        assert len(collector.spans) == expected
        assert [attributes(span.attributes)[names.HTTP_STATUS] for span in collector.spans] == [400] * expected
