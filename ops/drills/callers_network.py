"""The network between callers and the service fails."""

import asyncio
import json
from typing import Final
from urllib.parse import urlencode

import psutil

from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.ledger import Add
from ops.drills.stage import Stage
from ops.drills.timeline import FAILED

_LATENCY_SECONDS: Final = 0.01  # so that a reset finds requests under way
_DRIP_BYTES_PER_SECOND: Final = 300.0  # a request of 300 bytes takes 1 s, and so does its answer
_HOLE_SECONDS: Final = 4.0  # its callers wait for so long, which is no fault of the service
_AGAIN_SECONDS: Final = 1.0
_GONE_SECONDS: Final = 1.0  # until the service has closed what its callers have
_GROWTH_MOST_BYTES: Final = 8 * 2**20  # what an allocator keeps; a leak in some thousands of connections is larger
_HALF_CLOSED: Final = 16


@drill("callers-network", "the network between callers and the service resets, drips, swallows and half closes")
async def break_network(stage: Stage) -> None:
    """Whoever got no answer tries again, and nothing may be lost, doubled or left behind."""
    async with stage.served() as service:
        async with stage.calling(count=64, pause_seconds=0.02):
            await asyncio.sleep(2)
        await asyncio.sleep(_GONE_SECONDS)
        before_bytes = service.memory()
        async with stage.calling(count=64, pause_seconds=0.02):
            await _reset(stage)
            await _half_close(stage)
            await _drip(stage)
            healed = await _swallow(stage)
            await asyncio.sleep(_AGAIN_SECONDS)
        await asyncio.gather(*(_leave_half(stage, service) for _ in range(_HALF_CLOSED)))
        await asyncio.sleep(_GONE_SECONDS)
        growths = [after - before for after, before in zip(service.memory(), before_bytes, strict=True)]
        left = _connections(service)
    stage.claim(
        "served again after its return", stage.timeline.served_again_after(healed), most=_AGAIN_SECONDS, unit="s"
    )
    wrong = [each for each in stage.timeline.counts() if each.isdigit() and each not in {"200", "201"}]
    stage.claim_least("requests that got no answer", stage.timeline.count(FAILED), least=100)
    stage.claim("kinds of answers beyond 200 and 201", len(wrong), most=0)
    stage.claim("connections that are left", left, most=0)
    stage.claim("what a worker's memory grew by", max(growths) / 2**20, most=_GROWTH_MOST_BYTES / 2**20, unit="MB")


def _connections(service: Service) -> int:
    """Connections to callers that the workers have open."""
    found = (each for worker in service.workers() for each in worker.net_connections("tcp4"))
    return sum(each.laddr.port == service.port and each.status != psutil.CONN_LISTEN for each in found)


async def _reset(stage: Stage) -> None:
    stage.timeline.mark("resets")
    stage.to_service.latency_seconds = _LATENCY_SECONDS
    for _ in range(int(stage.pick(100, 15))):
        await asyncio.sleep(0.1)
        stage.to_service.reset()
    stage.to_service.heal()


async def _half_close(stage: Stage) -> None:
    stage.timeline.mark("the ends of what the service sends")
    for _ in range(int(stage.pick(50, 5))):
        await asyncio.sleep(0.1)
        stage.to_service.half_close()


async def _drip(stage: Stage) -> None:
    stage.timeline.mark("a slow drip")
    stage.to_service.bytes_per_second = _DRIP_BYTES_PER_SECOND
    await asyncio.sleep(stage.pick(15, 3))
    stage.to_service.heal()


async def _swallow(stage: Stage) -> float:
    stage.timeline.mark("a black hole")
    stage.to_service.black_hole()
    await asyncio.sleep(_HOLE_SECONDS)
    stage.to_service.heal()
    return stage.timeline.mark("healed")


async def _leave_half(stage: Stage, service: Service) -> None:
    """An add whose caller ends what it sends with the request, and then another try of it that does not.

    The service takes the first for a caller who is gone: it may store the client, and does not answer.
    """
    add = stage.ledger.new()
    for half_closes in (True, False):
        add.tries += 1
        client_id = await _send(service.port, add, half_closes=half_closes)
        if client_id is not None:
            stage.ledger.acknowledge(add, client_id)


async def _send(port: int, add: Add, *, half_closes: bool) -> int | None:
    """The id that the answer has; None where there is no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    query = urlencode({"name": add.name, "money": add.money})
    head = f"POST /add?{query} HTTP/1.1\r\nHost: drill\r\nIdempotency-Key: {add.key}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    if half_closes:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["id"]) if answer.startswith(b"HTTP/1.1 201 ") else None
