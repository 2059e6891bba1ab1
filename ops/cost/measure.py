"""Measures the telemetry and the CPU time of a worker under a steady load, on this machine only."""

import asyncio
import contextlib
import gzip
import math
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from ops.common import cpu
from ops.common.collector import Collector
from ops.common.ports import free_port
from ops.common.process import Service
from ops.cost import load
from ops.cost.deployment import MANIFESTS, PRICES, probes
from ops.cost.model import Design, Sample
from svc.logs import names
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from svc.telemetry.record import SLOW_SECONDS

_READY_SECONDS: Final = 60.0
_POD: Final = {"POD": "clients-api-7d4b9c6f5d-x2x4q", "NODE": "ip-10-0-12-34.ec2.internal", "CLUSTER": "olimac"}
_OF_THE_CLUSTER: Final = (
    "DB_SSL",
    "TRUSTED_PROXIES",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)  # settings that a run replaces or leaves out


@dataclass(frozen=True)
class Plan:
    """The load.

    Attributes:
        rates: requests per second, in turn.
        warm_up_seconds: before each run. A burst after a quiet time has more lines and traces than a steady load.
        seconds: the length of a run.
        failed: the share of requests that are not valid.
        slow: the share of requests that wait for longer than 100 ms, while something else locks the table.
    """

    rates: Sequence[float]
    warm_up_seconds: float
    seconds: float
    failed: float
    slow: float


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: of the design.
        module: that serves, for `python -m`.
        settings: its environment.
        metadata_bytes: that Fluent Bit adds to each line.
        probes: paths that are requested once before the load.
        max_rate: in requests per second, above which it writes the same for each.
    """

    name: str
    module: Sequence[str]
    settings: Mapping[str, str]
    metadata_bytes: int
    probes: Sequence[str] = ()
    max_rate: float = math.inf


def subjects() -> list[Subject]:
    """The service of this checkout as it is deployed, and the peer with off-the-shelf telemetry."""
    lines = (MANIFESTS / "base/settings.env").read_text().splitlines()
    shipped = dict(line.split("=", 1) for line in lines if line and not line.startswith(("#", *_OF_THE_CLUSTER)))
    settings = {**shipped, **_POD, "DRAIN_SECONDS": "0"}
    unbuffered = {"AWS_EMF_ENVIRONMENT": "local", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": ""}
    peer = ("ops.bench.peers.aiohttp_telemetry",)
    return [
        Subject("this", ("svc", "serve"), settings, 0, probes()),  # Fluent Bit ships its lines as they are
        Subject("off-the-shelf", peer, unbuffered, PRICES["assumed"]["metadata_bytes"], max_rate=100),
    ]


async def measure(subject: Subject, plan: Plan, folder: Path) -> Design:
    """Runs the subject once for each rate, on a PostgreSQL of its own in the folder."""
    port = free_port()
    server = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    try:
        await maintenance.migrate(server.dsn())
        await maintenance.seed(server.dsn())
        rates = [rate for rate in plan.rates if rate <= subject.max_rate]
        runs = [await _run(subject, plan, rate, server, port) for rate in rates]
    finally:
        server.stop()
    written = b"".join(line for _, lines, _ in runs for line in lines)
    traffic = runs[-1][2]
    return Design(
        name=subject.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        failed=traffic.failed / traffic.requests,
        slow=traffic.slow / traffic.requests,
        metadata_bytes=subject.metadata_bytes,
        series=max(series(lines) for _, lines, _ in runs),
        compressed=len(gzip.compress(written, 6)) / len(written),  # as CloudWatch stores them
        samples=[sample for sample, _, _ in runs],
    )


async def _run(
    subject: Subject, plan: Plan, rate: float, server: EmbeddedPostgres, port: int
) -> tuple[Sample, list[bytes], load.Traffic]:
    assert server.process is not None
    async with Collector().running() as collector, _serving(subject, port, collector) as (service, url):
        await load.run(url, rate, plan.warm_up_seconds, plan.failed)
        pids, start = (service.process.pid, server.process.pid), len(service.output)
        exported = len(collector.traces), collector.bytes
        meter = cpu.Meter(*pids)
        before = meter.read()
        async with _lock_once(server.dsn(), plan):
            traffic = await load.run(url, rate, plan.seconds, plan.failed)
        used = [now - earlier for now, earlier in zip(meter.read(), before, strict=True)]
        await asyncio.to_thread(service.stop)
        lines, documents = parted(service.output[start:].encode())
    counts = {
        "rate": traffic.requests,
        "lines": len(lines),
        "line_bytes": sum(map(len, lines)),
        "metric_bytes": sum(map(len, documents)),
        "traces": len(collector.traces) - exported[0],
        "trace_bytes": collector.bytes - exported[1],
        "service_cpus": used[0],
        "postgres_cpus": used[1],
        "request_bytes": traffic.request_bytes,
        "response_bytes": traffic.response_bytes,
    }
    return Sample(**{name: count / plan.seconds for name, count in counts.items()}), lines + documents, traffic


@contextlib.asynccontextmanager
async def _serving(subject: Subject, database: int, collector: Collector) -> AsyncIterator[tuple[Service, str]]:
    """Starts the subject, and gives it with its URL once it responds."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database),
        "PGUSER": "postgres",
        "PGSSLMODE": "disable",
        "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{database}/postgres?sslmode=disable",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "PORT": str(port),
    }
    service = Service({**subject.settings, **environment}, module=subject.module)
    try:
        for path in ("/get/1", *subject.probes):
            await asyncio.to_thread(_request, service, url + path)
        yield service, url
    finally:
        await asyncio.to_thread(service.end)


def _request(service: Service, url: str) -> None:
    """Requests it until it responds."""
    end = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http, on loopback
                return
        except OSError:  # an error status, too
            if service.process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextlib.asynccontextmanager
async def _lock_once(dsn: str, plan: Plan) -> AsyncIterator[None]:
    """Deletes what the run before added, and locks the table once, in the middle of the run."""
    connection = await asyncpg.connect(dsn)

    async def lock() -> None:
        await asyncio.sleep(plan.seconds / 2)
        async with connection.transaction():
            await connection.execute("LOCK TABLE clients")
            # Requests wait for longer than 100 ms, but for those that arrive in its last 100 ms.
            await asyncio.sleep(SLOW_SECONDS + plan.slow * plan.seconds)

    try:
        await connection.execute("DELETE FROM clients WHERE id > $1", load.SEEDED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lock())
            yield
    finally:
        await connection.close()


def parted(written: bytes) -> tuple[list[bytes], list[bytes]]:
    """Lines of requests, and documents of metrics. Other events, such as the stop, are not part of a steady load."""
    lines, documents = [], []
    for line in written.splitlines(keepends=True):
        if b'"_aws"' in line:
            documents.append(line)
        elif not line.startswith(b"{") or orjson.loads(line).get(names.EVENT) == names.REQUEST:
            lines.append(line)
    return lines, documents


def series(lines: Iterable[bytes]) -> int:
    """How many metrics CloudWatch bills: each name with each set of dimensions and their values."""
    found: set[tuple[Any, ...]] = set()
    for document in (orjson.loads(line) for line in lines if b'"_aws"' in line):
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for dimensions in directive["Dimensions"]:
                values = tuple((name, document[name]) for name in sorted(dimensions))
                found |= {(directive["Namespace"], metric["Name"], values) for metric in directive["Metrics"]}
    return len(found)
