"""Runs the service and records its telemetry: `python -m ops.oncall.recorder`, which `make run` starts.

A recording is a file of JSON lines: the service's log lines and metric documents; its traces, which it exports to this
process as to a collector; and this machine's figures. `make oncall` shows the recording.
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
from ops.oncall.metrics import samples_of
from ops.oncall.sources import max_bytes, rotated
from svc.errors import InvalidSetting
from svc.logs import console, names
from svc.postgres.embedded import EmbeddedPostgres
from svc.settings import Settings, read

FILE: Final = "recording.jsonl"

_READ_BYTES: Final = 2**16
_MAX_EXPORT_BYTES: Final = 16 * 2**20
PROBE_SECONDS: Final = 5.0  # the interval of the readiness probe in k8s/base/deployment.yaml
_MAX_LINES_PER_SECOND: Final = 50  # on a terminal
_LIFECYCLE: Final = [f'"event":"{event}"'.encode() for event in (names.STARTED, names.STOPPING, names.WORKER_EXITED)]


class Recording:
    """The file that is written, and the one before it.

    Args:
        path: of the file. A file of an earlier run is overwritten.
        max_bytes: of both files together.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        rotated(path).unlink(missing_ok=True)  # of an earlier run
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("wb", buffering=0)

    def write(self, lines: bytes) -> None:
        """Writes whole lines, after a rotation where they do not fit into half of the maximum size."""
        if self._file.tell() and self._file.tell() + len(lines) > self._max_bytes / 2:
            self._file.close()
            self._path.replace(rotated(self._path))
            self._file = self._path.open("wb", buffering=0)
        self._file.write(lines)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def add(self, documents: Iterable[dict[str, Any]]) -> None:
        """Writes documents, one per line."""
        self.write(b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in documents))


class Screen:
    """Prints lines: unchanged to a file or a pipe, or formatted for people and limited in number on a terminal."""

    def __init__(self) -> None:
        self._render = console.renderer() if sys.stdout.isatty() else None
        self._second = 0
        self._shown = self._hidden = 0

    def show(self, lines: list[bytes]) -> None:
        """Prints lines; on a terminal, without metric documents."""
        if self._render is None:
            sys.stdout.buffer.write(b"\n".join([*lines, b""]))
        else:
            for line in lines:
                if b'"_aws"' not in line:
                    self._show(line, self._render)
        sys.stdout.flush()

    def _show(self, line: bytes, render: console.Render) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._hidden:
                sys.stdout.buffer.write(f"… and {self._hidden} more lines in that second\n".encode())
            self._second, self._shown, self._hidden = second, 0, 0
        if self._shown >= _MAX_LINES_PER_SECOND:
            self._hidden += 1
            return
        self._shown += 1
        sys.stdout.buffer.write(render(orjson.loads(line)) if line.startswith(b"{") else line + b"\n")


class Recorder:
    """Records the log lines, metrics and traces of a service, and the figures of its machine.

    Args:
        recording: the file.
        machine: sampled regularly; counts what was recorded.

    Attributes:
        port: of the service, once it listens.
    """

    def __init__(self, recording: Recording, machine: Machine) -> None:
        self.port: int | None = None
        self._recording = recording
        self._machine = machine
        self._screen = Screen()

    async def record_lines(self, stdout: asyncio.StreamReader) -> None:
        """Records the lines of the service until it closes its output."""
        rest = b""
        while data := await stdout.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                self._recording.write(b"\n".join([*lines, b""]))
                self._count(lines)
                self._screen.show(lines)

    def _count(self, lines: list[bytes]) -> None:
        shipped = self._machine.shipped
        shipped.records += len(lines)
        for line in lines:
            if b'"_aws"' in line:
                try:
                    list(samples_of(orjson.loads(line)))
                except orjson.JSONDecodeError:
                    shipped.unread += 1
                except (KeyError, TypeError, ValueError):
                    shipped.invalid += 1
            elif any(event in line for event in _LIFECYCLE):
                with suppress(orjson.JSONDecodeError):  # the service could write only a part of the line
                    self._follow(orjson.loads(line))

    def _follow(self, line: dict[str, Any]) -> None:
        shipped = self._machine.shipped
        match line[names.EVENT]:
            case names.STARTED:
                self.port = line[names.PORT]
                shipped.start(line[names.POD])
            case names.STOPPING:
                shipped.stop(line[names.POD])
            case names.WORKER_EXITED:
                shipped.restarts += 1
                shipped.stop(line[names.POD])

    async def receive_spans(self, request: web.Request) -> web.Response:
        """Handles `POST /v1/traces` of OTLP over HTTP."""
        try:
            document, spans = otlp.as_json(ExportTraceServiceRequest.FromString(await request.read()))
        except DecodeError:
            self._machine.shipped.spans_refused += 1
            return web.Response(status=400)
        self._machine.shipped.spans += spans
        self._recording.add([document])
        return web.Response(content_type="application/x-protobuf")

    async def sample_machine(self, seconds: float) -> None:
        """Records the machine's figures every few seconds, from when the service listens."""
        while True:
            while self.port is None:  # noqa: ASYNC110 - record_lines sets it
                await asyncio.sleep(0.1)
            self._recording.add(await self._machine.sample(time.time_ns() // 1_000_000))
            await asyncio.sleep(seconds)

    async def probe(self) -> None:
        """Requests /readyz regularly, as a node does. The service itself logs and counts the result."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PROBE_SECONDS)) as session:
            while True:
                await asyncio.sleep(PROBE_SECONDS)
                if self.port is not None:
                    self._machine.shipped.is_reachable = await _is_ready(session, self.port)


async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            await response.read()
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def serve(settings: Settings, max_bytes: int) -> int:
    """Runs and records the service until it exits; returns its exit status.

    Args:
        settings: of the service.
        max_bytes: of the recording.
    """
    path = settings.local_folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    dsn = settings.database.dsn or EmbeddedPostgres(settings.local_folder).dsn()
    with socket.create_server(("127.0.0.1", 0)) as collector, closing(Recording(path, max_bytes)) as recording:
        process = await _start(f"http://127.0.0.1:{collector.getsockname()[1]}")
        recorder = Recorder(recording, Machine(process.pid, dsn, path))
        print("On call  make oncall shows dashboards, alarms, logs and traces", file=sys.stderr, flush=True)
        sampling = recorder.sample_machine(settings.telemetry.metrics_interval)
        async with _collecting(recorder, collector), _running(sampling, recorder.probe()):
            await recorder.record_lines(cast("asyncio.StreamReader", process.stdout))
            status = await process.wait()
    return status if status >= 0 else 128 - status  # as a shell reports a process that a signal ended


async def _start(collector: str) -> Process:
    """Starts the service, and forwards signals to it."""
    environment = {
        "LOG_FORMAT": "json",
        "WORKERS": "2",  # as the deployment has two pods
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        # A developer who sends a request wants to see its trace.
        "OTEL_TRACES_SAMPLER_ARG": "1",
        "TRACES_PER_SECOND": "10",
        **os.environ,
    }
    # In its own session: otherwise Ctrl-C would reach it twice, from the terminal and from here.
    command = [sys.executable, "-m", "svc", "serve"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment, start_new_session=True)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, process.send_signal, number)
    return process


@asynccontextmanager
async def _collecting(recorder: Recorder, collector: socket.socket) -> AsyncIterator[None]:
    app = web.Application(client_max_size=_MAX_EXPORT_BYTES)
    app.router.add_post("/v1/traces", recorder.receive_spans)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, collector).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """Runs and records the service; returns its exit status."""
    try:
        return asyncio.run(serve(read(os.environ), max_bytes(os.environ)))
    except InvalidSetting as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
