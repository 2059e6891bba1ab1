"""Callers who mean no good, in great number."""

import asyncio
import json
import resource
import sys
from subprocess import PIPE
from typing import Final

from ops.drills.drill import drill
from ops.drills.overload import watching
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED, REFUSED

_ATTACKERS: Final = 10_000
_FILES: Final = 12_000
_MEMORY_MB: Final = 200  # that they may take of a worker, which holds 4,000 connections at most
_FLOOR_SECONDS: Final = 0.005  # a percentile below this is noise of the machine's, and not compared


def _lacks() -> str:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return "" if most >= _FILES else f"a process may have {most} files open here, and {_FILES} are needed"


@drill("hostile-callers", f"{_ATTACKERS:,} connections that idle, drip, stall, flood and send what is no HTTP", _lacks)
async def attack(stage: Stage) -> None:
    """All others go on as before."""
    seconds = stage.pick(60, 12)
    async with stage.served() as service, stage.calling():
        await asyncio.sleep(stage.pick(15, 5))
        begun = stage.timeline.mark(f"{_ATTACKERS:,} attackers come")
        before = stage.timeline.percentile(99, 1, begun)
        command = [sys.executable, "-m", "ops.drills.attackers", str(service.port), str(_ATTACKERS), str(seconds)]
        attackers = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        try:
            async with watching(service.workers()) as memory:
                told, _ = await attackers.communicate()
        finally:
            if attackers.returncode is None:
                attackers.kill()
        ended = stage.timeline.mark("they are gone")
        during = stage.timeline.percentile(99, begun, ended)
        await asyncio.sleep(2)
        held = sum(len(worker.net_connections("tcp")) for worker in service.workers())
    print(before, during, json.loads(told), memory)
    stage.claim("99 % of others' answers, of before", during / max(before, _FLOOR_SECONDS), most=2)
    stage.claim("others turned away", stage.timeline.count(REFUSED), most=0)
    stage.claim("others without an answer", stage.timeline.count(FAILED), most=0)
    stage.claim("memory that they took, of the larger worker", max(memory) - memory[0], most=_MEMORY_MB, unit="MB")
    stage.claim("connections that are left 2 s later", held, most=100)
    stage.claim_least("attackers that were cut, again and again", sum(json.loads(told).values()), least=_ATTACKERS / 10)
