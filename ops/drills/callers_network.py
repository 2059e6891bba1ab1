"""The network between callers and the service fails."""

import asyncio
import json
from typing import Final
from urllib.parse import urlencode

import psutil

from ops.common.process import Service
from ops.drills.drill import drill
from ops.drills.harness import Harness
from ops.drills.ledger import Add
from ops.drills.timeline import FAILED

_LATENCY_SECONDS: Final = 0.01  # so that a reset finds requests in progress
_DRIP_BYTES_PER_SECOND: Final = 300.0  # a request of 300 bytes takes 1 s, and so does its response
_BLACK_HOLE_SECONDS: Final = 4.0  # its callers wait for so long, which is not the service's fault
_RECOVERY_SECONDS: Final = 1.0
_DISCONNECT_SECONDS: Final = 1.0  # until the service has closed the connections of callers that left
_MAX_GROWTH_BYTES: Final = 8 * 2**20  # the allocator keeps that; a leak in some thousands of connections is larger
_HALF_CLOSED: Final = 16


@drill("callers-network", "the network between callers and the service resets, drips, swallows and half closes")
async def break_network(harness: Harness) -> None:
    """Callers that got no response try again. Nothing may be lost, stored twice or left open."""
    async with harness.service() as service:
        async with harness.callers(count=64, pause_seconds=0.02):
            await asyncio.sleep(2)
        await asyncio.sleep(_DISCONNECT_SECONDS)
        before_bytes = service.memory()
        async with harness.callers(count=64, pause_seconds=0.02):
            await _reset(harness)
            await _half_close(harness)
            await _drip(harness)
            healed = await _black_hole(harness)
            await asyncio.sleep(_RECOVERY_SECONDS)
        await asyncio.gather(*(_half_close_one(harness, service) for _ in range(_HALF_CLOSED)))
        await asyncio.sleep(_DISCONNECT_SECONDS)
        growths = [after - before for after, before in zip(service.memory(), before_bytes, strict=True)]
        left = _connections(service)
    first = harness.timeline.first_served_after(healed)
    harness.claim("first served after recovery", first, at_most=_RECOVERY_SECONDS, unit="s")
    wrong = [each for each in harness.timeline.outcomes() if each.isdigit() and each not in {"200", "201"}]
    harness.claim("requests without a response", harness.timeline.count(FAILED), at_least=100)
    harness.claim("statuses other than 200 and 201", len(wrong), at_most=0)
    harness.claim("connections left open", left, at_most=0)
    harness.claim("memory growth of a worker", max(growths) / 2**20, at_most=_MAX_GROWTH_BYTES / 2**20, unit="MB")


def _connections(service: Service) -> int:
    """Counts the connections to callers that the workers have open."""
    found = (each for worker in service.workers() for each in worker.net_connections("tcp4"))
    return sum(each.laddr.port == service.port and each.status != psutil.CONN_LISTEN for each in found)


async def _reset(harness: Harness) -> None:
    harness.timeline.mark("connections are reset")
    harness.service_proxy.latency_seconds = _LATENCY_SECONDS
    for _ in range(int(harness.pick(100, 15))):
        await asyncio.sleep(0.1)
        harness.service_proxy.reset()
    harness.service_proxy.heal()


async def _half_close(harness: Harness) -> None:
    harness.timeline.mark("the service's direction is closed")
    for _ in range(int(harness.pick(50, 5))):
        await asyncio.sleep(0.1)
        harness.service_proxy.half_close()


async def _drip(harness: Harness) -> None:
    harness.timeline.mark(f"{_DRIP_BYTES_PER_SECOND:.0f} bytes per second")
    harness.service_proxy.bytes_per_second = _DRIP_BYTES_PER_SECOND
    await asyncio.sleep(harness.pick(15, 3))
    harness.service_proxy.heal()


async def _black_hole(harness: Harness) -> float:
    harness.timeline.mark("black hole")
    harness.service_proxy.black_hole()
    await asyncio.sleep(_BLACK_HOLE_SECONDS)
    harness.service_proxy.heal()
    return harness.timeline.mark("network recovered")


async def _half_close_one(harness: Harness, service: Service) -> None:
    """Sends an add and closes the caller's direction at once, then sends it again on an open connection.

    The service treats the first caller as disconnected. It may store the client, and it does not respond.
    """
    add = harness.ledger.new()
    for half_closes in (True, False):
        add.tries += 1
        client_id = await _send(service.port, add, half_closes=half_closes)
        if client_id is not None:
            harness.ledger.acknowledge(add, client_id)


async def _send(port: int, add: Add, *, half_closes: bool) -> int | None:
    """Sends an add. Returns the id of the response, or None if there is no response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    query = urlencode({"name": add.name, "money": add.money})
    head = f"POST /add?{query} HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {add.key}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    if half_closes:
        writer.write_eof()
    response = await reader.read()
    writer.close()
    if not response.startswith(b"HTTP/1.1 201 "):
        return None
    return int(json.loads(response.partition(b"\r\n\r\n")[2])["id"])
