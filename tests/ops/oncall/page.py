"""A server of the on-call page for tests, on a recording."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Final, Self

import orjson
from aiohttp import web

from ops.oncall.server import Server
from ops.oncall.sources import Follow
from ops.oncall.state import OnCallState
from svc.logs import names
from svc.telemetry.metrics import documents
from tests.patience import PATIENCE_SECONDS

CLOUDWATCH: Final = Path(__file__).parent / "cloudwatch"


class OnCall:
    """Serves the page in a thread, on a recording to which the test can add lines.

    Args:
        recording: its file.
        folder: of the dashboards, alarms, queries and runbooks.
        now: the time at which the server's clock stands still, in seconds since 1970, so that it does not matter how
            long a test takes; None for a clock that runs.

    Attributes:
        url: of the page.
        ahead_seconds: how far the server's clock is ahead.
    """

    def __init__(self, recording: Path, folder: Path = CLOUDWATCH, now: float | None = None) -> None:
        self.url = ""
        self.ahead_seconds = 0.0
        self._now = now
        self._recording = recording
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        state = OnCallState(Follow(self._recording), folder=self._folder)
        server = Server(state, self._folder / "runbooks", clock=self.clock)
        self._runner = web.AppRunner(server.app(is_loopback=True), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._is_up.set()

    def clock(self) -> float:
        """The time of the server."""
        return (time.time() if self._now is None else self._now) + self.ahead_seconds

    def record(self, *lines: bytes) -> None:
        """Adds lines to the recording."""
        with self._recording.open("ab") as file:
            file.write(b"".join(lines))

    def stop(self) -> None:
        """Stops the server, as Ctrl-C does."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE_SECONDS)


def faults(count: int, at: float) -> bytes:
    """A metric document with a number of faults, as the service's own code writes it at this time."""
    (written,) = documents(((),), {names.FAULTS: count, names.REQUESTS: count}, {})
    line = orjson.loads(written)
    line["_aws"]["Timestamp"] = int(at * 1000)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
