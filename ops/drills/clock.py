"""The service's wall clock jumps."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from ops.common.collector import Collector
from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.timeline import SERVED
from svc.logs import names

_HOUR_SECONDS: Final = 3600.0
_ROLLOVER: Final = 2.0**31  # in January 2038, seconds since 1970 exceed 32 bits
_BEFORE_ROLLOVER_SECONDS: Final = 2.0
_FLUSH_SECONDS: Final = 3.0  # lines, metrics and spans are flushed every second; a busy machine is slower
_LATENCY_SECONDS: Final = 0.005  # of the database's network, so that each jump finds requests in progress
_WARM_UP_SECONDS: Final = 3.0  # until all connections to the database are open, at that latency
_NOISE_SECONDS: Final = 0.2  # smaller values may double by chance
_SAMPLES: Final = (names.LATENCY, names.QUEUE_WAIT, names.ROUND_TRIP, names.EVENT_LOOP_LAG)
_DURATIONS: Final = (names.DURATION_MS, names.DATABASE_MS, names.QUEUE_MS)


def _library() -> str:
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")


def _missing() -> str:
    return "" if _library() else "libfaketime is not installed"


@drill("clock-jumps", "the service's wall clock jumps an hour, to 1970 and past the end of 32 bits in 2038", _missing)
async def jump(harness: Harness) -> None:
    """No response, wait, duration or CPU use may depend on the wall clock. PostgreSQL keeps the real time.

    A wait or a time-out by the wall clock would take seconds, and a loop that no longer waits many times the CPU.
    """
    jump_seconds = harness.pick(8, 2.2)  # libfaketime reads the new time once per second
    clock = (harness.folder / "clock").resolve()
    clock.write_text("+0")
    jumps = (_HOUR_SECONDS, -_HOUR_SECONDS, -time.time(), _ROLLOVER - _BEFORE_ROLLOVER_SECONDS - time.time(), 0.0)
    async with (
        Collector().running() as collector,
        harness.service(
            WORKERS="1",  # with several workers, each starts with time.sleep, which fails under libfaketime
            LD_PRELOAD=_library(),
            FAKETIME_TIMESTAMP_FILE=str(clock),
            FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            METRICS_INTERVAL="1",
            OTEL_BSP_SCHEDULE_DELAY="1000",
            LOG_LINES_PER_SECOND="0",
            OTEL_TRACES_SAMPLER_ARG="1",
            TRACES_PER_SECOND="0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        ) as service,
    ):
        harness.database_proxy.latency_seconds = _LATENCY_SECONDS
        async with harness.callers():
            await asyncio.sleep(_WARM_UP_SECONDS)
            calm = _Measurement(harness, service)
            await asyncio.sleep(harness.pick(10, 2))
            calm.end()
            jumping = _Measurement(harness, service)
            for offset_seconds in jumps:
                harness.timeline.mark(f"the clock is set to {offset_seconds:+.0f} s")
                clock.write_text(f"{offset_seconds:+.3f}")
                await asyncio.sleep(jump_seconds)
            jumping.end()
        await asyncio.sleep(_FLUSH_SECONDS)
    lines = [orjson.loads(line) for line in (harness.folder / "service-0.log").read_bytes().splitlines()]
    requests = [line for line in lines if line.get(names.EVENT) == names.REQUEST]
    durations = list(_durations_ms(lines))
    longest_ms = 1000 * harness.timeline.longest_wait()
    sent = len(harness.timeline.requests)
    harness.claim("requests not served", harness.timeline.not_served(), at_most=0)
    limit = max(2 * calm.p99, harness.on_any_machine(_NOISE_SECONDS))
    harness.claim("p99 while the clock jumps", jumping.p99, at_most=limit, unit="s")
    harness.claim("CPU per request, relative to before", jumping.cost / calm.cost, at_most=harness.pick(1.5, 3))
    harness.claim("different clocks in log lines", len({_clock(line) for line in requests}), at_least=len(set(jumps)))
    harness.claim("requests without a log line", sent - len(requests), at_most=0)
    harness.claim("negative durations", sum(each < 0 for each in durations), at_most=0)
    harness.claim(
        "requests logged as longer than any wait", sum(r[names.DURATION_MS] > longest_ms for r in requests), at_most=0
    )
    harness.claim("requests without a span", sent - collector.requests, at_most=0)
    harness.claim("spans that end before they start", collector.backwards, at_most=0)


class _Measurement:
    """Measures the latency and the CPU of requests, from now until end()."""

    def __init__(self, harness: Harness, service: Service) -> None:
        self._harness = harness
        self._service = service
        self._started = harness.timeline.now()
        self._cpu_started = _cpu_seconds(service)

    def end(self) -> None:
        """Computes the p99 and the CPU per request, both in seconds."""
        timeline, now = self._harness.timeline, self._harness.timeline.now()
        self.p99 = timeline.percentile(99, self._started, now)
        self.cost = (_cpu_seconds(self._service) - self._cpu_started) / timeline.count(SERVED, self._started, now)


def _cpu_seconds(service: Service) -> float:
    times = psutil.Process(service.process.pid).cpu_times()
    return float(times.user + times.system)


def _durations_ms(lines: Iterable[dict[str, Any]]) -> Iterator[float]:
    """Yields every duration in the lines, and the shortest ones of their metrics."""
    for line in lines:
        yield from (line[name] for name in _DURATIONS if name in line)
        for name in _SAMPLES:
            if name in line:
                yield line[name]["Min"]


def _clock(line: dict[str, Any]) -> int:
    """Returns the offset of the line's clock in half hours. A drill takes only minutes."""
    written = datetime.fromisoformat(line[names.TIMESTAMP]).timestamp()
    return round((written - time.time()) / (_HOUR_SECONDS / 2))
