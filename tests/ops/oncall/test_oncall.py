"""make run and make oncall together, as people start them: the database stops, and whoever is on call sees it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from ops.common.ports import free_port
from ops.common.process import ROOT, Service
from ops.oncall.recorder import FILE
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings

SEEN_SECONDS = 30  # that whoever is on call waits at most to see it
CLEAR_SECONDS = 90  # an alarm that looks at a minute, and what was told late


@pytest.fixture
def service(database_settings: DatabaseSettings, short_folder: Path) -> Iterator[Service]:
    """What make run starts, on the tests' PostgreSQL."""
    environment = {"DATABASE_URL": database_settings.dsn, "LOCAL_FOLDER": str(short_folder), "DRAIN_SECONDS": "0.2"}
    found = Service(environment, module=["ops.oncall.recorder"])
    try:
        found.wait_until_listening()
        yield found
    finally:
        found.end()


@pytest.fixture
def page(short_folder: Path) -> Iterator[str]:
    """What make oncall starts: its address."""
    port = free_port()
    command = [sys.executable, "-m", "ops.oncall", "--follow", str(short_folder / FILE), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def callers(service: Service) -> AsyncIterator[None]:
    """Some requests a second meanwhile."""

    async def call() -> None:
        async with ClientSession() as session:
            while True:
                async with session.get(f"{service.url}/get/1") as answer:
                    await answer.read()
                await asyncio.sleep(0.05)

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(page: str, seconds: float, is_so: Callable[[Mapping[str, Any]], bool]) -> float:
    """How long it takes until the alarms on the page are so."""
    started = time.monotonic()
    async with ClientSession() as session:
        while True:
            with suppress(ClientError):
                async with session.get(f"{page}/api/head") as answer:
                    alarms = {alarm["name"]: alarm for alarm in (await answer.json())["alarms"]}
                    if alarms and is_so(alarms):
                        return time.monotonic() - started
            assert time.monotonic() - started < seconds, alarms
            await asyncio.sleep(0.2)


async def test_a_database_that_stops_is_seen_within_30_s(
    service: Service, page: str, postgres: EmbeddedPostgres
) -> None:
    """As a firing alarm that says why, and a page for what callers suffer; and so is its return."""
    async with callers(service):
        await until(page, SEEN_SECONDS, lambda alarms: alarms["silence"]["state"] == "OK")
        await asyncio.sleep(10)
        await asyncio.to_thread(postgres.stop)
        try:
            seen = await until(page, SEEN_SECONDS, lambda alarms: alarms["database-away"]["state"] == "ALARM")
            paged = await until(
                page, SEEN_SECONDS - seen, lambda alarms: alarms["availability-fast"]["state"] == "ALARM"
            )
        finally:
            postgres.start()  # here, not in a thread: the server ends with the thread that started it
        cleared = await until(page, CLEAR_SECONDS, lambda alarms: alarms["database-away"]["state"] == "OK")
    print(f"seen after {seen:.0f} s, paged after {seen + paged:.0f} s, over {cleared:.0f} s after its return")
