"""Serves the API and records what it tells: `python -m ops.oncall.recorder`, which is what `make run` does.

A recording is a file of JSON lines: the service's own, its metrics' documents among them; its traces, which it sends
here as it would to a collector; and this machine's figures. `make oncall` shows it.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import orjson
from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ops.oncall import otlp
from ops.oncall.machine import Machine
from ops.oncall.metrics import told
from ops.oncall.sources import put_aside
from svc.errors import InvalidSetting
from svc.logs import names
from svc.logs import setup as logs
from svc.postgres.embedded import EmbeddedPostgres
from svc.settings import Settings, read

FILE: Final = "recording.jsonl"

_MOST_BYTES: Final = 512 * 2**20  # some 150,000 requests; then the file is put aside, in place of the one before
_READ_BYTES: Final = 2**16
_SPANS_MOST_BYTES: Final = 16 * 2**20  # of an export
_LOOK_SECONDS: Final = 10.0  # from one look at the machine to the next: as often as the service tells
_PROBE_SECONDS: Final = 5.0  # as often as a node asks its pods whether they are ready
_SHOWN_MOST: Final = 50  # lines a second on a terminal, where a person reads


class Recording:
    """The file."""

    def __init__(self, path: Path) -> None:
        put_aside(path).unlink(missing_ok=True)  # it is of another run
        self._path = path
        self._file = path.open("wb", buffering=0)

    def write(self, lines: bytes) -> None:
        """Adds whole lines."""
        if self._file.tell() > _MOST_BYTES:
            self._file.close()
            self._path.replace(put_aside(self._path))
            self._file = self._path.open("wb", buffering=0)
        self._file.write(lines)

    def close(self) -> None:
        """Closes it."""
        self._file.close()

    def add(self, documents: Iterable[dict[str, Any]]) -> None:
        """Adds documents, a line each."""
        self.write(b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in documents))


class Screen:
    """Shows lines to whoever started this: as they are, or on a terminal as people read them, and not all of many."""

    def __init__(self) -> None:
        self._render = logs.for_people() if sys.stdout.isatty() else None
        self._second = 0
        self._shown = self._hidden = 0

    def show(self, lines: list[bytes]) -> None:
        """Shows lines, without what is only for machines where people read."""
        if self._render is None:
            sys.stdout.buffer.write(b"\n".join([*lines, b""]))
        else:
            for line in lines:
                if b'"_aws"' not in line:
                    self._show(line, self._render)
        sys.stdout.flush()

    def _show(self, line: bytes, render: logs.Render) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._hidden:
                sys.stdout.buffer.write(f"… and {self._hidden} more lines in that second\n".encode())
            self._second, self._shown, self._hidden = second, 0, 0
        if self._shown >= _SHOWN_MOST:
            self._hidden += 1
            return
        self._shown += 1
        sys.stdout.buffer.write(render(orjson.loads(line)) if line.startswith(b"{") else line + b"\n")


class Recorder:
    """Takes what a service tells.

    Args:
        recording: keeps it.
        machine: is told how much was shipped.

    Attributes:
        port: of the service, once it listens.
    """

    def __init__(self, recording: Recording, machine: Machine) -> None:
        self.port: int | None = None
        self._recording = recording
        self._machine = machine
        self._screen = Screen()

    async def take_lines(self, stdout: asyncio.StreamReader) -> None:
        """Takes lines until there are no more."""
        rest = b""
        while data := await stdout.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                self._recording.write(b"\n".join([*lines, b""]))
                self._note(lines)
                self._screen.show(lines)

    def _note(self, lines: list[bytes]) -> None:
        shipped = self._machine.shipped
        shipped.records += len(lines)
        for line in lines:
            if b'"_aws"' in line:
                try:
                    list(told(orjson.loads(line)))
                except orjson.JSONDecodeError:
                    shipped.unread += 1
                except (KeyError, TypeError, ValueError):
                    shipped.invalid += 1
            elif b'"worker_exited"' in line:
                shipped.restarts += 1
            elif self.port is None and b'"started"' in line:
                self.port = orjson.loads(line).get(names.PORT)

    async def take_spans(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`, as OTLP over HTTP has it."""
        try:
            document, spans = otlp.as_json(ExportTraceServiceRequest.FromString(await request.read()))
        except DecodeError:
            self._machine.shipped.spans_refused += 1
            return web.Response(status=400)
        self._machine.shipped.spans += spans
        self._recording.add([document])
        return web.Response(content_type="application/x-protobuf")

    async def look_at_machine(self) -> None:
        """Adds the machine's figures now and then, from when there is a service to look at."""
        while True:
            while self.port is None:  # noqa: ASYNC110 - it is told in a line
                await asyncio.sleep(0.1)
            self._recording.add(await self._machine.look(time.time_ns() // 1_000_000))
            await asyncio.sleep(_LOOK_SECONDS)

    async def probe(self) -> None:
        """Asks the service whether it is ready now and then, as a node would. What it answers, it tells itself."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_PROBE_SECONDS)) as session:
            while True:
                await asyncio.sleep(_PROBE_SECONDS)
                if self.port is not None:
                    with suppress(aiohttp.ClientError, TimeoutError):
                        await (await session.get(f"http://127.0.0.1:{self.port}/readyz")).read()


async def serve(settings: Settings) -> int:
    """Serves and records until the service ends, and gives its exit status."""
    path = settings.local_folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    dsn = settings.database.dsn or EmbeddedPostgres(settings.local_folder).dsn()
    with socket.create_server(("127.0.0.1", 0)) as collector, closing(Recording(path)) as recording:
        process = await _start(f"http://127.0.0.1:{collector.getsockname()[1]}")
        recorder = Recorder(recording, Machine(process.pid, dsn, path.parent))
        print("On call  make oncall shows its dashboards, alarms, logs and traces", file=sys.stderr, flush=True)
        async with _collecting(recorder, collector), _meanwhile(recorder.look_at_machine(), recorder.probe()):
            await recorder.take_lines(cast("asyncio.StreamReader", process.stdout))
            status = await process.wait()
    return status if status >= 0 else 128 - status  # as a shell says that a signal ended it


async def _start(collector: str) -> Process:
    """Starts the service, and hands on the signals that are for it."""
    environment = {
        "LOG_FORMAT": "json",
        "WORKERS": "2",  # as there are two pods
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER_ARG": "1",  # whoever tries a request wants to see its trace
        **os.environ,
    }
    # Not in the terminal's group: it gets each signal once, from here.
    command = [sys.executable, "-m", "svc", "serve"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment, start_new_session=True)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, process.send_signal, number)
    return process


@asynccontextmanager
async def _collecting(recorder: Recorder, collector: socket.socket) -> AsyncIterator[None]:
    app = web.Application(client_max_size=_SPANS_MOST_BYTES)
    app.router.add_post("/v1/traces", recorder.take_spans)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, collector).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """Serves and records; the service's exit status."""
    try:
        return asyncio.run(serve(read(os.environ)))
    except InvalidSetting as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
