"""Loads the contenders in turns, and measures the CPU time of each request."""

import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ops.bench import contenders, postgres, wrk
from ops.common import cpu

_WARM_UP_SECONDS: Final = 1
_LENGTH_FACTORS: Final = {"getall": 3}  # longer turns, because one request can take a second
_IDLE_SAMPLE_SECONDS: Final = 0.2
_IDLE_SHARE: Final = 0.1  # of a core
_MAX_IDLE_WAIT_SECONDS: Final = 60.0
_MAX_GETALL_ROWS: Final = 10_000  # a longer list is not checked


class WrongResponse(Exception):
    """A contender does not respond as the clients API does."""


@dataclass(frozen=True)
class Entry:
    """A contender and the size of its database.

    Attributes:
        contender: to measure.
        rows: clients in the database.
    """

    contender: contenders.Contender
    rows: int


@dataclass(frozen=True)
class Turn:
    """One run of the load generator against one contender.

    Attributes:
        contender: its name.
        rows: clients in the database.
        workload: which requests were sent.
        connections: of the load generator, each with one request in progress.
        round: the number of the round, from 1. In each round, each contender has one turn.
        requests: responses received.
        errors: failed connections, reads and writes, and responses with a status of 400 or above.
        per_second: responses per second.
        p50_ms: median latency, in milliseconds.
        p99_ms: 99th percentile of latency, in milliseconds.
        service_us: CPU time per request of the contender's processes, in microseconds.
        postgres_us: CPU time per request of PostgreSQL's processes, in microseconds.
    """

    contender: str
    rows: int
    workload: str
    connections: int
    round: int
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p99_ms: float
    service_us: float
    postgres_us: float


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        entries: that take part; each has one turn per round.
        workloads: get, add, getall, or a path without a client's id.
        connections: the numbers of connections.
        rounds: for each workload and number of connections.
        seconds: the length of a turn.
    """

    entries: Sequence[Entry]
    workloads: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: int

    @property
    def turns(self) -> int:
        """The number of turns."""
        return len(self.entries) * len(self.workloads) * len(self.connections) * self.rounds


def run(plan: Plan, folder: Path, log: Callable[[str], None]) -> Iterator[Turn]:
    """Carries out the plan, and yields each turn as it ends.

    Contenders that cannot run on this machine are left out, with a line in the log.

    Args:
        plan: what to measure.
        folder: an empty folder, for the database and what is built.
        log: receives lines about the progress.

    Raises:
        WrongResponse: a contender does not respond as the clients API does.
    """
    with ExitStack() as stack:
        server = stack.enter_context(postgres.started(folder))
        databases = {}
        for count in sorted({entry.rows for entry in plan.entries}):
            log(f"Creating a database of {count:,} clients")
            databases[count] = server.database(count)
        running = []
        for entry in plan.entries:
            started = contenders.started(entry.contender, databases[entry.rows].environment, folder)
            try:
                service = stack.enter_context(started)
            except contenders.CannotRun as error:
                log(f"Left out {entry.contender.name}: {error}")
                continue
            log(f"Started {entry.contender.name}: {entry.contender.title}")
            running.append(_Running(entry, service, databases[entry.rows]))
            if not entry.contender.is_floor:
                check(service.url, entry)
                databases[entry.rows].restore()
        yield from _turns(plan, running, server.pid)


@dataclass(frozen=True)
class _Running:
    """An entry with its started contender and its database."""

    entry: Entry
    service: contenders.Running
    database: postgres.Database


def _turns(plan: Plan, entries: Sequence[_Running], server: int) -> Iterator[Turn]:
    for workload, connections in itertools.product(plan.workloads, plan.connections):
        for number in range(plan.rounds + 1):
            for running in entries:
                name, rows = running.entry.contender.name, running.entry.rows
                load = partial(wrk.run, running.service.url, workload, rows, connections)
                if number == 0:
                    load(_WARM_UP_SECONDS)
                else:
                    seconds = plan.seconds * _LENGTH_FACTORS.get(workload, 1)
                    figures = _measure(partial(load, seconds), running.service.pid, server)
                    yield Turn(name, rows, workload, connections, number, **figures)
                # Requests that are still in progress must not cost the next contender.
                _wait_until_idle(running.service.pid, server)
                if workload == "add":
                    running.database.restore()


def _wait_until_idle(*pids: int) -> None:
    end = time.monotonic() + _MAX_IDLE_WAIT_SECONDS
    busy = True
    while busy and time.monotonic() < end:
        before = sum(map(cpu.seconds, pids))
        time.sleep(_IDLE_SAMPLE_SECONDS)
        busy = sum(map(cpu.seconds, pids)) - before > _IDLE_SHARE * _IDLE_SAMPLE_SECONDS


def _measure(load: Callable[[], wrk.Load], service: int, server: int) -> dict[str, Any]:
    before = cpu.seconds(service), cpu.seconds(server)
    sent = load()
    after = cpu.seconds(service), cpu.seconds(server)
    requests = max(sent.requests, 1)
    service_us, postgres_us = ((end - start) * 1e6 / requests for start, end in zip(before, after, strict=True))
    return {
        "requests": sent.requests,
        "errors": sent.errors,
        "per_second": sent.requests / sent.seconds,
        "p50_ms": sent.p50_ms,
        "p99_ms": sent.p99_ms,
        "service_us": service_us,
        "postgres_us": postgres_us,
    }


def check(url: str, entry: Entry) -> None:
    """Checks the responses of the three endpoints, and adds one client for that.

    Raises:
        WrongResponse: a response is not what the clients API returns.
    """
    name = entry.contender.name

    def call(method: str, path: str) -> Any:
        request = urllib.request.Request(url + path, method=method)  # noqa: S310 - http, on loopback
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)

    expected = {"id": 1, "name": "Client number 1", "money": "-9920.81"}
    if (got := call("GET", "/get/1")) != expected:
        raise WrongResponse(f"{name} answers GET /get/1 with {got}, not {expected}")
    if entry.rows <= _MAX_GETALL_ROWS:
        got = call("GET", "/getall")
        if len(got) != entry.rows or got[0] != expected:
            raise WrongResponse(f"{name} answers GET /getall with {len(got)} clients, the first {got[0]}")
    added = call("POST", "/add?name=Ann+%C3%89&money=12.50")["id"]
    if (got := call("GET", f"/get/{added}")) != {"id": added, "name": "Ann É", "money": "12.50"}:
        raise WrongResponse(f"{name} added Ann É, 12.50 as {got}")
