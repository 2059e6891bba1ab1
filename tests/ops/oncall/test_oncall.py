"""The service, the recorder and the page together: an outage of the database fires an alarm on the page."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientError, ClientSession

from ops.cloudwatch import rows
from ops.common.process import ROOT
from ops.oncall.alarms import _EXTRA_POINTS
from ops.oncall.machine import NAME
from ops.oncall.recorder import FILE
from ops.oncall.server import POLL_SECONDS
from ops.oncall.state import CLOUDWATCH, EVALUATION_SECONDS
from svc.postgres.embedded import EmbeddedPostgres
from svc.telemetry.settings import TelemetrySettings
from tests.ops.oncall.page import OnCall
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

ALARM: Final = rows.load(NAME, CLOUDWATCH / "alarms.yaml").metric["database-unavailable"]


@asynccontextmanager
async def callers(service: Service) -> AsyncIterator[None]:
    """Sends requests continuously, some per second."""

    async def call() -> None:
        async with ClientSession() as session:
            while True:
                async with session.get(f"{service.url}/get/1") as response:
                    await response.read()
                await asyncio.sleep(0.05)

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def wait_for_alarms(page: OnCall, states: Mapping[str, str]) -> None:
    """Waits until the alarms on the page have these states."""
    found = await wait_for_json(
        f"{page.url}/api/head",
        lambda head: states.items() <= {alarm["name"]: alarm["state"] for alarm in head["alarms"]}.items(),
    )
    assert all(alarm["reason"] for alarm in found["alarms"] if alarm["name"] in states)


async def wait_for_json(url: str, condition: Callable[[Any], bool], **parameters: str) -> Any:
    """Requests a URL until its JSON meets a condition."""
    end = time.monotonic() + PATIENCE_SECONDS
    async with ClientSession() as session:
        while True:
            with suppress(ClientError):
                async with session.get(url, params=parameters) as response:
                    found = await response.json()
                    if condition(found):
                        return found
                    assert time.monotonic() < end, json.dumps(found)
            await asyncio.sleep(0.1)


async def test_an_outage_of_the_database_fires_and_clears_alarms(
    service: Service, short_folder: Path, postgres: EmbeddedPostgres
) -> None:
    """One alarm reports the cause, another the effect on callers. After the outage the first one clears."""
    with OnCall(short_folder / FILE, CLOUDWATCH) as page:
        async with callers(service):
            await wait_for_alarms(page, {"no-telemetry": "OK", "database-unavailable": "OK"})
            await asyncio.to_thread(postgres.stop)
            try:
                await wait_for_alarms(page, {"database-unavailable": "ALARM", "availability": "ALARM"})
            finally:
                postgres.start()  # not in a thread: the server ends with the thread that started it
            recovered = 'filter event = "database_recovered"'
            await wait_for_json(f"{page.url}/api/query", lambda found: found["matched"] >= 1, q=recovered)
            # The alarm sees 10 s before and all that follows, however long the outage was.
            page.ahead_seconds += (ALARM.periods + _EXTRA_POINTS) * ALARM.period_seconds - 10
            await wait_for_alarms(page, {"database-unavailable": "OK"})


def test_default_intervals_show_an_outage_within_30_seconds() -> None:
    """The sum of all delays from the first failed request to the page, at their maximum."""
    outage = ALARM.threshold * ALARM.period_seconds  # that breaches the threshold of an average of 0 and 1
    script = (ROOT / "ops" / "oncall" / "page" / "main.js").read_text()
    (refresh_ms,) = re.findall(r"REFRESH_MS = (\d+);", script)

    delays = outage, TelemetrySettings.metrics_interval, POLL_SECONDS, EVALUATION_SECONDS, int(refresh_ms) / 1000
    assert ALARM.periods_to_alarm == 1
    assert sum(delays) <= 30
