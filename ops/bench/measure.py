"""Loads the contenders in turns, and counts what each request cost."""

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

from ops.bench import contenders, cpu, postgres, wrk

_WARM_UP_SECONDS: Final = 1
_LONGER: Final = {"getall": 3}  # times a turn's length, for requests that can take a second each
_IDLE_LOOK_SECONDS: Final = 0.2
_IDLE_SHARE: Final = 0.1  # of a processor
_IDLE_WAIT_SECONDS: Final = 60.0
_GETALL_MOST: Final = 10_000  # clients that are worth reading to check an answer


class WrongAnswer(Exception):
    """A contender does not do what it is compared for."""


@dataclass(frozen=True)
class Entry:
    """A contender with the rows that it serves.

    Attributes:
        contender: who.
        rows: how many clients there are.
    """

    contender: contenders.Contender
    rows: int


@dataclass(frozen=True)
class Turn:
    """What one run of the load generator showed.

    Attributes:
        contender: its name.
        rows: clients in the database.
        workload: which requests were sent.
        connections: of the load generator, each with one request under way.
        round: which round of turns, from 1.
        requests: answered.
        errors: connections, reads, writes and answers that failed.
        per_second: requests.
        p50_ms: latency, milliseconds.
        p99_ms: latency, milliseconds.
        service_us: CPU microseconds per request of the contender's processes.
        postgres_us: CPU microseconds per request of PostgreSQL's.
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
        entries: who takes part, all in every round.
        workloads: get, add, getall, or a path that takes no client.
        connections: numbers of them.
        rounds: turns of each entry with each workload and number of connections.
        seconds: the length of a turn.
    """

    entries: Sequence[Entry]
    workloads: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: int

    @property
    def turns(self) -> int:
        """How many there will be."""
        return len(self.entries) * len(self.workloads) * len(self.connections) * self.rounds


Say = Callable[[str], None]


def run(plan: Plan, folder: Path, say: Say) -> Iterator[Turn]:
    """Carries the plan out, and gives each turn as it ends.

    Contenders that this machine cannot run are said and left out.

    Args:
        plan: what to measure.
        folder: an empty one, for the database and what is built.
        say: takes lines on how it goes.

    Raises:
        WrongAnswer: a contender's answers are not what they should be.
    """
    with ExitStack() as stack:
        server = stack.enter_context(postgres.started(folder))
        databases = {}
        for count in sorted({entry.rows for entry in plan.entries}):
            say(f"Making a database of {count:,} clients")
            databases[count] = server.database(count)
        running = []
        for entry in plan.entries:
            started = contenders.started(entry.contender, databases[entry.rows].environment, folder)
            try:
                service = stack.enter_context(started)
            except contenders.CannotRun as error:
                say(f"Left out: {entry.contender.name}, since {error}")
                continue
            say(f"Started {entry.contender.name}: {entry.contender.title}")
            running.append(_Rival(entry, service, databases[entry.rows]))
            if not entry.contender.is_floor:
                check(service.url, entry)
                databases[entry.rows].restore()
        yield from _turns(plan, running, server.pid)


@dataclass(frozen=True)
class _Rival:
    """An entry that runs."""

    entry: Entry
    service: contenders.Running
    database: postgres.Database


def _turns(plan: Plan, rivals: Sequence[_Rival], server: int) -> Iterator[Turn]:
    for workload, connections in itertools.product(plan.workloads, plan.connections):
        for number in range(plan.rounds + 1):
            for rival in rivals:
                name, rows = rival.entry.contender.name, rival.entry.rows
                load = partial(wrk.run, rival.service.url, workload, rows, connections)
                if number == 0:
                    load(_WARM_UP_SECONDS)
                else:
                    seconds = plan.seconds * _LONGER.get(workload, 1)
                    seen = _measured(partial(load, seconds), rival.service.pid, server)
                    yield Turn(name, rows, workload, connections, number, **seen)
                # What the load left under way is not the next one's to pay.
                _wait_until_idle(rival.service.pid, server)
                if workload == "add":
                    rival.database.restore()


def _wait_until_idle(*pids: int) -> None:
    end = time.monotonic() + _IDLE_WAIT_SECONDS
    busy = True
    while busy and time.monotonic() < end:
        before = sum(map(cpu.seconds, pids))
        time.sleep(_IDLE_LOOK_SECONDS)
        busy = sum(map(cpu.seconds, pids)) - before > _IDLE_SHARE * _IDLE_LOOK_SECONDS


def _measured(load: Callable[[], wrk.Load], service: int, server: int) -> dict[str, Any]:
    before = cpu.seconds(service), cpu.seconds(server)
    seen = load()
    after = cpu.seconds(service), cpu.seconds(server)
    requests = max(seen.requests, 1)
    service_us, postgres_us = ((end - start) * 1e6 / requests for start, end in zip(before, after, strict=True))
    return {
        "requests": seen.requests,
        "errors": seen.errors,
        "per_second": seen.requests / seen.seconds,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "service_us": service_us,
        "postgres_us": postgres_us,
    }


def check(url: str, entry: Entry) -> None:
    """Makes sure that the three endpoints do what they are compared for; it adds one client.

    Raises:
        WrongAnswer: they do not.
    """
    name = entry.contender.name

    def answer(method: str, path: str) -> Any:
        asked = urllib.request.Request(url + path, method=method)  # noqa: S310 - http, to ourselves
        with urllib.request.urlopen(asked, timeout=60) as response:  # noqa: S310
            return json.load(response)

    wanted = {"id": 1, "name": "Client number 1", "money": "-9920.81"}
    if (got := answer("GET", "/get/1")) != wanted:
        raise WrongAnswer(f"{name} answers GET /get/1 with {got}, not {wanted}")
    if entry.rows <= _GETALL_MOST:
        got = answer("GET", "/getall")
        if len(got) != entry.rows or got[0] != wanted:
            raise WrongAnswer(f"{name} answers GET /getall with {len(got)} clients, the first {got[0]}")
    added = answer("POST", "/add?name=Ann+%C3%89&money=12.50")["id"]
    if (got := answer("GET", f"/get/{added}")) != {"id": added, "name": "Ann É", "money": "12.50"}:
        raise WrongAnswer(f"{name} added Ann É, 12.50 as {got}")
