"""CPU time stays complete while processes end. No test depends on how fast anything is."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import pytest

from ops.bench import postgres
from ops.common import cpu

pytestmark = pytest.mark.slow

_WAIT_SECONDS: Final = 60
_BURN: Final = "import time\nwhile time.process_time() < 0.55: pass\n"  # times are in ticks of 10 ms, rounded down


@contextmanager
def parent_of_a_busy_child(setup: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process whose child has used 0.55 s of CPU time, and ends after a line on the parent's stdin."""
    child = f"{_BURN}print(flush=True); input()"
    code = f"""
import signal, subprocess, sys
{setup}
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
child.stdin.close()
child.wait()
print("ended", flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str]) -> None:
    """Lets the child end, and waits until the parent knows."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"


def test_a_child_counts_while_it_runs_and_after_its_end() -> None:
    """Its CPU time is its own at first, and then part of its parent's."""
    with parent_of_a_busy_child() as process:
        assert process.stdout
        child = int(process.stdout.readline())
        meter = cpu.Meter(process.pid, child)
        whole, alone = meter.read()
        go_on(process)

        assert whole >= alone >= 0.5
        assert not psutil.pid_exists(child)
        assert cpu.Meter(process.pid).read()[0] >= whole


def test_a_zombie_counts() -> None:
    """A child that has ended, but for which its parent has not waited yet, still has its CPU time."""
    with parent_of_a_busy_child() as process:
        assert process.stdout
        child = psutil.Process(int(process.stdout.readline()))
        meter = cpu.Meter(process.pid)
        (before,) = meter.read()
        child.kill()
        end = time.monotonic() + _WAIT_SECONDS
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end

        assert meter.read()[0] >= before


def test_a_reading_in_which_a_process_ends_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the parent is read, then its child ends, and is gone when it is its turn to be read."""
    with parent_of_a_busy_child() as process:
        assert process.stdout
        child = int(process.stdout.readline())
        meter = cpu.Meter(process.pid)
        (before,) = meter.read()
        read, readings = cpu._processes, iter(range(100))

        def read_while_it_ends() -> dict[int, Mapping[str, Any]]:
            found = read()
            if next(readings) == 1:
                go_on(process)
                del found[child]
            return found

        monkeypatch.setattr(cpu, "_processes", read_while_it_ends)

        assert meter.read()[0] >= before


def test_lost_cpu_time_is_an_error() -> None:
    """A process that ignores SIGCHLD does not take over the CPU time of its children."""
    with parent_of_a_busy_child("signal.signal(signal.SIGCHLD, signal.SIG_IGN)") as process:
        assert process.stdout
        process.stdout.readline()
        meter = cpu.Meter(process.pid)
        meter.read()
        go_on(process)

        with pytest.raises(cpu.CpuTimeLost, match=f"process {process.pid} and its descendants fell"):
            meter.read()


def test_a_tree_that_has_ended_has_no_cpu_time() -> None:
    """It is an error, since the time was that of another tree from then on."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        meter = cpu.Meter(process.pid)
        process.wait()

        with pytest.raises(psutil.NoSuchProcess):
            meter.read()


def test_backends_of_postgresql_count_after_their_end(tmp_path: Path) -> None:
    """A connection's backend counts as the server's, while it runs and afterwards."""
    with postgres.started(tmp_path) as server:
        url = postgres.Database("postgres", 0, server.port).url
        meter = cpu.Meter(server.pid)

        async def work() -> psutil.Process:
            connection = await asyncpg.connect(url)
            try:
                backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
                while sum(backend.cpu_times()[:2]) < 0.5:
                    await connection.fetchval("SELECT count(*) FROM generate_series(1, 100000)")
            finally:
                await connection.close()
            return backend

        (before,) = meter.read()
        asyncio.run(work()).wait(_WAIT_SECONDS)

        assert meter.read()[0] - before >= 0.5


def test_the_machine_counts_all_work_of_its_processes() -> None:
    """The machine's busy time grows by that of a process; busy and stolen time are parts of all its time."""
    before = cpu.machine()
    subprocess.run([sys.executable, "-c", _BURN], check=True)
    passed = cpu.machine() - before

    assert passed.busy >= 0.25  # it is counted in samples, so it may be less than the process's
    assert passed.all >= passed.busy + passed.steal - 0.05
