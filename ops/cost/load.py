"""Sends requests at the times of a Poisson process, and counts what comes back."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import aiohttp

from ops.load.arrivals import scheduled_times, steady
from ops.load.scenarios import SCENARIOS
from svc.telemetry.record import SLOW_SECONDS

SEEDED: Final = 4  # clients that exist before a run

_MIX: Final = SCENARIOS["mixed"].shares
_WITHOUT_MONEY: Final = ("POST", "/add?name=Client+without+money")


@dataclass
class Traffic:
    """What was sent and received.

    Attributes:
        requests: sent.
        failed: how many got no response, or one with a status of 400 or above.
        slow: how many got a response after more than 100 ms.
        request_bytes: heads that were sent; no request has a body.
        response_bytes: heads and bodies that were received.
    """

    requests: int = 0
    failed: int = 0
    slow: int = 0
    request_bytes: int = 0
    response_bytes: int = 0


async def run(url: str, rate: float, seconds: float, failed: float) -> Traffic:
    """Sends the requests of the scenario `mixed`, and a share of invalid ones, each whatever happens to the others."""
    traffic, rng, start = Traffic(), random.Random(1), time.perf_counter()  # the same requests in each run
    requests = _requests(rng, failed)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as session, asyncio.TaskGroup() as tasks:
        for scheduled in scheduled_times(rate, seconds, steady, rng):
            await asyncio.sleep(scheduled - (time.perf_counter() - start))
            tasks.create_task(_send(session, *next(requests), traffic))
    return traffic


def _requests(rng: random.Random, failed: float) -> Iterator[tuple[str, str]]:
    while True:
        client = rng.randint(1, SEEDED)
        (endpoint,) = rng.choices(list(_MIX), list(_MIX.values()))
        valid = {
            "get": ("GET", f"/get/{client}"),
            "add": ("POST", f"/add?name=Client+{client}&money=12.50"),
            "getall": ("GET", "/getall?limit=100"),
        }
        yield _WITHOUT_MONEY if rng.random() < failed else valid[endpoint]


async def _send(session: aiohttp.ClientSession, method: str, path: str, traffic: Traffic) -> None:
    traffic.requests += 1
    start = time.perf_counter()
    try:
        async with session.request(method, path) as response:
            body = await response.read()
    except aiohttp.ClientError:
        traffic.failed += 1
        return
    traffic.failed += response.status >= 400
    traffic.slow += time.perf_counter() - start > SLOW_SECONDS
    sent, received = response.request_info.headers.items(), response.raw_headers
    traffic.request_bytes += len(f"{method} {path} HTTP/1.1\r\n\r\n") + sum(len(k) + len(v) + 4 for k, v in sent)
    traffic.response_bytes += len("HTTP/1.1 200 OK\r\n\r\n") + sum(len(k) + len(v) + 4 for k, v in received) + len(body)
