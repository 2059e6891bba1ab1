"""Loads the contenders in turns, and measures the CPU time of each request."""

import itertools
import json
import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ops.bench import contenders, instructions, open_loop, postgres, wrk
from ops.common import cpu

_WARM_UP_SECONDS: Final = 1
_LENGTH_FACTORS: Final = {"getall": 3}  # longer turns, because one request can take a second
_IDLE_SAMPLE_SECONDS: Final = 0.2
_IDLE_SHARE: Final = 0.1  # of a core
_MAX_IDLE_WAIT_SECONDS: Final = 60.0
_MAX_GETALL_ROWS: Final = 10_000  # a longer list is not checked
_OPEN_LOOP_FACTOR: Final = 2  # longer turns, because high percentiles need many requests
_MAX_NOISE: Final = 0.03  # of the CPU time of all cores; half of what separates many contenders
_MAX_TRIES: Final = 3


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
class Noise:
    """What else the machine did, as shares of the CPU time of all its cores.

    Attributes:
        load: all work of processes.
        foreign: work of processes that are neither the contender, PostgreSQL, the load generator nor the benchmark.
        steal: in which a core had work, but the hypervisor ran something else.
    """

    load: float
    foreign: float
    steal: float

    @property
    def worst(self) -> float:
        """The larger one of what the contender is not to blame for."""
        return max(self.foreign, self.steal)

    @property
    def is_high(self) -> bool:
        """Whether figures that were measured meanwhile are doubtful."""
        return self.worst > _MAX_NOISE


@dataclass(frozen=True)
class Offered:
    """The load of an open loop.

    Attributes:
        share: of the rate that the closed loop reached at the most typical number of connections.
        rate: requests per second, on average.
        late_ms: 99th percentile of how late the generator was, in milliseconds.
        cpu_share: of one core that the generator used.
    """

    share: float
    rate: float
    late_ms: float
    cpu_share: float

    @property
    def limit(self) -> str:
        """Why the figures describe the generator rather than the contender; empty if they do not."""
        return open_loop.limit(self.late_ms, self.cpu_share)


@dataclass(frozen=True)
class Turn:
    """One run of a load generator against one contender.

    Attributes:
        contender: its name.
        rows: clients in the database.
        workload: which requests were sent.
        connections: of the closed loop, each with one request in progress; 0 for an open loop.
        round: the number of the round, from 1. In each round, each contender has one turn.
        requests: responses received; in an open loop, requests that were due.
        errors: failed connections, reads and writes, and responses with a status of 400 or above.
        per_second: requests per second.
        p50_ms: median latency, in milliseconds; in an open loop from the time at which a request was due.
        p99_ms: 99th percentile of latency, in milliseconds.
        service_us: CPU time per request of the contender's processes, in microseconds.
        postgres_us: CPU time per request of PostgreSQL's processes, in microseconds.
        p999_ms: 99.9th percentile of latency, in milliseconds.
        service_instructions: per request in user mode; None where perf does not count them.
        postgres_instructions: as above, of PostgreSQL.
        offered: the load of an open loop; None for a closed loop.
        before: the last moment before the turn, of 0.2 s.
        noise: during the turn.
        tries: how often it was measured. It is repeated while the noise is high, and the try with the least is kept.
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
    # Results of earlier versions have none of these.
    p999_ms: float | None = None
    service_instructions: float | None = None
    postgres_instructions: float | None = None
    offered: Offered | None = None
    before: Noise | None = None
    noise: Noise | None = None
    tries: int = 1

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Turn":
        """From what asdict() makes of a turn."""
        kinds = {"offered": Offered, "before": Noise, "noise": Noise}
        nested = {name: kind(**found[name]) for name, kind in kinds.items() if found.get(name)}
        return cls(**{**found, **nested})

    @property
    def is_noisy(self) -> bool:
        """Whether something else used the machine in the turn, so that its figures are doubtful."""
        return self.noise is not None and self.noise.is_high


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        entries: that take part; each has one turn per round.
        workloads: get, add, getall, or a path without a client's id.
        connections: the numbers of connections of closed loops, the most typical one first.
        rounds: for each workload and number of connections.
        seconds: the length of a turn.
        shares: loads of open loops, as shares of the rate of the closed loop with the first number of connections.
        same_rates: whether open loops load all entries at shares of the rate of the slowest one, not each of its own.
    """

    entries: Sequence[Entry]
    workloads: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: int
    shares: Sequence[float] = ()
    same_rates: bool = False

    @property
    def turns(self) -> int:
        """The number of turns."""
        loads = len(self.connections) + len(self.shares)
        return len(self.entries) * len(self.workloads) * loads * self.rounds


def run(plan: Plan, folder: Path, log: Callable[[str], None]) -> Iterator[Turn]:
    """Carries out the plan, and yields each turn as it ends.

    Contenders that cannot run on this machine are left out, with a line in the log.

    Args:
        plan: what to measure.
        folder: an empty folder, for the database and what is built.
        log: receives lines about the progress.

    Raises:
        WrongResponse: a contender does not respond as the clients API does.
        CpuTimeLost: a process ended whose CPU time cannot be counted.
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
        bench = _Bench(running, server.pid, plan.seconds, folder, log)
        for workload in plan.workloads:
            yield from _of_workload(plan, bench, workload)


@dataclass(frozen=True)
class _Running:
    """An entry with its started contender and its database."""

    entry: Entry
    service: contenders.Running
    database: postgres.Database


def _of_workload(plan: Plan, bench: "_Bench", workload: str) -> Iterator[Turn]:
    rounds = range(1, plan.rounds + 1)
    rates: list[list[float]] = [[] for _ in bench.running]
    for connections in plan.connections:
        for running in bench.running:
            bench.warm_up(running, workload, connections)
        for number, (index, running) in itertools.product(rounds, enumerate(bench.running)):
            turn = bench.closed_loop(running, workload, connections, number)
            if connections == plan.connections[0]:
                rates[index].append(turn.per_second)
            yield turn
    reached = [statistics.median(found) for found in rates]
    if plan.same_rates:
        reached = [min(reached)] * len(reached)
    for share, number, (index, running) in itertools.product(plan.shares, rounds, enumerate(bench.running)):
        yield bench.open_loop(running, workload, share, reached[index], number)


class _Bench:
    """Measures turns of started contenders.

    Args:
        running: all of them. Those that are not loaded count as foreign.
        server: the first process of PostgreSQL.
        seconds: the length of a turn.
        folder: for the counts of perf.
        log: receives a line about each turn that is repeated.
    """

    def __init__(
        self, running: Sequence[_Running], server: int, seconds: int, folder: Path, log: Callable[[str], None]
    ) -> None:
        self.running = running
        self._seconds = seconds
        self._server = server
        self._folder = folder
        self._log = log
        self._meter = cpu.Meter(os.getpid(), server, *(each.service.pid for each in running))
        self._counts_instructions = not instructions.unavailable()
        self._before: Noise | None = None

    def warm_up(self, running: _Running, workload: str, connections: int) -> None:
        """Loads it for a moment."""
        wrk.run(running.service.url, workload, running.entry.rows, connections, _WARM_UP_SECONDS)
        self._clean_up(running, workload)

    def closed_loop(self, running: _Running, workload: str, connections: int, number: int) -> Turn:
        """Loads it over `connections` connections, each with the next request as soon as it has a response."""

        def load(before: Sequence[str]) -> tuple[wrk.Load, None]:
            url, rows = running.service.url, running.entry.rows
            seconds = self._seconds * _LENGTH_FACTORS.get(workload, 1)
            return wrk.run(url, workload, rows, connections, seconds, before=before), None

        return self._quiet_turn(running, workload, connections, number, load)

    def open_loop(self, running: _Running, workload: str, share: float, carries: float, number: int) -> Turn:
        """Loads it with that share of the requests per second that it carries."""

        def load(before: Sequence[str]) -> tuple[open_loop.Load, Offered]:
            rate, url, rows = share * carries, running.service.url, running.entry.rows
            sent = open_loop.run(url, workload, rows, rate, self._seconds * _OPEN_LOOP_FACTOR, before=before)
            return sent, Offered(share, rate, sent.late_ms, sent.cpu_share)

        return self._quiet_turn(running, workload, 0, number, load)

    def _quiet_turn(self, running: _Running, workload: str, connections: int, number: int, load: "_SendLoad") -> Turn:
        """The first try in which the machine does nothing else, or the one with the least noise."""
        tries: list[Turn] = []
        while not tries or (tries[-1].is_noisy and len(tries) < _MAX_TRIES):
            figures = self._measure(running, load)
            name, rows = running.entry.contender.name, running.entry.rows
            tries.append(Turn(name, rows, workload, connections, number, **figures, tries=len(tries) + 1))
            self._clean_up(running, workload)
        quietest = min(tries, key=lambda turn: turn.noise.worst if turn.noise else 0.0)
        if len(tries) > 1:
            noise = quietest.noise
            assert noise
            self._log(
                f"Measured {name}, {workload}, {len(tries)} times, since other programs used the machine. The kept try "
                f"has {100 * noise.foreign:.1f} % foreign CPU time and {100 * noise.steal:.1f} % steal."
            )
        return replace(quietest, tries=len(tries))

    def _measure(self, running: _Running, load: "_SendLoad") -> dict[str, Any]:
        counted = {"service": running.service.pid, "postgres": self._server} if self._counts_instructions else {}
        files = {name: self._folder / f"{name}.instructions" for name in counted}
        command = [word for name, pid in counted.items() for word in instructions.counting(pid, files[name])]
        start = self._reading()
        sent, offered = load(command)
        end = self._reading()
        own = self.running.index(running)
        requests = max(sent.requests, 1)
        counts = {name: instructions.count(file) for name, file in files.items()}
        return {
            "requests": sent.requests,
            "errors": sent.errors,
            "per_second": sent.requests / sent.seconds,
            "p50_ms": sent.p50_ms,
            "p99_ms": sent.p99_ms,
            "p999_ms": sent.p999_ms,
            "service_us": (end.services[own] - start.services[own]) * 1e6 / requests,
            "postgres_us": (end.server - start.server) * 1e6 / requests,
            **{f"{name}_instructions": None if count is None else count / requests for name, count in counts.items()},
            "offered": offered,
            "before": self._before,
            "noise": start.noise_until(end, running=own),
        }

    def _reading(self) -> "_Reading":
        all_, server, *services = self._meter.read()
        return _Reading(cpu.machine(), all_, server, services)

    def _clean_up(self, running: _Running, workload: str) -> None:
        """Waits until requests have ended that are still in progress, which must not cost the next contender."""
        own = self.running.index(running)
        until = time.monotonic() + _MAX_IDLE_WAIT_SECONDS
        busy = True
        while busy and time.monotonic() < until:
            start = self._reading()
            time.sleep(_IDLE_SAMPLE_SECONDS)
            end = self._reading()
            used = end.services[own] - start.services[own] + end.server - start.server
            busy = used > _IDLE_SHARE * _IDLE_SAMPLE_SECONDS
            self._before = start.noise_until(end, running=own)
        if workload == "add":
            running.database.restore()


_SendLoad = Callable[[Sequence[str]], tuple[wrk.Load | open_loop.Load, Offered | None]]
"""Sends the load by a generator that is started by the command, and returns its report."""


@dataclass(frozen=True)
class _Reading:
    """CPU seconds so far.

    Attributes:
        machine: of the machine.
        all: of the benchmark and all that it started.
        server: of PostgreSQL.
        services: of each contender.
    """

    machine: cpu.Machine
    all: float
    server: float
    services: Sequence[float]

    def noise_until(self, end: "_Reading", running: int) -> Noise:
        """What the machine did between two readings while the contender with this index was loaded."""
        machine = end.machine - self.machine
        used = [after - before for before, after in zip(self.services, end.services, strict=True)]
        known = end.all - self.all - sum(used) + used[running]
        total = max(machine.all, 1e-9)
        # The machine's time is a count of ticks, in which processes are found at work; it can be less than theirs.
        return Noise(machine.busy / total, max(machine.busy - known, 0.0) / total, machine.steal / total)


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
