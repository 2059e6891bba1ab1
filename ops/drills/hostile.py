"""Callers who mean no good, in great number."""

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
from ops.drills.memory import watching
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED

_ATTACKERS: Final = 10_000
_FILES: Final = 12_000
_MEMORY_MB: Final = 200  # that they may take of a worker, which holds 4,000 connections at most
_FLOOR_SECONDS: Final = 0.01  # less than that is the machine's noise, and a tenth of the objective
_COMING_MS: Final = 100  # the objective of any time
# They come from elsewhere, and what they cost there is not the service's: they get what others leave of this machine.
_PYTHON: Final = ("nice", "-n", "19", sys.executable, "-m")


def _lacks() -> str:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return "" if most >= _FILES else f"a process may have {most} files open here, and {_FILES} are needed"


@drill("hostile-callers", f"{_ATTACKERS:,} connections idle, drip, stall, flood and send what is no HTTP", _lacks)
async def attack(stage: Stage) -> None:
    """All others go on as they do while the same attackers attack something else on this machine."""
    seconds = stage.pick(60, 11)
    async with stage.served() as service, stage.calling():
        await asyncio.sleep(1)
        async with _decoy() as elsewhere:
            before = stage.timeline.mark(f"{_ATTACKERS:,} attackers come, to a decoy")
            async with _attacking(elsewhere, seconds):
                after = stage.timeline.mark("they leave it")
        begun = stage.timeline.mark("they come to the service")
        async with watching(service) as memory, _attacking(service.port, seconds) as cut:
            ended = stage.timeline.mark("they leave all at once")
        await asyncio.sleep(2)
        held = sum(len(worker.net_connections("tcp")) for worker in service.workers())
    times = ((before + RAMP_SECONDS, after), (begun, begun + RAMP_SECONDS), (begun + RAMP_SECONDS, ended))
    usual, coming, attacked = (stage.timeline.percentile(99, *each) for each in times)
    share = attacked / max(usual, _FLOOR_SECONDS)
    stage.claim("99 % of others' answers while all are there, of those while a decoy is attacked", share, most=2)
    stage.claim("99 % of others' answers while they come", coming * 1000, most=_COMING_MS, unit="ms")
    stage.claim("others turned away", stage.timeline.count(REFUSED), most=0)
    stage.claim("others without an answer", stage.timeline.count(FAILED), most=0)
    stage.claim("memory that they took, of the larger worker", max(memory) - memory[0], most=_MEMORY_MB, unit="MB")
    stage.claim("connections that are left 2 s later", held, most=100)
    stage.claim_least("attackers that were cut, again and again", cut.total(), least=_ATTACKERS / 10)


@contextlib.asynccontextmanager
async def _attacking(port: int, seconds: float) -> AsyncIterator[Counter[str]]:
    """How often attackers of each kind were cut, once it is over but for their leaving."""
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
async def _decoy() -> AsyncIterator[int]:
    """The port of a server that has nothing to do with the service."""
    decoy = await asyncio.create_subprocess_exec(*_PYTHON, "ops.drills.decoy", stdout=PIPE)
    try:
        assert decoy.stdout is not None
        yield int(await decoy.stdout.readline())
    finally:
        decoy.kill()
        await decoy.wait()
