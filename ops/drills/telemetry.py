"""The receivers of logs and traces stall, or stop."""

import asyncio
from math import inf
from typing import Final

from ops.common.collector import Collector
from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.proxy import FaultProxy
from ops.drills.receivers import log_reader
from svc.logs.writer import MAX_QUEUED_BYTES, RESERVED_BYTES

# A flood fills the 8 MB of both workers in seconds: each of its lines has about 600 bytes. Chance decides which worker
# accepts how many of its connections, so there are more than two workers need.
_FLOOD_CONNECTIONS: Final = 16
_FLOOD_REQUESTS: Final = 3_200  # per connection
_FLOOD_AT_ONCE: Final = 16  # a connection may have 32 waiting
_FLOOD_REQUEST: Final = b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %b\r\n\r\n" % (b"x" * 128)

_FLUSH_SECONDS: Final = 3.0  # metrics are flushed every second; a busy machine is slower
_EXPORT_SECONDS: Final = 15.0  # an export in progress times out after 10 s, and the next starts within 1 s
_NOISE_SECONDS: Final = 0.1  # smaller values may double by chance; a worker that waits for a reader takes seconds
_SPANS_BYTES: Final = 2048 * 1024  # OpenTelemetry's queue: 2048 spans of less than 1 KB each
_OTHER_BYTES: Final = 10 * 2**20  # unused space in buffers, samples of metrics, and what the allocator keeps
_MAX_GROWTH_BYTES: Final = MAX_QUEUED_BYTES + RESERVED_BYTES + _SPANS_BYTES + _OTHER_BYTES


@drill("telemetry-stalled", "the reader of the logs and the collector of the traces stall, and then stop")
async def stall(harness: Harness) -> None:
    """Callers must not notice. Memory is limited, dropped lines are counted, and telemetry recovers afterwards."""
    async with (
        log_reader() as reader,
        Collector().running() as collector,
        FaultProxy(collector.port).running() as collector_proxy,
    ):
        settings = {
            "LOG_LINES_PER_SECOND": "0",
            "METRICS_INTERVAL": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "1000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_proxy.port}",
        }
        async with harness.service(stdout=reader.stdout, **settings) as service:
            flooded = await _flood(service)  # a process allocates some memory only once
            async with harness.callers():
                await asyncio.sleep(1)
                calm = harness.timeline.now()
                await asyncio.sleep(harness.pick(10, 3))
                before_bytes = service.memory()
                stalled = harness.timeline.mark("the log's reader and the collector's network stall")
                reader.pause()
                collector_proxy.black_hole()
                flooded += await _flood(service)
                full = harness.timeline.mark("8 MB of lines are queued in each worker")
                await asyncio.sleep(harness.pick(40, 3))
                after_bytes = service.memory()
                healed = harness.timeline.mark("both recover")
                reader.resume()
                collector_proxy.heal()
                recovery_seconds = await _until_spans(harness, collector)
            await asyncio.sleep(_FLUSH_SECONDS)
            dropped = reader.dropped
            unaccounted = len(harness.timeline.requests) + flooded - reader.requests - dropped
            harness.timeline.mark("both stop")
            reader.close()
            collector_proxy.target = free_port()
            collector_proxy.reset()
            async with harness.callers():
                await asyncio.sleep(1)
                stopped = harness.timeline.now()
                await asyncio.sleep(harness.pick(20, 3))
            last_bytes = service.memory()
    usual = harness.timeline.percentile(99, calm, stalled)
    limit = max(2 * usual, harness.on_any_machine(_NOISE_SECONDS))
    growths = [
        now - before
        for bytes_now in (after_bytes, last_bytes)
        for now, before in zip(bytes_now, before_bytes, strict=True)
    ]
    harness.claim("requests not served", harness.timeline.not_served(), at_most=0)
    harness.claim("p99 while both stall", harness.timeline.percentile(99, full, healed), at_most=limit, unit="s")
    harness.claim("p99 after both stop", harness.timeline.percentile(99, stopped, inf), at_most=limit, unit="s")
    harness.claim("memory growth of a worker", max(growths) / 2**20, at_most=_MAX_GROWTH_BYTES / 2**20, unit="MB")
    harness.claim("dropped lines", dropped, at_least=1)
    harness.claim("requests neither logged nor counted as dropped", unaccounted, at_most=0)
    harness.claim("until spans arrive again", recovery_seconds, at_most=_EXPORT_SECONDS, unit="s")


async def _until_spans(harness: Harness, collector: Collector) -> float:
    """Returns the seconds until the collector receives spans, or infinity if it receives none in time."""
    started, before = harness.timeline.now(), collector.spans
    while collector.spans == before:
        if harness.timeline.now() - started > _EXPORT_SECONDS:
            return inf
        await asyncio.sleep(0.1)
    return harness.timeline.now() - started


async def _flood(service: Service) -> int:
    """Sends many requests for a missing page in a few seconds. Returns their number."""
    await asyncio.gather(*(_pipeline(service.port) for _ in range(_FLOOD_CONNECTIONS)))
    return _FLOOD_CONNECTIONS * _FLOOD_REQUESTS


async def _pipeline(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(0, _FLOOD_REQUESTS, _FLOOD_AT_ONCE):
        writer.write(_FLOOD_REQUEST * _FLOOD_AT_ONCE)
        for _ in range(_FLOOD_AT_ONCE):
            await reader.readuntil(b"\r\n\r\n")  # a response to HEAD has no body
    writer.close()
