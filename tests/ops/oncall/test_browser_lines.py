"""The pages of logs and traces in a real browser."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import orjson
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests.axe import assert_accessible
from tests.browser import PHONE_WIDTH, emulate
from tests.ops.oncall.browsing import click, find, focused, press, refresh, text_of, wait_until
from tests.ops.oncall.page import OnCall
from tests.ops.oncall.test_traces import answered, export, span

ROWS: Final = "return document.querySelectorAll('.results tbody tr').length"


def request(at: float, status: int = 200, **more: Any) -> bytes:
    """The log line of a request, at a time in seconds since 1970."""
    timestamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"timestamp": timestamp, "level": "info", "event": "request", "route": "/get/{id}", "status": status, **more}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def trace(number: int, at: float, status: int = 200, route: str = "/get/{id}", milliseconds: int = 10) -> bytes:
    """The export of a trace of two spans, whose ID is a number."""
    start, end = int(at * 1000), int(at * 1000) + milliseconds
    trace_id = f"{number:032x}"
    has_failed: dict[str, Any] = {"status": {"code": 2, "message": "Failed"}} if status >= 500 else {}
    root = span(trace_id, "root", start=start, end=end, **answered(status, route), **has_failed)
    child = span(trace_id, "child", "root", start, end)
    return orjson.dumps(export({**root, "name": f"GET {route}"}, child), option=orjson.OPT_APPEND_NEWLINE)


def record(browser: Chrome, on_call: OnCall, lines: Sequence[bytes]) -> None:
    """Adds lines to the recording, and waits until the server has read them."""

    def read() -> int:
        with urlopen(f"{on_call.url}/api/head") as response:
            return int(json.load(response)["source"]["lines"])

    before = wait_until(browser, read)
    on_call.record(*lines)
    wait_until(browser, lambda: read() >= before + len(lines), "the server has not read the lines")


def row_count(browser: Chrome) -> int:
    return int(browser.execute_script(ROWS))


# Logs.


def test_the_logs_begin_with_the_newest_lines(browser: Chrome, on_call: OnCall) -> None:
    """Also where the query is emptied. The query is beside the saved ones, and its number of lines is given."""
    record(browser, on_call, [request(on_call.clock() - 1 - number / 100) for number in range(600)])
    browser.get(f"{on_call.url}/#/logs")

    find(browser, ".outcome", "Newest 500 of 61")
    times = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "td.time")]
    assert times == sorted(times, reverse=True)
    assert text_of(browser, ".queries [aria-current] b") == "newest-lines"

    query = find(browser, "#query")
    written = query.get_attribute("value")
    query.clear()
    query.send_keys(Keys.CONTROL, Keys.ENTER)
    wait_until(browser, lambda: query.get_attribute("value") == written)
    find(browser, ".outcome", "Newest 500 of 61")


def count_lines(recording: Path) -> int:
    """The log lines of a recording, which also has metrics and traces."""
    return sum(line.startswith(b'{"timestamp"') for line in recording.read_bytes().splitlines())


def test_an_empty_result_says_what_it_means(browser: Chrome, shared: OnCall, recording: Path) -> None:
    """Good news where the saved query says so; how many lines were read; and whether there was any line at all."""
    browser.get(f"{shared.url}/#/logs?query=faults")
    find(browser, ".nothing.good", "✓ No request failed in this time range.")
    scanned = f"{count_lines(recording)} lines scanned, a sample that stands for 7 requests."
    find(browser, ".outcome", f"No line matches; {scanned}")

    find(browser, "#query").send_keys(" or status = 418", Keys.CONTROL, Keys.ENTER)
    find(browser, ".outcome.problem", "Line 4")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser logs the status 400
    browser.get(f"{shared.url}/#/logs?q=filter+status+%3D+418")
    find(browser, ".nothing", "No line in this time range matches the query.")
    assert browser.find_elements(By.CSS_SELECTOR, ".nothing.good") == []

    browser.get(f"{shared.url}/#/logs?query=faults&from=1000&to=2000")
    find(browser, ".nothing", "There is no line in this time range.")


def test_a_query_can_be_typed(browser: Chrome, shared: OnCall, recording: Path) -> None:
    """The URL of its result can be shared. The error of an invalid query names the place."""
    browser.get(f"{shared.url}/#/logs")
    query = find(browser, "#query")
    lines = count_lines(recording)
    find(browser, ".outcome", f"{lines} matching lines; {lines} lines scanned")

    query.clear()
    query.send_keys("stats count(*) as n by event", Keys.CONTROL, Keys.ENTER)
    find(browser, ".results th", "event")
    find(browser, ".outcome", f"4 rows from {lines} matching lines;")
    address = browser.current_url

    query.send_keys(" |")
    click(browser, "button.primary", "Run")
    find(browser, ".outcome.problem", "Line 1, column")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser logs the status 400

    browser.get(address)
    find(browser, ".results th", "event")


def test_a_bar_of_the_histogram_becomes_the_time_range(browser: Chrome, on_call: OnCall) -> None:
    """By a click, by the keyboard, and several by dragging over them. Back leads to the range before."""
    now = on_call.clock() // 15 * 15
    failed = [request(now - 300 + number, 503) for number in range(3)]
    record(browser, on_call, [*failed, *(request(now - 100 + number, 404) for number in range(2))])
    browser.get(f"{on_call.url}/#/logs?q=filter+status+%3E%3D+400&minutes=15")

    find(browser, ".outcome", "5 matching lines")
    assert "failed or error" in text_of(browser, ".histogram .legend li", "3")
    assert "refused or warning" in text_of(browser, ".histogram .legend li", "2")
    first, *_, last = browser.find_elements(By.CSS_SELECTOR, ".bars a")
    assert str(first.get_attribute("aria-label")).endswith("UTC: 3 lines, 3 failed or error")
    first.click()
    find(browser, ".outcome", "3 matching lines")
    assert f"from={now - 300:.0f}&to={now - 285:.0f}" in browser.current_url

    browser.back()
    find(browser, ".outcome", "5 matching lines")
    first, *_, last = browser.find_elements(By.CSS_SELECTOR, ".bars a")
    ActionChains(browser).click_and_hold(first).move_to_element(last).release().perform()
    wait_until(browser, lambda: f"from={now - 300:.0f}&to=" in browser.current_url)
    find(browser, ".outcome", "5 matching lines")

    browser.back()
    wait_until(browser, lambda: "minutes=15" in browser.current_url)
    find(browser, ".outcome", "5 matching lines")
    browser.execute_script("document.querySelector('#tail').focus()")
    press(browser, Keys.TAB)
    assert "refused or warning" in focused(browser)
    press(browser, Keys.HOME)
    assert "failed or error" in focused(browser)
    press(browser, Keys.ENTER)
    find(browser, ".outcome", "3 matching lines")


def test_a_live_tail_shows_new_lines_at_the_top(browser: Chrome, on_call: OnCall) -> None:
    """The keyboard starts, pauses and ends it. It says how many lines came, and keeps a bounded number of rows."""
    browser.get(f"{on_call.url}/#/logs?query=requests&from={on_call.clock() - 60:.0f}&to={on_call.clock() + 60:.0f}")
    find(browser, ".outcome", "7 matching lines")
    press(browser, "l")
    find(browser, "#tail[aria-pressed=true]")
    find(browser, ".outcome", "Live tail since")
    assert "minutes=15" in browser.current_url
    assert row_count(browser) == 7

    record(browser, on_call, [request(on_call.clock(), 418), request(on_call.clock(), event="other")])
    find(browser, ".outcome", "1 new line.")
    assert "418" in text_of(browser, ".results tbody tr")
    assert "1 new line." in str(find(browser, ".logs [role=status]").get_attribute("textContent"))

    click(browser, "tr.opens")
    press(browser, ".")
    find(browser, "#pause[aria-pressed=true]")
    record(browser, on_call, [request(on_call.clock(), 421)])
    assert row_count(browser) == 9
    press(browser, ".")
    find(browser, ".outcome", "2 new lines.")
    assert "421" in text_of(browser, ".results tbody tr")
    find(browser, ".opened .fields", "418")

    press(browser, ".")
    record(browser, on_call, [request(on_call.clock(), 299) for _ in range(900)])
    press(browser, ".")
    find(browser, ".outcome", "502 new lines; 400 lines skipped, since too many came at once.")
    assert row_count(browser) == 500

    press(browser, "l")
    find(browser, "#tail[aria-pressed=false]")
    find(browser, ".outcome", "of 909 matching lines")
    click(browser, ".queries a", "by-route")
    find(browser, "#tail:disabled")


# Traces.


def test_traces_are_filtered(browser: Chrome, on_call: OnCall) -> None:
    """By route, status, duration and ID, in the URL; without probes, unless a checkbox shows them."""
    now = on_call.clock()
    made = [trace(0xABC000 + number, now - 1 - number / 1000) for number in range(120)]
    made += [trace(0xDEF, now - 2, 503, "/add", 250), trace(0xFED, now - 3, 503, "/readyz")]
    record(browser, on_call, made)
    browser.get(f"{on_call.url}/#/traces")
    find(browser, ".hint", "Newest 100 of 128 traces")
    select = Select(find(browser, "[name=route]"))
    assert [option.text for option in select.options] == ["all", "/add", "/get/{id}", "/getall", "/readyz"]
    assert not browser.execute_script("return document.querySelector('main').innerText.includes('GET /readyz')")

    click(browser, "[name=probes]")
    find(browser, ".hint", "Newest 100 of 129 traces")
    status = find(browser, "[name=status]")
    status.send_keys("5xx", Keys.ENTER)
    find(browser, ".hint", "2 traces")
    find(browser, "td a", "GET /readyz")
    Select(find(browser, "[name=route]")).select_by_visible_text("/add")
    find(browser, ".hint", "1 trace,")
    minimum = find(browser, "[name=min_ms]")
    minimum.send_keys("250.5", Keys.ENTER)
    find(browser, ".nothing", "No trace in this time range matches the filter.")
    minimum.clear()
    minimum.send_keys("250", Keys.ENTER)
    find(browser, "td a", "GET /add")

    filters = {"probes=1", "status=5xx", "route=%2Fadd", "min_ms=250"}
    assert set(browser.current_url.partition("?")[2].split("&")) == filters
    click(browser, "td a")
    click(browser, "a", "‹ Traces of the filter")
    find(browser, "td a", "GET /add")
    assert set(browser.current_url.partition("?")[2].split("&")) == filters

    status = find(browser, "[name=status]")
    status.send_keys("0", Keys.ENTER)
    find(browser, ".problem", "status must be a code such as 503, or a class such as 5xx")
    assert status.get_attribute("aria-invalid") == "true"
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser logs the status 400
    browser.back()
    find(browser, "td a", "GET /add")
    assert status.get_attribute("aria-invalid") == "false"


def test_a_trace_is_found_by_its_id(browser: Chrome, on_call: OnCall) -> None:
    """The start of an ID finds it at any time; the whole ID opens it, also in X-Ray's form."""
    trace_id = f"{0xABC << 116:032x}"
    record(browser, on_call, [trace(0xABC << 116, on_call.clock() - 7200)])
    browser.get(f"{on_call.url}/#/traces")
    find(browser, ".hint", "7 traces")

    for text in (trace_id, f"1-{trace_id[:8]}-{trace_id[8:]}"):
        find(browser, "[name=id]").send_keys(text, Keys.ENTER)
        find(browser, ".trace code", trace_id)
        browser.back()
    find(browser, "[name=id]").send_keys("abc", Keys.ENTER)
    find(browser, ".hint", "1 trace,")


def test_spans_open_by_keyboard(browser: Chrome, on_call: OnCall) -> None:
    """Each has a mark that says that it opens, and a focus that is seen."""
    record(browser, on_call, [trace(1, on_call.clock() - 1)])
    browser.get(f"{on_call.url}/#/trace/{1:032x}")
    find(browser, ".waterfall summary .marker", "›")
    browser.execute_script("document.querySelector('#lines').focus()")

    press(browser, Keys.TAB, Keys.TAB)
    assert "child" in focused(browser)
    assert browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(browser, Keys.ENTER)
    find(browser, ".waterfall details[open] .fields", "span id")
    press(browser, Keys.ENTER)
    wait_until(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, ".waterfall details[open]"))


def test_a_line_leads_to_its_trace_and_the_trace_to_its_lines(browser: Chrome, on_call: OnCall) -> None:
    """In the time range of the page, or in one around the trace. Both lead back."""
    at = on_call.clock() - 600
    record(browser, on_call, [request(at, trace_id=f"{7:032x}", sampled=True), trace(7, at - 0.01)])
    span_of_time = f"from={at - 100:.0f}&to={at + 100:.0f}"
    browser.get(f"{on_call.url}/#/logs?query=requests&{span_of_time}")
    click(browser, "tr.opens")
    assert "trace_id" in text_of(browser, ".opened .fields")
    click(browser, ".opened a", "Trace")
    find(browser, ".waterfall", "child")
    assert span_of_time in browser.current_url

    click(browser, "#lines")
    find(browser, ".outcome", "1 matching line;")
    assert "filter trace_id" in str(find(browser, "#query").get_attribute("value"))
    around = dict(one.split("=") for one in browser.current_url.partition("?")[2].split("&"))
    assert int(around["from"]) < at - 30
    assert int(around["to"]) > at + 30
    click(browser, ".back a", "‹ The trace")
    find(browser, ".waterfall", "child")
    assert f"from={around['from']}&to={around['to']}" in browser.current_url
    for _ in range(3):
        browser.back()
    find(browser, "tr.opens")
    assert span_of_time in browser.current_url


def test_no_line_links_to_a_trace_that_is_not_there(browser: Chrome, on_call: OnCall) -> None:
    """It was not sampled, or it has not come yet. Once it has come, the line links to it."""
    at = on_call.clock()
    lost, unsampled = f"{8:032x}", f"{9:032x}"
    lines = [request(at, trace_id=lost, sampled=True, status=288), request(at, trace_id=unsampled, sampled=False)]
    record(browser, on_call, lines)
    browser.get(f"{on_call.url}/#/logs?query=requests")
    click(browser, "tr.opens", "288")
    find(browser, ".opened", "The trace is not here: it has not come yet, or it is too old.")
    click(browser, "tr.opens", "288")
    record(browser, on_call, [trace(8, at - 1)])
    click(browser, "tr.opens", "288")
    find(browser, ".opened a[href*='trace/']", "Trace")

    browser.get(f"{on_call.url}/#/logs?q=filter+trace_id%3D%22{unsampled}%22")
    find(browser, ".outcome", "1 matching line;")
    click(browser, "tr.opens")
    find(browser, ".opened", "The trace was not sampled.")
    assert browser.find_elements(By.CSS_SELECTOR, ".opened a[href*='trace/']") == []


@pytest.mark.parametrize(
    ("place", "element", "text"),
    [
        ("logs", ".bars a", ""),
        ("logs?query=requests&tail=1", "#tail[aria-pressed=true]", ""),
        ("logs?query=faults&from=1000&to=2000", ".nothing", ""),
        ("logs?query=requests", ".opened", "Log lines of the trace"),
        ("traces?status=503", ".badge.bad", ""),
        ("traces?route=/none", ".nothing", ""),
        (f"trace/{5:032x}", ".waterfall", ""),
    ],
)
def test_the_pages_are_accessible(browser: Chrome, on_call: OnCall, place: str, element: str, text: str) -> None:
    """In both colours, on a laptop and on a phone, where only tables scroll to the side."""
    at = on_call.clock()
    line = request(at, 503, trace_id=f"{5:032x}", sampled=True, report="x" * 300)
    record(browser, on_call, [line, request(at - 1, 404), trace(5, at - 1, 503, f"/{'long/' * 20}")])
    browser.get(f"{on_call.url}/#/{place}")
    if element == ".opened":
        click(browser, "tr.opens")
    for width in (1280, PHONE_WIDTH):
        for colors in ("light", "dark"):
            emulate(browser, width=width, colors=colors)
            find(browser, f":root[data-theme={colors}]")
            refresh(browser)
            find(browser, element, text)
            assert_accessible(browser)
