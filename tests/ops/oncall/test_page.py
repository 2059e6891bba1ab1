"""The server of the on-call page over HTTP, on a recording of the real service."""

import asyncio
import json
import os
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
from ops.oncall.server import Server
from ops.oncall.sources import Follow, Replay
from ops.oncall.state import OnCallState
from tests.ops.oncall.page import CLOUDWATCH
from tests.ops.oncall.test_sources import line
from tests.patience import PATIENCE_SECONDS

Page = TestClient[web.Request, web.Application]
Clients = Callable[[web.Application], Awaitable[Page]]


@pytest.fixture(name="page")
async def make_page(recording: Path, aiohttp_client: Clients) -> Page:
    """A server that has read the whole recording."""
    return await replayed(recording, aiohttp_client)


async def replayed(recording: Path, aiohttp_client: Clients) -> Page:
    """A server that has read a whole recording."""
    page = await aiohttp_client(
        Server(OnCallState(Replay(recording), folder=CLOUDWATCH), CLOUDWATCH / "runbooks").app(is_loopback=True)
    )
    while (await get(page, "/api/head"))["source"]["state"] != "ended":
        pass
    return page


async def get(page: Page, path: str, status: int = 200, /, **parameters: str) -> Any:
    """The JSON of a response."""
    async with page.get(path, params=parameters) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_a_view_has_all_data_of_a_dashboard(page: Page) -> None:
    """One response has the status of the source, the alarms, the budgets, and each panel with its data."""
    view = await get(page, "/api/view", dashboard="service", minutes="5")

    head = view["head"]
    assert head["dashboards"] == ["service", "platform"]
    assert head["source"]["kind"] == "replay"
    assert head["source"]["refused"] == 0
    assert {alarm["name"]: alarm["state"] for alarm in head["alarms"] if alarm["severity"] != "part"} == {
        "faults": "OK",
        "disk": "INSUFFICIENT_DATA",
        "availability": "OK",
    }
    assert [(budget["name"], budget["spent"]) for budget in head["budgets"]] == [("availability", 0)]
    assert 0 < head["budgets"][0]["seconds"] < 3600
    panels = {panel["title"]: panel for panel in view["panels"]}
    assert [panel["kind"] for panel in view["panels"]] == [
        *("text", "alarms", "numbers", "gauge", "chart", "chart", "chart", "chart", "unknown", "table")
    ]
    (memory,) = panels["Memory"]["lines"]
    assert (memory["unit"], memory["values"][0] > 1e7) == ("Bytes", True)
    assert panels["Alarms"]["alarms"] == ["faults", "disk"]
    assert max(filter(None, panels["Latency by route"]["lines"][0]["values"])) > 0
    assert panels["Disk"]["reads"] == ["Unused FreeSpace"]
    assert len(panels["Requests"]["rows"]) == 7
    assert "<b id" not in panels[""]["html"]


async def test_a_query_returns_rows_and_their_records(page: Page) -> None:
    """A query with stats or pattern returns rows without records."""
    saved = {query["name"]: query for query in await get(page, "/api/queries")}
    assert saved["requests"]["description"] == "The latest requests."

    lines = await get(page, "/api/query", q=saved["requests"]["text"])
    assert lines["columns"][:2] == ["@timestamp", "method"]
    assert len(lines["rows"]) == len(lines["records"]) == lines["total"] == lines["matched"] == 7
    assert sum(map(sum, lines["histogram"]["bars"])) == 7
    assert lines["is_newest_first"]
    assert {record["event"] for record in lines["records"]} == {"request"}
    assert "Valentina" not in json.dumps(lines)

    counted = await get(page, "/api/query", q=saved["by-route"]["text"])
    assert counted["rows"] == [["/get/{id}", 5], ["/add", 1], ["/getall", 1]]
    assert "records" not in counted
    assert (counted["total"], counted["matched"]) == (3, 7)

    patterns = await get(page, "/api/query", q="pattern @logStream")
    assert [row[1:] for row in patterns["rows"]] == [[1, patterns["scanned"]]]
    assert "records" not in patterns

    shown = await get(page, "/api/query", q="fields @timestamp | display status | limit 1")
    assert (shown["columns"], len(shown["records"])) == (["status"], 1)

    metrics = await get(page, "/api/query", q="limit 1", group="metrics")
    assert "_aws" in metrics["records"][0]


async def test_a_time_range_is_the_last_minutes_or_from_one_time_to_another(page: Page) -> None:
    """Of a query as of a dashboard; 15 minutes where a request names none."""
    now = (await get(page, "/api/head"))["time"]
    live = await get(page, "/api/view", minutes="60")
    fixed = await get(page, "/api/view", **{"from": str(int(now) - 3600), "to": str(int(now) - 600)})
    plain = await get(page, "/api/view")

    assert [view["end"] - view["start"] for view in (live, fixed, plain)] == [3600, 3000, 900]
    assert (live["end"], fixed["end"]) == (now, int(now) - 600)
    tables = [next(one for one in view["panels"] if one["kind"] == "table") for view in (live, fixed)]
    assert [len(table["rows"]) for table in tables] == [7, 0]
    count = 'filter event = "request" | stats count(*) as n'
    whole = await get(page, "/api/query", q=count, **{"from": str(int(now) - 60), "to": str(int(now) + 1)})
    before = await get(page, "/api/query", q=count, **{"from": str(int(now) - 3600), "to": str(int(now) - 600)})
    assert (whole["rows"], before["scanned"]) == ([[7]], 0)


async def test_an_empty_query_finds_all_lines_the_newest_first(page: Page) -> None:
    """As they were written."""
    found = await get(page, "/api/query")

    times = [row[0] for row in found["rows"]]
    assert found["columns"] == ["@timestamp", "@message"]
    assert len(times) == found["matched"] == found["scanned"] > 7
    assert times == sorted(times, reverse=True)


async def test_a_live_tail_continues_where_the_result_before_ended(tmp_path: Path, aiohttp_client: Clients) -> None:
    """It has the lines that came since and match, the newest first, and says how many it skipped."""
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"".join(line(number / 50) for number in range(3)))
    state = OnCallState(Follow(path), folder=CLOUDWATCH)
    page = await aiohttp_client(Server(state, CLOUDWATCH / "runbooks").app(is_loopback=True))

    async def added(count: int) -> int:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await get(page, "/api/head"))["source"]["lines"] < count:  # noqa: ASYNC110 - the server polls
                await asyncio.sleep(0.05)
        return count

    def write(*numbers: int) -> None:
        with path.open("ab") as file:
            file.write(b"".join(line(number / 50) for number in numbers))

    query = 'fields @timestamp, @message | filter event = "request" | sort @timestamp | limit 1'
    reached = await added(3)
    assert (await get(page, "/api/query", q=query))["added"] == reached
    write(3, 4, 5)
    await added(6)
    found = await get(page, "/api/tail", q=query, added=str(reached))
    assert [row[0] for row in found["rows"]] == sorted((row[0] for row in found["rows"]), reverse=True)
    assert (len(found["records"]), found["matched"], found["skipped"], found["added"]) == (3, 3, 0, 6)
    assert (await get(page, "/api/tail", q='filter event = "none"', added="3"))["rows"] == []

    write(*range(6, 700))
    await added(700)
    found = await get(page, "/api/tail", q=query, added="6")
    assert (len(found["rows"]), found["skipped"], found["added"]) == (500, 194, 700)
    assert (await get(page, "/api/tail", q=query, added="9999"))["rows"] == []  # the number of another server


async def test_a_result_says_for_how_many_requests_its_lines_stand(tmp_path: Path, aiohttp_client: Clients) -> None:
    """The sum of the weights of all lines that a query read. Other lines stand for no request."""
    path = tmp_path / "recording.jsonl"
    weighted = [{**json.loads(line(number)), "sample_weight": weight} for number, weight in enumerate((1, 90, 9))]
    path.write_bytes(line(0) + b"".join(json.dumps(one).encode() + b"\n" for one in weighted))
    page = await replayed(path, aiohttp_client)

    found = await get(page, "/api/query", q='filter event = "request" | limit 1')
    assert (len(found["rows"]), found["scanned"], found["requests"]) == (1, 4, 100)
    (table,) = [one for one in (await get(page, "/api/view"))["panels"] if one["kind"] == "table"]
    assert (table["scanned"], table["requests"]) == (4, 100)


async def test_a_trace_has_a_waterfall_and_log_lines(page: Page) -> None:
    """A query for the trace ID finds the log line of the request."""
    traces = (await get(page, "/api/traces"))["traces"]
    assert sorted(trace["name"] for trace in traces) == ["GET /get/{id}"] * 5 + ["GET /getall", "POST /add"]

    trace_id = next(trace["trace_id"] for trace in traces if trace["name"] == "POST /add")
    rows = (await get(page, f"/api/trace/{trace_id}"))["rows"]
    assert [(row["name"], row["depth"]) for row in rows] == [("POST /add", 0), ("INSERT clients", 1)]
    assert rows[0]["duration_ms"] > rows[1]["duration_ms"] > 0
    assert rows[1]["attributes"]["db.operation.name"] == "INSERT"

    found = await get(page, "/api/query", q=f'fields route | filter trace_id = "{trace_id}"')
    assert found["rows"] == [["/add"]]


async def test_traces_are_listed_in_the_time_range_and_by_filter(page: Page) -> None:
    """The newest of those that match, the number of all of these, and the routes to choose from. An ID has any time."""
    found = await get(page, "/api/traces", route="/get/{id}", status="2xx")
    assert (len(found["traces"]), found["matched"], found["kept"]) == (5, 5, 7)
    assert found["routes"] == ["/add", "/get/{id}", "/getall"]
    assert (await get(page, "/api/traces", status="5xx"))["matched"] == 0

    past = {"from": "1000", "to": "2000"}
    trace_id = found["traces"][0]["trace_id"]
    assert (await get(page, "/api/traces", **past))["matched"] == 0
    for prefix in (trace_id[:9], trace_id.upper()):
        (one,) = (await get(page, "/api/traces", id=prefix, **past))["traces"]
        assert one["trace_id"] == trace_id


async def test_a_runbook_is_rendered_without_scripts(page: Page) -> None:
    """HTML in the Markdown is escaped."""
    html = (await get(page, "/api/runbook/faults"))["html"]

    assert "<h1>faults</h1>" in html
    assert '<a href="#/logs?query=faults">' in html
    assert "&lt;img src=" in html


@pytest.mark.parametrize(
    ("path", "parameters", "problem"),
    [
        ("/api/view", {"minutes": "7"}, "minutes must be one of 5, 15, 60, 180"),
        ("/api/view", {"minutes": "x" * 5000}, "minutes must be one of 5, 15, 60, 180"),
        ("/api/view", {"from": "1795600000"}, "to must be a time in whole seconds since 1970"),
        ("/api/view", {"from": "yesterday", "to": "1795600000"}, "from must be a time in whole seconds since 1970"),
        ("/api/view", {"from": "1795600000", "to": "1795600000"}, "from must be before to, by at most 24 hours"),
        (
            "/api/query",
            {"q": "limit 1", "from": "0", "to": "1795600000"},
            "from must be before to, by at most 24 hours",
        ),
        (
            "/api/query",
            {"q": "limit 1", "from": "\u0661", "to": "9"},
            "from must be a time in whole seconds since 1970",
        ),
        ("/api/view", {"dashboard": "unknown"}, "dashboard must be service or platform"),
        ("/api/query", {"q": "fields @timestamp |"}, "Line 1, column"),
        ("/api/query", {"q": "limit 1", "group": "unknown"}, "There is no log group unknown here"),
        ("/api/query", {"q": "SOURCE '/a/b' | limit 1"}, "There is no log group /a/b here"),
        ("/api/tail", {}, "added must be the number from the response before"),
        ("/api/tail", {"added": "-1"}, "added must be the number from the response before"),
        ("/api/tail", {"added": "0", "q": "stats count(*)"}, "A live tail shows lines, so its query has neither stats"),
        ("/api/traces", {"status": "9xx"}, "status must be a code such as 503, or a class such as 5xx"),
        ("/api/traces", {"status": "50"}, "status must be a code such as 503, or a class such as 5xx"),
        ("/api/traces", {"id": "xyz"}, "id must be a trace ID or its start: up to 32 hexadecimal digits"),
        ("/api/traces", {"min_ms": "-1"}, "min_ms must be a number of at least 0"),
        ("/api/traces", {"min_ms": "nan"}, "min_ms must be a number of at least 0"),
        ("/api/trace/x", {}, "a trace ID has 32 hexadecimal digits"),
    ],
)
async def test_an_invalid_request_is_refused_with_a_message(
    page: Page, path: str, parameters: dict[str, str], problem: str
) -> None:
    """400, with the valid values."""
    assert problem in (await get(page, path, 400, **parameters))["problem"]


@pytest.mark.parametrize(
    "path",
    [
        f"/api/trace/{'0' * 32}",
        *("/api/runbook/unknown", "/api/runbook/..%2Falarms", "/api/runbook/%00", "/api", "/nothing"),
        *("/page/nothing.js", "/page/..%2Fserver.py", "/page/../server.py", "/page/"),
    ],
)
async def test_an_unknown_path_is_not_found(page: Page, path: str) -> None:
    """404, also for paths to other folders."""
    assert (await get(page, path, 404))["problem"]


async def test_only_get_is_allowed(page: Page) -> None:
    """Other methods get 405."""
    assert (await page.post("/api/head")).status == 405


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST:1"])
async def test_names_of_this_machine_are_accepted_as_host(page: Page, host: str) -> None:
    """With any port, and in any case."""
    assert (await page.get("/api/head", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8081", "127.0.0.1.evil.example", "0.0.0.0", ""]
)
@pytest.mark.parametrize("path", ["/", "/api/head", "/page/main.js"])
async def test_other_hosts_are_refused(page: Page, host: str, path: str) -> None:
    """A website whose name resolves to this machine cannot read the page: DNS rebinding."""
    response = await page.get(path, headers={"Host": host})

    assert response.status == 421
    assert "alarms" not in await response.text()


async def test_any_host_is_accepted_where_other_machines_have_access(recording: Path, aiohttp_client: Clients) -> None:
    """With an address that is not loopback."""
    server = Server(OnCallState(Replay(recording), folder=CLOUDWATCH), CLOUDWATCH / "runbooks")
    page = await aiohttp_client(server.app(is_loopback=False))

    assert (await page.get("/api/head", headers={"Host": "oncall.example"})).status == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style.css", "/api/head", "/api/view", "/nothing"])
async def test_every_response_has_a_strict_security_policy(page: Page, path: str) -> None:
    """Scripts and styles come only from this server, none is inline, and other sites cannot read the API."""
    response = await page.get(path)

    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_browser_revalidates_its_copy_of_a_file(page: Page) -> None:
    """The megabytes of the chart library are sent once."""
    first = await page.get("/page/plotly.min.js")
    again = await page.get("/page/plotly.min.js", headers={"If-None-Match": first.headers["ETag"]})

    assert len(await first.read()) > 1e6
    assert (again.status, await again.read()) == (304, b"")


async def test_invalid_lines_are_counted_and_skipped(tmp_path: Path, aiohttp_client: Clients) -> None:
    """The page shows all other lines."""
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

    source = (await get(page, "/api/head"))["source"]
    assert (source["refused"], source["lines"]) == (5, 6)
    found = await get(page, "/api/query", q='filter event = "request"')
    assert len(found["rows"]) == 2


def test_reading_a_recording_costs_a_few_times_as_much_as_parsing_it(recording: Path, tmp_path: Path) -> None:
    """So the page keeps up with a busy service. Both are CPU time of this test: about 6 times was measured."""
    lines = [one for one in recording.read_bytes().splitlines(keepends=True) if b'"resourceSpans"' not in one]
    path = tmp_path / "recording.jsonl"
    path.write_bytes(b"".join(lines) * (5_000 // len(lines)))
    state = OnCallState(Replay(path), folder=CLOUDWATCH)

    started = time.process_time()
    while state.step(0.0):
        pass
    read = time.process_time()
    count = len([json.loads(one) for one in path.read_bytes().splitlines()])
    parsed = time.process_time()

    assert state.head(0.0)["source"]["lines"] == count
    assert read - started < 20 * (parsed - read)


@pytest.fixture(name="command")
def make_command() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `python -m ops.oncall`, and ends it after the test."""
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
        process.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("option", ["--follow", "--replay"])
def test_the_command_prints_the_address_of_the_page(
    command: Callable[..., "subprocess.Popen[str]"], recording: Path, option: str
) -> None:
    """With the port that the system assigned."""
    process = command(option, str(recording), "--port", "0")
    assert process.stdout
    printed = process.stdout.readline()
    found = re.fullmatch(r"On call  (http://127\.0\.0\.1:\d+)/  \(Ctrl-C stops\)\n", printed)
    assert found, printed

    with urlopen(f"{found[1]}/api/view") as response:
        assert json.load(response)["head"]["dashboards"] == ["service", "platform", "requests"]


@pytest.mark.parametrize(
    ("age_seconds", "hint"),
    [(None, r"There is no \S+/recording\.jsonl yet: "), (600, r"The service stopped at \S+ \S+ UTC: ")],
)
def test_the_command_says_what_to_start(
    command: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, age_seconds: float | None, hint: str
) -> None:
    """Where there is no recording, or none that is being written."""
    path = tmp_path / "recording.jsonl"
    if age_seconds is not None:
        path.write_bytes(line(0))
        os.utime(path, (time.time() - age_seconds,) * 2)
    process = command("--follow", str(path), "--port", "0")
    assert process.stdout

    assert process.stdout.readline().startswith("On call  http://")
    start = "`make run` in another terminal starts the service, and the page then shows it.\n"
    assert re.fullmatch(hint + re.escape(start), process.stdout.readline())


def test_the_command_warns_when_other_machines_have_access(
    command: Callable[..., "subprocess.Popen[str]"], recording: Path
) -> None:
    """The page has no password."""
    process = command("--replay", str(recording), "--port", "0", "--host", "0.0.0.0")
    assert process.stdout

    assert process.stdout.readline() == "Everyone who can reach 0.0.0.0 can read this log: there is no password.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replay", "nothing.jsonl"], "error: cannot replay nothing.jsonl: "),
        (
            ["--replay", "LICENSE"],
            "error: cannot replay LICENSE: LICENSE has no line that is a JSON object with a time",
        ),
        (["--speed", "0"], "--speed: must be a number above 0 and at most 10000"),
        (["--port", "70000"], "--port: must be a whole number from 0 to 65535"),
    ],
)
def test_the_command_reports_errors_without_a_traceback(
    command: Callable[..., "subprocess.Popen[str]"], arguments: list[str], message: str
) -> None:
    """It prints a message and exits."""
    process = command(*arguments)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert message in output
    assert "Traceback" not in output
    assert process.returncode in {1, 2}
