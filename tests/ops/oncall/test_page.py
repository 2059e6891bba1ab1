"""The page on call: its server over HTTP, on a recording of the real service."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from ops.common.process import ROOT
from ops.oncall.desk import Desk
from ops.oncall.server import Server
from ops.oncall.sources import Replay
from tests.ops.oncall.page import CLOUDWATCH
from tests.ops.oncall.test_sources import line

Page = TestClient[web.Request, web.Application]
Clients = Callable[[web.Application], Awaitable[Page]]


@pytest.fixture(name="page")
async def make_page(recording: Path, aiohttp_client: Clients) -> Page:
    """The page's server, with all of the recording read."""
    return await replayed(recording, aiohttp_client)


async def replayed(recording: Path, aiohttp_client: Clients) -> Page:
    """The page's server, once it has read all of a recording."""
    page = await aiohttp_client(
        Server(Desk(Replay(recording), folder=CLOUDWATCH), CLOUDWATCH / "runbooks").app(is_loopback=True)
    )
    while (await answer(page, "/api/head"))["source"]["state"] != "ended":
        pass
    return page


async def answer(page: Page, path: str, status: int = 200, **parameters: str) -> Any:
    """What the server answers."""
    async with page.get(path, params=parameters) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_a_view_is_all_that_the_page_shows(page: Page) -> None:
    """One answer has the state of the source, the alarms, the budgets, and each panel with its data."""
    view = await answer(page, "/api/view", dashboard="service", minutes="5")

    head = view["head"]
    assert head["dashboards"] == ["service", "platform"]
    assert head["source"]["kind"] == "replay"
    assert head["source"]["refused"] == 0
    assert {alarm["name"]: alarm["state"] for alarm in head["alarms"] if alarm["severity"] != "part"} == {
        "faults": "OK",
        "disk": "INSUFFICIENT_DATA",
        "availability-fast": "OK",
    }
    assert [(budget["name"], budget["left"], budget["burn"]) for budget in head["budgets"]] == [
        ("availability", 100, 0)
    ]
    panels = {panel["title"]: panel for panel in view["panels"]}
    assert [panel["kind"] for panel in view["panels"]] == [
        *("text", "alarms", "numbers", "gauge", "chart", "chart", "chart", "chart", "unknown", "table")
    ]
    (memory,) = panels["Memory"]["lines"]
    assert (memory["unit"], memory["values"][0] > 1e7) == ("Bytes", True)
    assert panels["Alarms"]["alarms"] == ["faults", "disk"]
    assert max(filter(None, panels["Latency by route"]["lines"][0]["values"])) > 0
    assert panels["Disk"]["reads"] == ["Nobody FreeSpace"]
    assert len(panels["Requests"]["rows"]) == 7
    assert "<b id" not in panels[""]["html"]


async def test_a_query_finds_lines_with_all_their_fields(page: Page) -> None:
    """A query of lines gives each with its record; one that counts gives counts."""
    saved = {query["name"]: query for query in await answer(page, "/api/queries")}
    assert saved["requests"]["says"] == "The latest requests."

    lines = await answer(page, "/api/query", q=saved["requests"]["text"])
    assert lines["columns"][:2] == ["@timestamp", "log_processed.method"]
    assert len(lines["rows"]) == len(lines["records"]) == lines["matched"] == 7
    assert {record["log_processed"]["event"] for record in lines["records"]} == {"request"}
    assert "Valentina" not in json.dumps(lines)

    counted = await answer(page, "/api/query", q=saved["by-route"]["text"])
    assert counted["rows"] == [["/get/{id}", 5], ["/add", 1], ["/getall", 1]]
    assert "records" not in counted

    shown = await answer(page, "/api/query", q="fields @timestamp | display log_processed.status | limit 1")
    assert (shown["columns"], len(shown["records"])) == (["log_processed.status"], 1)

    metrics = await answer(page, "/api/query", q="limit 1", group="metrics")
    assert "_aws" in metrics["records"][0]


async def test_a_trace_leads_to_its_lines(page: Page) -> None:
    """The list of traces leads to a waterfall, and its id finds the line of the request."""
    traces = (await answer(page, "/api/traces"))["traces"]
    assert sorted(trace["name"] for trace in traces) == ["GET /get/{id}"] * 5 + ["GET /getall", "POST /add"]

    trace_id = next(trace["trace_id"] for trace in traces if trace["name"] == "POST /add")
    rows = (await answer(page, f"/api/trace/{trace_id}"))["rows"]
    assert [(row["name"], row["depth"]) for row in rows] == [("POST /add", 0), ("INSERT clients", 1)]
    assert rows[0]["duration_ms"] > rows[1]["duration_ms"] > 0
    assert rows[1]["attributes"]["db.operation.name"] == "INSERT"

    found = await answer(
        page, "/api/query", q=f'fields log_processed.route | filter log_processed.trace_id = "{trace_id}"'
    )
    assert found["rows"] == [["/add"]]


async def test_a_runbook_is_html_that_runs_nothing(page: Page) -> None:
    """Markdown becomes HTML, and HTML within it becomes text."""
    html = (await answer(page, "/api/runbook/faults"))["html"]

    assert "<h1>faults</h1>" in html
    assert '<a href="#/logs?query=faults">' in html
    assert "&lt;img src=" in html


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        ("/api/view", {"minutes": "7"}, "minutes has to be one of 5, 15, 60, 180"),
        ("/api/view", {"minutes": "x" * 5000}, "minutes has to be one of 5, 15, 60, 180"),
        ("/api/view", {"dashboard": "nobody"}, "dashboard has to be service or platform"),
        ("/api/query", {}, "q has to be a query"),
        ("/api/query", {"q": "fields @timestamp |"}, "Line 1, column"),
        ("/api/query", {"q": "limit 1", "group": "nobody"}, "There is no log group nobody here"),
        ("/api/query", {"q": "SOURCE '/a/b' | limit 1"}, "There is no log group /a/b here"),
        ("/api/traces", {"least_ms": "-1"}, "least_ms has to be a number that is not negative"),
        ("/api/traces", {"least_ms": "nan"}, "least_ms has to be a number that is not negative"),
        ("/api/trace/x", {}, "a trace's id has 32 hexadecimal digits"),
    ],
)
async def test_what_is_not_understood_is_refused_in_a_sentence(
    page: Page, path: str, parameters: dict[str, str], says: str
) -> None:
    """400, and what would be right."""
    assert says in (await answer(page, path, 400, **parameters))["problem"]


@pytest.mark.parametrize(
    "path",
    [
        f"/api/trace/{'0' * 32}",
        *("/api/runbook/nobody", "/api/runbook/..%2Falarms", "/api/runbook/%00", "/api", "/nothing"),
        *("/page/nothing.js", "/page/..%2Fserver.py", "/page/../server.py", "/page/"),
    ],
)
async def test_what_is_not_there_is_told_so(page: Page, path: str) -> None:
    """404, and nothing from other folders."""
    assert (await answer(page, path, 404))["problem"]


async def test_only_reading_is_allowed(page: Page) -> None:
    """There is nothing to write to."""
    assert (await page.post("/api/head")).status == 405


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST:1"])
async def test_this_machine_s_own_names_are_answered(page: Page, host: str) -> None:
    """However a person wrote it."""
    assert (await page.get("/api/head", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8081", "127.0.0.1.evil.example", "0.0.0.0", ""]
)
@pytest.mark.parametrize("path", ["/", "/api/head", "/page/main.js"])
async def test_other_names_are_not(page: Page, host: str, path: str) -> None:
    """A page from elsewhere that has its own name resolved to this machine reads nothing."""
    response = await page.get(path, headers={"Host": host})

    assert response.status == 421
    assert "alarms" not in await response.text()


async def test_other_names_are_answered_where_others_are_let_in(recording: Path, aiohttp_client: Clients) -> None:
    """Whoever listens for others was told to."""
    server = Server(Desk(Replay(recording), folder=CLOUDWATCH), CLOUDWATCH / "runbooks")
    page = await aiohttp_client(server.app(is_loopback=False))

    assert (await page.get("/api/head", headers={"Host": "oncall.example"})).status == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/api/head", "/api/view", "/nothing"])
async def test_everything_is_served_with_a_strict_policy(page: Page, path: str) -> None:
    """Scripts, styles and answers come from here alone, none is written into the page, and no other site may ask."""
    response = await page.get(path)

    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_files_are_sent_once(page: Page) -> None:
    """A browser that has the chart library's megabytes is not sent them again."""
    first = await page.get("/page/plotly.min.js")
    again = await page.get("/page/plotly.min.js", headers={"If-None-Match": first.headers["ETag"]})

    assert len(await first.read()) > 1e6
    assert (again.status, await again.read()) == (304, b"")


async def test_a_broken_recording_stops_nothing(tmp_path: Path, aiohttp_client: Clients) -> None:
    """Lines of any shape are counted as not understood, and what else there is is shown."""
    broken = [
        b"no JSON\n",
        b'{"_aws": {"Timestamp": 1795600000000}}\n',
        b'{"_aws": {"Timestamp": 1795600000000, "CloudWatchMetrics": [{"Dimensions": [["X"]], "Metrics": 7}]}}\n',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"endTimeUnixNano": "1795600000000000000"}]}]}]}\n',
        b'{"timestamp": "2026-11-25T09:46:40.000Z", "event": {"a": [1]}}\n',
        b"\xff\xfe\n",
    ]
    path = tmp_path / "recording.jsonl"
    path.write_bytes(line(0) + b"".join(broken) + line(1))

    page = await replayed(path, aiohttp_client)

    source = (await answer(page, "/api/head"))["source"]
    assert (source["refused"], source["lines"]) == (5, 6)
    found = await answer(page, "/api/query", q='filter log_processed.event = "request"')
    assert len(found["rows"]) == 2


def test_the_page_keeps_up_with_a_busy_service(recording: Path, tmp_path: Path) -> None:
    """It reads ten thousand lines in less than a second of CPU time: more than the service writes."""
    lines = [told for told in recording.read_bytes().splitlines(keepends=True) if b'"resourceSpans"' not in told]
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"".join(lines) * (20_000 // len(lines)))
    desk = Desk(Replay(path), folder=CLOUDWATCH)

    began = time.process_time()
    while desk.step(0.0):
        pass

    assert desk.head(0.0)["source"]["lines"] / (time.process_time() - began) > 10_000


@pytest.fixture(name="command")
def make_command() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `python -m ops.oncall`; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.oncall", *arguments],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def test_the_command_says_where_the_page_is(command: Callable[..., "subprocess.Popen[str]"], recording: Path) -> None:
    """It prints the address, with the port that it was given, and serves there."""
    process = command("--replay", str(recording), "--port", "0")
    assert process.stdout
    said = process.stdout.readline()
    found = re.fullmatch(r"On call  (http://127\.0\.0\.1:\d+)/  \(Ctrl-C stops\)\n", said)
    assert found, said

    with urlopen(f"{found[1]}/api/view") as response:
        assert json.load(response)["head"]["dashboards"] == ["service", "platform"]


def test_the_command_warns_before_others_are_let_in(
    command: Callable[..., "subprocess.Popen[str]"], recording: Path
) -> None:
    """To listen for others takes an option of its own, and is not done in silence."""
    process = command("--replay", str(recording), "--port", "0", "--host", "0.0.0.0")
    assert process.stdout

    assert process.stdout.readline() == "Whoever reaches 0.0.0.0 can read this log: it asks for no password.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replay", "nothing.jsonl"], "error: nothing.jsonl cannot be replayed: "),
        (["--replay", "LICENSE"], "error: LICENSE cannot be replayed: LICENSE has no line that tells its time"),
        (["--speed", "0"], "--speed: has to be a number above 0, and at most 10000"),
        (["--port", "70000"], "--port: has to be a number from 0 to 65535"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    command: Callable[..., "subprocess.Popen[str]"], arguments: list[str], says: str
) -> None:
    """What it cannot do, it says, and ends."""
    process = command(*arguments)
    output, _ = process.communicate(timeout=20)

    assert says in output
    assert "Traceback" not in output
    assert process.returncode in {1, 2}
