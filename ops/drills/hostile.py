"""Many hostile callers."""

import asyncio
import contextlib
import json
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator
from subprocess import PIPE
from typing import Final

from ops.drills.attackers import RAMP_SECONDS
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.memory import memory_samples
from ops.drills.timeline import FAILED, REFUSED

_ATTACKERS: Final = 10_000
_FILES: Final = 12_000
_MEMORY_MB: Final = 200  # of a worker; it accepts at most 4,000 connections
_MIN_USUAL_SECONDS: Final = 0.01  # below it, times are noise of the machine; it is a tenth of the objective
_CONNECTING_MS: Final = 100  # the objective for every response time
# Attackers run on other machines, and their CPU is not the service's cost: they only get the CPU that others leave.
_PYTHON: Final = ("nice", "-n", "19", sys.executable, "-m")


def _missing() -> str:
    _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    return "" if maximum >= _FILES else f"a process may open only {maximum} files, and the drill needs {_FILES}"


@drill(
    "hostile-callers",
    f"{_ATTACKERS:,} connections idle, send slowly, never read, flood or send something other than HTTP",
    _missing,
)
async def attack(harness: Harness) -> None:
    """Compares other callers with a control, in which the same attackers attack another process on this machine."""
    seconds = harness.pick(60, 11)
    async with harness.service() as service, harness.callers():
        await asyncio.sleep(1)
        async with _control() as control_port:
            before = harness.timeline.mark(f"{_ATTACKERS:,} attackers connect to the control")
            async with _attacking(control_port, seconds):
                after = harness.timeline.mark("attackers leave the control")
        started = harness.timeline.mark("attackers connect to the service")
        async with memory_samples(service) as memory, _attacking(service.port, seconds) as closed:
            ended = harness.timeline.mark("all attackers leave at once")
        await asyncio.sleep(2)
        left = sum(len(worker.net_connections("tcp")) for worker in service.workers())
    periods = ((before + RAMP_SECONDS, after), (started, started + RAMP_SECONDS), (started + RAMP_SECONDS, ended))
    percent = harness.pick(99, 90)  # of the short form's few requests, a handful of slow ones decides on the p99
    usual, attacked = (harness.timeline.percentile(percent, *periods[index]) for index in (0, 2))
    connecting = harness.timeline.percentile(99, *periods[1])
    ratio = attacked / max(usual, _MIN_USUAL_SECONDS)
    name = f"other callers' p{percent} while all attackers are connected, relative to the control"
    harness.claim(name, ratio, at_most=harness.pick(2, 3))
    limit_ms = harness.on_any_machine(_CONNECTING_MS)
    harness.claim("other callers' p99 while attackers connect", connecting * 1000, at_most=limit_ms, unit="ms")
    harness.claim("other callers refused", harness.timeline.count(REFUSED), at_most=0)
    harness.claim("other callers failed", harness.timeline.count(FAILED), at_most=0)
    harness.claim("memory growth of the larger worker", max(memory) - memory[0], at_most=_MEMORY_MB, unit="MB")
    harness.claim("connections open 2 s later", left, at_most=100)
    harness.claim("attackers' connections closed by the service", closed.total(), at_least=_ATTACKERS / 10)


@contextlib.asynccontextmanager
async def _attacking(port: int, seconds: float) -> AsyncIterator[Counter[str]]:
    """Runs the attack. Yields how many connections of each kind were closed, before the attackers disconnect."""
    command = [*_PYTHON, "ops.drills.attackers", str(port), str(_ATTACKERS), str(seconds)]
    attackers = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        assert attackers.stdout is not None
        yield Counter(json.loads(await attackers.stdout.readline()))
        await attackers.wait()
    finally:
        if attackers.returncode is None:
            attackers.kill()


@contextlib.asynccontextmanager
async def _control() -> AsyncIterator[int]:
    """Runs a server that is independent of the service. Yields its port."""
    control = await asyncio.create_subprocess_exec(*_PYTHON, "ops.drills.control", stdout=PIPE)
    try:
        assert control.stdout is not None
        yield int(await control.stdout.readline())
    finally:
        control.kill()
        await control.wait()
