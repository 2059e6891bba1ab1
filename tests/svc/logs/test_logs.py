"""What the service logs: each line parses, each request has one, and no reader of them slows a request."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession
from aiohttp.test_utils import make_mocked_request

from ops.common.process import ROOT, Service
from svc.http.lifecycle import Lifecycle
from svc.http.proxies import Proxies
from svc.logs import names
from svc.logs import setup as logs
from svc.logs.writer import LineWriter
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Client, Log
from tests.svc.logs import lines

Start = Callable[..., Service]


class Pipe:
    """A pipe whose reader reads when it is told to."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.text = b""

    def read_all(self) -> list[bytes]:
        """What was written until the write end was closed, as lines."""
        while part := os.read(self.read_end, 65536):
            self.text += part
        return self.text.splitlines()


async def test_names_and_money_are_in_no_line(serve: Start) -> None:
    """An add's line says how it went, and nothing of who was added."""
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
async def test_what_is_not_http_has_a_line(serve: Start, proxies: str) -> None:
    """A request that no parser takes, with bytes that are no UTF-8, has a line of its own."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0", TRUSTED_PROXIES=proxies)
    service.wait_until_listening()
    headers = b"Host: x\r\nUser-Agent: \xff\xfe\r\nX-Request-Id: \xff\r\n"
    for raw in (b"\xff\xfe nonsense\r\n\r\n", b"GET /get/1 HTTP/1.1\r\n" + headers + b"\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(raw)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
    service.stop()

    junk, odd = lines.requests(service.output)
    assert (junk["method"], junk["route"], junk["status"]) == ("OTHER", "not_http", 400)
    assert (odd["method"], odd["route"], odd["status"]) == ("GET", "/get/{id}", 200)


def test_a_reader_who_stalls_stops_no_writer_and_drops_are_counted() -> None:
    """While nobody reads, lines queue up to the bound; those beyond are counted, and none is lost uncounted."""
    pipe = Pipe()
    writer = LineWriter(pipe.write_end, max_queued_bytes=200_000)
    lines = [b"%06d %s\n" % (number, b"x" * 100) for number in range(10_000)]
    reader: threading.Thread | None = None
    with writer.threaded():
        for line in lines:
            writer.write(line)
        assert writer.dropped > 5_000
        reader = threading.Thread(target=pipe.read_all)
        reader.start()
    os.close(pipe.write_end)
    reader.join(10)
    os.close(pipe.read_end)

    arrived = pipe.text.splitlines(keepends=True)
    assert len(arrived) + writer.dropped == len(lines)
    assert arrived == sorted(arrived)
    assert set(arrived) <= set(lines)


def test_a_reader_who_is_gone_is_no_error() -> None:
    """Once the other end is closed, lines are counted as dropped."""
    pipe = Pipe()
    os.close(pipe.read_end)
    writer = LineWriter(pipe.write_end)
    with writer.threaded():
        for _ in range(100):
            writer.write(b"line\n")
    os.close(pipe.write_end)

    assert writer.dropped == 100


def test_a_reader_who_never_reads_does_not_keep_the_process() -> None:
    """The end waits for the reader within a bound."""
    code = (
        "import os; from svc.logs.writer import LineWriter\n"
        "read, write = os.pipe(); writer = LineWriter(write)\n"
        "with writer.threaded():\n"
        "    for _ in range(10_000): writer.write(b'x' * 99 + b'\\n')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=20)


async def test_a_stalled_reader_fails_no_request(database_settings: DatabaseSettings) -> None:
    """Nobody reads stdout, whose pipe is full after some hundred lines: every request is answered all the same."""
    pipe = Pipe()
    service = Service(
        {"DATABASE_URL": database_settings.dsn, "LOG_FORMAT": "json", "DRAIN_SECONDS": "0"}, stdout=pipe.write_end
    )
    try:
        service.wait_until_listening()
        async with ClientSession() as session:
            for _ in range(20):
                answers = await asyncio.gather(*(status(session, f"{service.url}/get/1") for _ in range(100)))
                assert set(answers) == {200}
        assert await asyncio.to_thread(service.stop) == 0
    finally:
        service.end()
        os.close(pipe.read_end)
        os.close(pipe.write_end)


async def status(session: ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


@pytest.mark.usefixtures("log")
def test_libraries_and_our_own_have_one_shape() -> None:
    """A library's record, a warning with odd bytes and our own are JSON lines with the catalogue's fields."""
    pipe = Pipe()
    logs.configure(LineWriter(pipe.write_end), readable=False)
    logging.getLogger("some.library").warning("odd bytes: %s", b"\xff".decode(errors="surrogateescape"))
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
        assert len(line) < 4096  # so much reaches a pipe in one piece
    assert "ValueError: invalid literal" in parsed[1]["exception"]
    assert "ValueError: invalid literal" in parsed[2]["exception"]


@pytest.mark.usefixtures("log")
def test_on_a_terminal_the_lines_are_for_people() -> None:
    """The readable form has the same fields and no JSON."""
    pipe = Pipe()
    logs.configure(LineWriter(pipe.write_end), readable=True)
    structlog.get_logger().info(names.STARTED, port=8080)
    os.close(pipe.write_end)
    (line,) = pipe.read_all()
    os.close(pipe.read_end)

    assert b"started" in line
    assert b"8080" in line
    assert not line.startswith(b"{")


async def test_in_the_form_for_people_there_are_no_documents(serve: Start) -> None:
    """LOG_FORMAT=text: a request's line in words, and nothing for machines."""
    service = serve(LOG_FORMAT="text", DRAIN_SECONDS="0", METRICS_INTERVAL="1")
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as answer:
        assert answer.status == 200
    await asyncio.sleep(1.2)
    service.stop()

    assert "/get/{id}" in service.output
    assert lines.records(service.output) == []


async def test_probes_have_a_line_only_where_they_fail(api: Client, lifecycle: Lifecycle, log: Log) -> None:
    """A healthy probe is not worth a line."""
    for path in ("/healthz", "/readyz", "/version"):
        assert (await api.get(path)).status == 200
    lifecycle.draining = True
    assert (await api.get("/readyz")).status == 503
    await asyncio.sleep(0.1)  # lines gather for 20 ms
    told = [(line["route"], line["status"]) for line in log.read()]

    assert told == [("/version", 200), ("/readyz", 503)]


def test_every_name_in_the_code_is_in_the_catalogue() -> None:
    """What is logged has its name from the catalogue, and the catalogue has no name that nobody uses."""
    code = "".join(path.read_text() for path in (ROOT / "svc").rglob("*.py") if path.name != "names.py")
    constants = {name: value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}

    assert not re.findall(r"_log\.(?:debug|info|warning|error|exception)\((?!names\.)", code)
    for constant, value in constants.items():
        assert any(use in code for use in (f"names.{constant}", f"{value}=", f'"{value}": ')), constant


@pytest.mark.parametrize(
    ("peer", "told", "client"),
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
def test_only_trusted_proxies_are_believed(peer: str, told: list[str], client: str) -> None:
    """The nearest address that is no trusted proxy's is the caller's; what it says itself does not count."""
    request: Any = make_mocked_request("GET", "/", headers=[("X-Forwarded-For", hops) for hops in told])
    request.peer = peer

    assert Proxies([ip_network("10.0.0.0/8")]).client(request) == client
    assert Proxies([]).client(request) == peer
