"""The service's wall clock jumps."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.receivers import Collector
from ops.drills.stage import Stage
from ops.drills.timeline import SERVED
from svc.logs import names

_HOUR_SECONDS: Final = 3600.0
_ROLLOVER: Final = 2.0**31  # in January 2038, seconds since 1970 outgrow 32 bits
_CROSSED_SECONDS: Final = 2.0
_DEARER_MOST: Final = 1.5  # a loop that no longer waits would be dearer by far
_TOLD_SECONDS: Final = 3.0  # lines, metrics and spans are told each second, and a busy machine is slower
_LATENCY_SECONDS: Final = 0.005  # of the database's network, so that each jump finds requests under way
_WARM_SECONDS: Final = 3.0  # until all connections to the database are made, at that latency
_NOISE_SECONDS: Final = (
    0.2  # what is below that doubles by chance; a time-out that took the wall clock would be seconds
)
_SAMPLES: Final = (names.LATENCY, names.QUEUE_WAIT, names.ROUND_TRIP, names.EVENT_LOOP_LAG)
_DURATIONS: Final = (names.DURATION_MS, names.DATABASE_MS, names.QUEUE_MS)


def _library() -> str:
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")


def _lacks() -> str:
    return "" if _library() else "libfaketime is not installed"


@drill("clock-jumps", "the service's wall clock jumps an hour, to 1970 and over the end of 32 bits in 2038", _lacks)
async def jump(stage: Stage) -> None:
    """No answer, no wait, no duration and no appetite may depend on it. PostgreSQL keeps the true time."""
    seen_seconds = stage.pick(8, 2.2)  # what stands in for the clock looks only each second whether it has to jump
    clock = (stage.folder / "clock").resolve()
    clock.write_text("+0")
    jumps = (_HOUR_SECONDS, -_HOUR_SECONDS, -time.time(), _ROLLOVER - _CROSSED_SECONDS - time.time(), 0.0)
    async with (
        Collector().running() as collector,
        stage.served(
            WORKERS="1",  # libfaketime has Python's time.sleep fail, with which a worker among several begins
            LD_PRELOAD=_library(),
            FAKETIME_TIMESTAMP_FILE=str(clock),
            FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            METRICS_INTERVAL="1",
            OTEL_BSP_SCHEDULE_DELAY="1000",
            OTEL_TRACES_SAMPLER_ARG="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        ) as service,
    ):
        stage.to_database.latency_seconds = _LATENCY_SECONDS
        async with stage.calling():
            await asyncio.sleep(_WARM_SECONDS)
            calm = _Reading(stage, service)
            await asyncio.sleep(stage.pick(10, 2))
            calm.end()
            wild = _Reading(stage, service)
            for offset_seconds in jumps:
                stage.timeline.mark(f"the clock goes to {offset_seconds:+.0f} s")
                clock.write_text(f"{offset_seconds:+.3f}")
                await asyncio.sleep(seen_seconds)
            wild.end()
        await asyncio.sleep(_TOLD_SECONDS)
    lines = [orjson.loads(line) for line in (stage.folder / "service-0.log").read_bytes().splitlines()]
    requests = [line for line in lines if line.get(names.EVENT) == names.REQUEST]
    durations = list(_durations_ms(lines))
    longest_ms = 1000 * stage.timeline.longest()
    stage.claim("requests not served", sum(seen.kind != SERVED for seen in stage.timeline.seen), most=0)
    stage.claim("p99 while the clock jumps", wild.p99, most=max(2 * calm.p99, _NOISE_SECONDS), unit="s")
    stage.claim("CPU per request, of what it was", wild.cost / calm.cost, most=_DEARER_MOST)
    stage.claim_least("clocks that lines have", len({_clock(line) for line in requests}), least=len(set(jumps)))
    stage.claim("requests without a line", len(stage.timeline.seen) - len(requests), most=0)
    stage.claim("durations of less than nothing", sum(each < 0 for each in durations), most=0)
    stage.claim("requests longer than anyone waited", sum(r[names.DURATION_MS] > longest_ms for r in requests), most=0)
    stage.claim("requests without a span", len(stage.timeline.seen) - collector.requests, most=0)
    stage.claim("spans that end before they begin", collector.backwards, most=0)


class _Reading:
    """What requests cost and how long they took, from now to end()."""

    def __init__(self, stage: Stage, service: Service) -> None:
        self._stage = stage
        self._service = service
        self._began = stage.timeline.now()
        self._cpu_began = _cpu_seconds(service)

    def end(self) -> None:
        """Ends it, and has the p99 and the CPU that a request cost, both in seconds."""
        timeline, now = self._stage.timeline, self._stage.timeline.now()
        self.p99 = timeline.percentile(99, self._began, now)
        self.cost = (_cpu_seconds(self._service) - self._cpu_began) / timeline.count(SERVED, self._began, now)


def _cpu_seconds(service: Service) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return float(times.user + times.system)


def _durations_ms(lines: Iterable[dict[str, Any]]) -> Iterator[float]:
    """All that lines and metrics say of how long something took."""
    for line in lines:
        yield from (line[name] for name in _DURATIONS if name in line)
        for name in _SAMPLES:
            yield from line.get(name, ())


def _clock(line: dict[str, Any]) -> int:
    """By which clock a line was written: half hours from the true time, of which a drill takes but minutes."""
    written = datetime.fromisoformat(line[names.TIMESTAMP]).timestamp()
    return round((written - time.time()) / (_HOUR_SECONDS / 2))
