"""Whoever takes the logs and the traces stalls, or is gone."""

import asyncio
from math import inf
from typing import Final

from ops.common.ports import free_port
from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.proxy import FaultProxy
from ops.drills.receivers import Collector, reading
from ops.drills.stage import Stage
from ops.drills.timeline import SERVED
from svc.logs.writer import MAX_QUEUED_BYTES, RESERVED_BYTES

# A flood fills both workers' 8 MB in seconds: its lines have some 600 bytes. Who gets how many of its connections is
# chance, so there are some more.
_FLOOD_CONNECTIONS: Final = 16
_FLOOD_REQUESTS: Final = 3_200  # of each connection
_FLOOD_AT_ONCE: Final = 16  # a connection may have 32 waiting
_FLOOD_REQUEST: Final = b"HEAD /nothing HTTP/1.1\r\nHost: drill\r\nX-Request-Id: %b\r\n\r\n" % (b"x" * 128)

_TOLD_SECONDS: Final = 3.0  # metrics are told each second, and a busy machine is slower
_COLLECTED_SECONDS: Final = 15.0  # an export under way is given up after 10 s, and the next begins within 1 s
_NOISE_SECONDS: Final = 0.1  # what is below that doubles by chance; a worker that waits for a reader takes seconds
_SPANS_BYTES: Final = 2048 * 1024  # OpenTelemetry's queue: so many, of less than 1 KB each
_ELSE_BYTES: Final = 6 * 2**20  # spare room at the buffers' ends, samples of metrics, and what the allocator keeps
_GROWTH_MOST_BYTES: Final = MAX_QUEUED_BYTES + RESERVED_BYTES + _SPANS_BYTES + _ELSE_BYTES


@drill("telemetry-stalled", "the reader of the logs and the collector of the traces stall, and then are gone")
async def stall(stage: Stage) -> None:
    """Callers may notice nothing; memory is bounded; what is lost is counted; afterwards all is told again."""
    async with (
        reading() as reader,
        Collector().running() as collector,
        FaultProxy(collector.port).running() as to_collector,
    ):
        settings = {
            "METRICS_INTERVAL": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "1000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{to_collector.port}",
        }
        async with stage.served(stdout=reader.stdout, **settings) as service:
            flooded = await _flood(service)  # the first, for what a process takes once
            async with stage.calling():
                await asyncio.sleep(1)
                calm = stage.timeline.now()
                await asyncio.sleep(stage.pick(10, 3))
                before_bytes = service.memory()
                stalled = stage.timeline.mark(
                    "the log's reader stalls, and the collector's network swallows everything"
                )
                reader.stall()
                to_collector.black_hole()
                flooded += await _flood(service)
                full = stage.timeline.mark("8 MB of lines wait in each worker")
                await asyncio.sleep(stage.pick(40, 3))
                after_bytes = service.memory()
                healed = stage.timeline.mark("both go on")
                reader.go_on()
                to_collector.heal()
                again = await _spans_again(stage, collector)
            await asyncio.sleep(_TOLD_SECONDS)
            dropped = reader.dropped
            untold = len(stage.timeline.seen) + flooded - reader.requests - dropped
            stage.timeline.mark("both are gone")
            reader.leave()
            to_collector.target = free_port()
            to_collector.reset()
            async with stage.calling():
                await asyncio.sleep(1)
                gone = stage.timeline.now()
                await asyncio.sleep(stage.pick(20, 3))
            last_bytes = service.memory()
    bound = max(2 * stage.timeline.percentile(99, calm, stalled), _NOISE_SECONDS)
    growths = [
        now - before
        for bytes_now in (after_bytes, last_bytes)
        for now, before in zip(bytes_now, before_bytes, strict=True)
    ]
    stage.claim("requests not served", sum(seen.kind != SERVED for seen in stage.timeline.seen), most=0)
    stage.claim("p99 while both stall", stage.timeline.percentile(99, full, healed), most=bound, unit="s")
    stage.claim("p99 while both are gone", stage.timeline.percentile(99, gone, inf), most=bound, unit="s")
    stage.claim("what a worker's memory grew by", max(growths) / 2**20, most=_GROWTH_MOST_BYTES / 2**20, unit="MB")
    stage.claim_least("lines that were dropped", dropped, least=1)
    stage.claim("requests that were neither told of nor counted as dropped", untold, most=0)
    stage.claim("until spans arrive again", again, most=_COLLECTED_SECONDS, unit="s")


async def _spans_again(stage: Stage, collector: Collector) -> float:
    """Seconds until the collector is sent spans; infinite where it is sent none for long."""
    healed, had = stage.timeline.now(), collector.spans
    while collector.spans == had:
        if stage.timeline.now() - healed > _COLLECTED_SECONDS:
            return inf
        await asyncio.sleep(0.1)
    return stage.timeline.now() - healed


async def _flood(service: Service) -> int:
    """Many requests in a few seconds, for nothing that is there; how many they were."""
    await asyncio.gather(*(_pour(service.port) for _ in range(_FLOOD_CONNECTIONS)))
    return _FLOOD_CONNECTIONS * _FLOOD_REQUESTS


async def _pour(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(0, _FLOOD_REQUESTS, _FLOOD_AT_ONCE):
        writer.write(_FLOOD_REQUEST * _FLOOD_AT_ONCE)
        for _ in range(_FLOOD_AT_ONCE):
            await reader.readuntil(b"\r\n\r\n")  # an answer to HEAD ends with its head
    writer.close()
