"""The log: each line is valid, each request has one, and a stalled reader slows no request."""

import asyncio
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession
from aiohttp.test_utils import make_mocked_request

from ops.common.process import ROOT
from svc.http.lifecycle import Lifecycle
from svc.http.proxies import Proxies
from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Client, Log
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines

Start = Callable[..., Service]


class Pipe:
    """A pipe that is read only on demand."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.text = b""

    def read_all(self) -> list[bytes]:
        """Reads until the write end is closed, and returns all lines."""
        while part := os.read(self.read_end, 65536):
            self.text += part
        return self.text.splitlines()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def close(self, reader: threading.Thread) -> None:
        """Closes both ends; in between, the thread reads the rest."""
        os.close(self.write_end)
        reader.join(60)
        os.close(self.read_end)


async def test_no_line_contains_names_or_money(serve: Start) -> None:
    """The line of an add records the outcome, and nothing about the client that was added."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    service.wait_until_listening()
    async with (
        ClientSession() as session,
        session.post(f"{service.url}/add?name=Marigold&money=31337.25", headers={"X-Request-Id": "quoted"}) as response,
    ):
        assert response.status == 201
        body = await response.read()
    service.stop()

    (line,) = lines.requests(service.output)
    assert (line["method"], line["route"], line["status"]) == ("POST", "/add", 201)
    assert (line["bytes"], line["request_id"]) == (len(body), "quoted")
    assert "Marigold" not in service.output
    assert "31337" not in service.output


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"])
async def test_a_request_that_is_not_http_has_a_line(serve: Start, proxies: str) -> None:
    """Bytes that are not HTTP, and headers that are not UTF-8, each get a valid line."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0", TRUSTED_PROXIES=proxies)
    service.wait_until_listening()
    headers = b"Host: localhost\r\nUser-Agent: \xff\xfe\r\nX-Request-Id: \xff\r\n"
    for raw in (b"\xff\xfe nonsense\r\n\r\n", b"GET /get/1 HTTP/1.1\r\n" + headers + b"\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(raw)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        writer.close()
    service.stop()

    junk, odd = lines.requests(service.output)
    assert (junk["method"], junk["route"], junk["status"]) == ("OTHER", "not_http", 400)
    assert (odd["method"], odd["route"], odd["status"]) == ("GET", "/get/{id}", 200)


def test_a_stalled_reader_blocks_no_writer_and_drops_are_counted() -> None:
    """While the pipe is not read, lines queue up to the limit. Every further line is counted as dropped."""
    pipe = Pipe()
    writer = LineWriter(pipe.write_end, max_queued_bytes=200_000)
    lines = [b"%06d %s\n" % (number, b"x" * 100) for number in range(10_000)]
    reader = threading.Thread(target=pipe.read_all)
    with writer.threaded():
        for line in lines:
            writer.write(line)
        assert writer.dropped > 5_000
        reader.start()
        pipe.wait_for(lambda: pipe.text.count(b"\n") + writer.dropped == len(lines))
    pipe.close(reader)

    received = pipe.text.splitlines(keepends=True)
    assert len(received) + writer.dropped == len(lines)
    assert received == sorted(received)
    assert set(received) <= set(lines)


def test_a_closed_reader_is_not_an_error() -> None:
    """If the reader closed the pipe, all lines are counted as dropped."""
    pipe = Pipe()
    os.close(pipe.read_end)
    writer = LineWriter(pipe.write_end)
    with writer.threaded():
        for _ in range(100):
            writer.write(b"line\n")
    os.close(pipe.write_end)

    assert writer.dropped == 100


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("is_threaded", [True, False])
def test_a_full_non_blocking_pipe_is_not_a_closed_one(
    monkeypatch: pytest.MonkeyPatch, is_shared: bool, is_threaded: bool
) -> None:
    """Another process may set O_NONBLOCK on a shared pipe. The writer waits for a slow reader, and no line is lost."""
    monkeypatch.setattr("svc.logs.writer._DIRECT_SECONDS", 60.0)  # a busy machine may delay the reader
    pipe = Pipe()
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe.write_end, False)
    writer = LineWriter(pipe.write_end, is_shared=is_shared)
    lines = [b"%06d %s\n" % (number, b"x" * 450) for number in range(800)]
    reader = threading.Thread(target=pipe.read_all)
    reader.start()
    with writer.threaded() if is_threaded else nullcontext():
        for line in lines:
            writer.write(line)
        pipe.wait_for(lambda: pipe.text.count(b"\n") + writer.dropped == len(lines))
    pipe.close(reader)

    assert writer.dropped == 0
    assert pipe.text == b"".join(lines)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_without_its_thread_a_writer_waits_for_a_stalled_reader_for_a_limited_time(is_blocking: bool) -> None:
    """A parent of workers has no thread. It still receives signals where nothing reads its log."""
    pipe = Pipe()
    os.write(pipe.write_end, bytes(fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)))
    os.set_blocking(pipe.write_end, is_blocking)
    writer = LineWriter(pipe.write_end)
    writer.write(b"line\n")
    os.close(pipe.write_end)
    os.close(pipe.read_end)

    assert writer.dropped == 1


def test_lines_after_the_end_of_the_thread_are_written() -> None:
    """The error that ends a process is logged when the writer's thread has already ended."""
    pipe = Pipe()
    writer = LineWriter(pipe.write_end)
    with writer.threaded():
        writer.write(b"first\n")
    writer.write(b"last\n")
    os.close(pipe.write_end)
    lines = pipe.read_all()
    os.close(pipe.read_end)

    assert lines == [b"first", b"last"]


@pytest.mark.slow
def test_after_an_error_inside_a_line_the_next_line_is_whole(tmp_path: Path) -> None:
    """Wherever the disk is full, each line is either whole or counted as dropped, and none continues another."""
    code = (
        "import os, resource, sys; from svc.logs.writer import LineWriter\n"
        "given = b''.join(b'line %d\\n' % number for number in range(8))\n"
        "for limit in range(len(given) + 1):\n"
        "    with open(sys.argv[1], 'wb') as file:\n"
        "        writer = LineWriter(file.fileno())\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "        writer.write(given); writer.write(b'line 8\\n')\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "        writer.write(b'line 9\\n')\n"
        "    with open(sys.argv[1], 'rb') as file:\n"
        "        lines = file.read().split(b'\\n')\n"
        "    whole = [line for line in lines if len(line) == len(b'line 0')]\n"
        "    assert lines[-2:] == [b'line 9', b''], lines\n"
        "    assert len(whole) + writer.dropped == 10, (limit, lines, writer.dropped)\n"
        "    assert whole == sorted(set(whole)) and len(lines) - len(whole) <= 2, lines\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)


@pytest.mark.slow
def test_a_reader_that_never_reads_does_not_keep_the_process_alive() -> None:
    """At its end, the writer waits for the reader only for a limited time."""
    code = (
        "import os; from svc.logs.writer import LineWriter\n"
        "read, write = os.pipe(); writer = LineWriter(write)\n"
        "with writer.threaded():\n"
        "    for _ in range(10_000): writer.write(b'x' * 99 + b'\\n')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=PATIENCE_SECONDS)


@pytest.mark.slow
async def test_a_stalled_reader_fails_no_request(database_settings: DatabaseSettings) -> None:
    """Stdout is a pipe that is never read, and full after a few lines. The service still answers every request."""
    pipe = Pipe()
    fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, 4096)
    service = Service(
        {"DATABASE_URL": database_settings.dsn, "LOG_FORMAT": "json", "DRAIN_SECONDS": "0"}, stdout=pipe.write_end
    )
    try:
        service.wait_until_listening()
        async with ClientSession() as session:
            for _ in range(20):
                statuses = await asyncio.gather(*(get_status(session, f"{service.url}/get/1") for _ in range(10)))
                assert set(statuses) == {200}
        assert await asyncio.to_thread(service.stop) == 0
    finally:
        service.end()
        os.close(pipe.read_end)
        os.close(pipe.write_end)


async def get_status(session: ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


@pytest.mark.usefixtures("log")
def test_the_service_and_its_libraries_log_in_one_format() -> None:
    """Records of a library, a message with invalid bytes and the service's own are JSON with the catalogue's fields."""
    pipe = Pipe()
    logs.configure(LineWriter(pipe.write_end), readable=False)
    logging.getLogger("some.library").warning("invalid bytes: %s", b"\xff".decode(errors="surrogateescape"))
    try:
        int("broken " * 1000)
    except ValueError:
        structlog.get_logger().exception(names.REQUEST_FAILED, request_id="r")
        logging.getLogger("asyncio").exception("failed")
    structlog.get_logger().warning(names.DATABASE_UNAVAILABLE, error="OSError", detail=logs.shorten("long " * 1000))
    os.close(pipe.write_end)
    lines = pipe.read_all()
    os.close(pipe.read_end)

    parsed = [json.loads(line) for line in lines]
    assert [record["event"] for record in parsed] == ["library", "request_failed", "library", "database_unavailable"]
    for record, line in zip(parsed, lines, strict=True):
        assert record.keys() <= names.FIELDS.keys()
        assert record["event"] in names.EVENTS
        assert record["level"] in ("warning", "error")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["timestamp"])
        assert len(line) < 4096  # PIPE_BUF: the size of an atomic write to a pipe
    assert "ValueError: invalid literal" in parsed[1]["exception"]
    assert "ValueError: invalid literal" in parsed[2]["exception"]


@pytest.mark.usefixtures("log")
def test_lines_for_a_terminal_are_readable() -> None:
    """The readable form has the same fields, and is not JSON."""
    pipe = Pipe()
    logs.configure(LineWriter(pipe.write_end), readable=True)
    structlog.get_logger().info(names.STARTED, port=8080)
    os.close(pipe.write_end)
    (line,) = pipe.read_all()
    os.close(pipe.read_end)

    assert b"started" in line
    assert b"8080" in line
    assert not line.startswith(b"{")


async def test_the_readable_form_has_no_metrics_documents(serve: Start) -> None:
    """With LOG_FORMAT=text, the log has readable lines and no JSON, not even when metrics are flushed at the end."""
    service = serve(LOG_FORMAT="text", DRAIN_SECONDS="0")
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
        assert response.status == 200
    service.stop()

    assert "/get/{id}" in service.output
    assert lines.records(service.output) == []


async def test_only_failed_probes_have_a_line(api: Client, lifecycle: Lifecycle, log: Log) -> None:
    """A successful probe is not logged."""
    for path in ("/healthz", "/readyz", "/version"):
        assert (await api.get(path)).status == 200
    lifecycle.draining = True
    assert (await api.get("/readyz")).status == 503
    logged: list[tuple[str, int]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(logged) < 2:  # lines are collected for 20 ms
            await asyncio.sleep(0.01)
            logged += [(line["route"], line["status"]) for line in log.read()]

    assert logged == [("/version", 200), ("/readyz", 503)]


def test_every_name_in_the_code_is_in_the_catalogue() -> None:
    """Events are logged by their constants, and every constant in the catalogue is used."""
    code = "".join(path.read_text() for path in (ROOT / "svc").rglob("*.py") if path.name != "names.py")
    constants = {name: value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}

    assert not re.findall(r"_log\.(?:debug|info|warning|error|exception)\((?!\s*names\.)", code)
    for constant, value in constants.items():
        assert any(use in code for use in (f"names.{constant}", f"{value}=", f'"{value}": ')), constant


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.9", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.9", ["6.6.6.6, 198.51.100.7, 10.0.0.8"], "198.51.100.7"),
        ("10.0.0.9", ["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.9", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.9", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("10.0.0.9", ["198.51.100.7, <script>"], "10.0.0.9"),
        ("10.0.0.9", [], "10.0.0.9"),
        ("203.0.113.5", ["198.51.100.7"], "203.0.113.5"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str, forwarded_for: list[str], client: str) -> None:
    """The caller is the nearest address that is not a trusted proxy; addresses that the caller sent are ignored."""
    request: Any = make_mocked_request("GET", "/", headers=[("X-Forwarded-For", hops) for hops in forwarded_for])
    request.peer = peer

    assert Proxies([ip_network("10.0.0.0/8")]).client_address(request) == client
    assert Proxies([]).client_address(request) == peer
