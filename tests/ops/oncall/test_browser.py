"""The on-call page in a real browser."""

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl
from urllib.request import urlopen

import orjson
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from ops.cloudwatch.rows import Metric
from ops.oncall.machine import NAME, document
from ops.oncall.state import CLOUDWATCH
from svc.logs import names
from tests.axe import assert_accessible
from tests.browser import PHONE_WIDTH, emulate
from tests.ops.cloudwatch.recording import FAILED_REQUESTS, Run
from tests.ops.oncall.browsing import click, find, focused, press, refresh, text_of, wait_until
from tests.ops.oncall.page import OnCall, faults
from tests.patience import PATIENCE_SECONDS

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module", name="busy_page")
def make_busy_page(busy_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCall]:
    """A server with the deployment's own dashboards, at the end of a run with many faults."""
    copy = Path(shutil.copy(busy_run.path, tmp_path_factory.mktemp("busy")))
    with OnCall(copy, CLOUDWATCH, now=busy_run.moments["over"]) as on_call:
        yield on_call


def wait_for_title(browser: Chrome, start: str) -> None:
    """Waits until the title starts with a text."""
    wait_until(browser, lambda: browser.title.startswith(start), f"the title does not start with {start!r}")


def fire(on_call: OnCall) -> None:
    """Makes the alarm on faults fire, and waits until the server has evaluated it."""
    on_call.record(faults(20, on_call.clock()))
    on_call.ahead_seconds += 10
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with urlopen(f"{on_call.url}/api/head") as response:
            states = {alarm["name"]: alarm["state"] for alarm in json.load(response)["alarms"]}
        if states.get("faults") == "ALARM":
            return
        assert time.monotonic() < end, states
        time.sleep(0.05)


def test_a_firing_alarm_is_shown_and_clears(browser: Chrome, on_call: OnCall) -> None:
    """The page shows that it fires, its reason, its start and its runbook, and later that all is quiet."""
    browser.get(on_call.url)
    assert "1 alarm without data" in text_of(browser, ".verdict", "All quiet")
    wait_for_title(browser, "All quiet")
    quiet_icon = find(browser, "body").find_element(By.XPATH, "//link[@id='icon']").get_attribute("href")

    on_call.record(faults(20, on_call.clock()))
    on_call.ahead_seconds += 10
    firing = find(browser, ".firing li", "faults")

    assert text_of(browser, ".verdict").startswith("▲\n")
    assert "firing" in text_of(browser, ".verdict h1")
    assert "Page" in firing.text
    assert "Callers get faults." in firing.text
    assert "requests with a server error (5xx): 20, limit 5, over 1 min" in firing.text
    assert "since " in firing.text
    assert "firing" not in browser.title
    wait_for_title(browser, "(")
    assert browser.find_element(By.ID, "icon").get_attribute("href") != quiet_icon
    assert "faults is firing" in str(browser.find_element(By.ID, "announcement").get_attribute("textContent"))
    assert "Firing" in text_of(browser, ".alarms .bad", "faults")

    firing.find_element(By.LINK_TEXT, "Runbook").click()
    runbook = find(browser, "dialog", "Callers get faults.")
    assert "<img src=" in runbook.text
    assert "runbook=faults" in browser.current_url
    assert "smoke (docs/deploying.md)" in runbook.text
    click(browser, "dialog a", "disk")
    find(browser, "dialog", "The disk is full.")
    find(browser, "dialog a code", "by-route")
    press(browser, Keys.ESCAPE)
    wait_until(browser, lambda: "runbook" not in browser.current_url)

    on_call.ahead_seconds += 6 * 60
    on_call.record(faults(0, on_call.clock()))
    find(browser, ".verdict", "All quiet")
    wait_for_title(browser, "All quiet")
    assert "faults is no longer firing" in str(browser.find_element(By.ID, "announcement").get_attribute("textContent"))


def test_every_kind_of_widget_is_drawn(browser: Chrome, shared: OnCall) -> None:
    """Charts have lines, axes and limits; numbers have units; an empty panel names its metric."""
    browser.get(f"{shared.url}/#/service")

    find(browser, ".panel.text h1", "clients here")
    find(browser, ".panel.numbers .number b", "MiB")
    assert find(browser, ".panel.gauge meter").get_attribute("max") == "100"
    assert "ms" in text_of(browser, ".panel.chart .legend", "get")
    find(browser, ".panel.chart .annotation", "alarm faults")
    find(browser, ".panel .nothing", "No data yet: Unused FreeSpace")
    find(browser, ".panel .nothing", "This page cannot draw a widget of type explorer.")
    find(browser, ".panel.table td", "/get/{id}")
    labels = [chart.get_attribute("aria-label") for chart in browser.find_elements(By.CSS_SELECTOR, ".chart[role=img]")]
    assert any("Requests and faults, latest: faults" in str(label) for label in labels)
    find(browser, ".chart .ytick", " ms")


def test_the_tooltip_of_a_chart_shows_all_values_of_a_time(browser: Chrome, shared: OnCall) -> None:
    """Each line's value at the mouse, with its unit."""
    browser.get(shared.url)
    chart = find(browser, ".chart[aria-label^='Latency by route']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    find(browser, ".chart[aria-label^='Latency by route'] .nsewdrag")

    def move_mouse() -> str:
        """Moves the mouse to the newest values and returns the tooltip, which a chart that is drawn again removes."""
        for from_edge in (24, 12):
            ActionChains(browser).move_to_element_with_offset(
                chart, int(chart.size["width"] / 2) - from_edge, 0
            ).perform()
        return str(chart.find_element(By.CSS_SELECTOR, ".hoverlayer").text)

    hover = wait_until(browser, lambda: (text := move_mouse()) and "UTC" in text and text, "no tooltip")
    assert "get : " in hover
    assert "add : " in hover
    assert " ms" in hover


def test_html_in_a_log_or_a_trace_is_shown_as_text(browser: Chrome, on_call: OnCall) -> None:
    """At every place of the page, HTML is neither rendered nor run."""
    moment = int(on_call.clock())
    line = {
        "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": "request",
        "route": HOSTILE,
        "status": 500,
        "trace_id": "c" * 32,
        "sampled": True,
    }
    text = {"key": HOSTILE, "value": {"stringValue": HOSTILE}}
    span = {
        "traceId": "c" * 32,
        "spanId": "d" * 16,
        "name": HOSTILE,
        "attributes": [text],
        "startTimeUnixNano": f"{moment}000000000",
        "endTimeUnixNano": f"{moment}500000000",
        "status": {"code": 2, "message": HOSTILE},
    }
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    on_call.record(orjson.dumps(line), b"\n", orjson.dumps(spans), b"\n")

    browser.get(f"{on_call.url}/#/logs?query=faults")
    click(browser, "tr.opens", HOSTILE)
    assert HOSTILE in text_of(browser, ".opened .fields")
    click(browser, ".opened a", "Trace")
    find(browser, ".trace h1", HOSTILE)
    click(browser, ".waterfall summary")
    assert HOSTILE in text_of(browser, ".about .fields")
    browser.get(f"{on_call.url}/#/traces?errors=1")
    find(browser, "td a", HOSTILE)

    assert browser.find_elements(By.CSS_SELECTOR, "main img, main script") == []
    assert "taken" not in browser.title


def test_the_keyboard_reaches_everything(browser: Chrome, shared: OnCall) -> None:
    """Shortcuts open every page and are off in text fields; Tab follows the order of the page."""
    browser.get(shared.url)
    find(browser, ".panel.chart .legend")

    reached = []
    for _ in range(14):
        press(browser, Keys.TAB)
        reached.append(focused(browser))
    assert reached[:5] == ["Skip to content", "Service", "Platform", "Logs", "Traces"]
    assert {"Pause", "Use dark colours", "Keyboard shortcuts"} <= set(reached)

    press(browser, "?")
    find(browser, "dialog", "write a query")
    assert focused(browser) == "Close"
    press(browser, Keys.ESCAPE)

    press(browser, "g", "p")
    find(browser, "nav [aria-current]", "Platform")
    press(browser, "g", "t")
    find(browser, "nav [aria-current]", "Traces")
    press(browser, "/")
    find(browser, "#query")
    wait_until(browser, lambda: focused(browser) == "Query")
    find(browser, ".outcome", "scanned")  # the query is in its field before the result is here
    press(browser, "g", "s")
    assert str(find(browser, "#query").get_attribute("value")).endswith("gs")
    press(browser, Keys.ESCAPE, "g", "s")
    find(browser, "nav [aria-current]", "Service")
    press(browser, ".")
    assert find(browser, "#pause").get_attribute("aria-pressed") == "true"

    press(browser, Keys.TAB)
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_time_range_is_in_the_url(browser: Chrome, shared: OnCall) -> None:
    """Every link keeps it, back and forward work, and the page says in words what it shows, with a way back to live."""
    browser.get(f"{shared.url}/#/service?minutes=5")
    find(browser, ".panel.chart .legend")
    assert browser.execute_script("return document.querySelector('[name=range]:checked').value") == "5"
    find(browser, ".choice span", "1 h").find_element(By.XPATH, "./preceding-sibling::input").click()
    wait_until(browser, lambda: "minutes=60" in browser.current_url)

    find(browser, ".period summary").send_keys(Keys.ENTER)
    wait_until(browser, lambda: focused(browser) == "from")
    start = int(shared.clock()) // 60 * 60 - 600
    for name, moment in (("from", start), ("to", start + 300)):
        field = find(browser, f"#{name}")
        browser.execute_script(
            "arguments[0].value = arguments[1]", field, f"{datetime.fromtimestamp(moment, UTC):%FT%T}"
        )
    find(browser, "#to").send_keys(Keys.ENTER)

    span = f"from={start}&to={start + 300}"
    assert "UTC (5 min)" in find(browser, "#shown", f"{datetime.fromtimestamp(start, UTC):%F %T}").text
    assert span in browser.current_url
    find(browser, ".panel.table", "No rows in this time range.")
    for selector in ("nav a[data-page=traces]", "nav a[data-page=logs]", ".queries a"):
        link = find(browser, selector)
        assert str(link.get_attribute("href")).endswith(span)
        link.click()
        assert span in browser.current_url
    for _ in range(3):
        browser.back()
    find(browser, ".panel.table", "No rows in this time range.")
    browser.back()
    wait_until(browser, lambda: "minutes=60" in browser.current_url)
    find(browser, ".panel.table td", "/get/{id}")
    browser.forward()
    click(browser, "#live")
    wait_until(browser, lambda: "minutes=15" in browser.current_url and "from" not in browser.current_url)
    assert not browser.find_element(By.ID, "shown").text

    browser.get(f"{shared.url}/#/service?from=7&to=5")
    find(browser, "main", "from must be before to, by at most 24 hours")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser logs the status 400
    click(browser, "#live")
    find(browser, ".panel.chart .legend")


def test_a_drag_over_a_chart_selects_the_range_of_the_page(browser: Chrome, shared: OnCall) -> None:
    """Back leads to the range before. A click on a point leads to the lines and traces of its minute."""
    browser.get(f"{shared.url}/#/service?minutes=15")
    name = ".chart[aria-label^='Latency by route']"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", find(browser, name))
    area = find(browser, f"{name} .nsewdrag")

    drag = ActionChains(browser).move_to_element_with_offset(area, 40, 0).click_and_hold()
    drag.move_by_offset(60, 0).move_by_offset(60, 0).release().perform()

    wait_until(browser, lambda: "from=" in browser.current_url)
    start, end = (float(here(browser)[name]) for name in ("from", "to"))
    assert 60 < end - start < 600
    assert shared.clock() - 900 < start < end <= shared.clock()
    find(browser, "#shown", "UTC")
    browser.back()
    wait_until(browser, lambda: here(browser) == {"minutes": "15"})

    def click() -> bool:
        """Clicks on the newest point, once the chart is drawn again."""
        area = find(browser, f"{name} .nsewdrag")
        edge = int(area.size["width"] / 2)
        for inside in (24, 6):
            ActionChains(browser).move_to_element_with_offset(area, edge - inside, 0).perform()
        ActionChains(browser).click().perform()
        return bool(browser.find_elements(By.XPATH, "//nav/span[starts-with(text(), 'around ')]"))

    wait_until(browser, click)
    assert focused(browser) == "Lines of Latency by route"
    press(browser, Keys.ENTER)
    find(browser, ".outcome", "scanned")
    moment = here(browser)
    assert float(moment["to"]) - float(moment["from"]) == 60
    browser.back()
    find(browser, "[aria-label='Traces of Latency by route']").send_keys(Keys.ENTER)
    find(browser, "nav [aria-current]", "Traces")
    assert here(browser) == {"minutes": "15"}


def here(browser: Chrome) -> dict[str, str]:
    """The parameters in the page's URL."""
    return dict(parse_qsl(browser.current_url.partition("?")[2]))


def test_what_happened_in_an_outage_is_shown_without_typing(browser: Chrome, outage_run: Run, tmp_path: Path) -> None:
    """Five minutes after it: what fired, from when to when, how many requests failed, and with a click which ones."""
    moments = outage_run.moments
    over = moments["over"] + 300
    with OnCall(Path(shutil.copy(outage_run.path, tmp_path)), CLOUDWATCH, now=over) as page:
        browser.get(page.url)
        event = find(browser, ".events li", "database-unavailable")
        start, end = re.findall(r"\d\d:\d\d:\d\d", event.text)[:2]
        failed = int(event.find_element(By.CSS_SELECTOR, ".failed").text.split()[0].replace(",", ""))

        assert "Ticket" in event.text
        assert "The service cannot reach its database" in event.text
        assert clock(moments["unavailable"]) < start < clock(moments["over"])
        assert clock(moments["over"]) < end < clock(over)
        assert failed == moments["failed"] > FAILED_REQUESTS
        assert "Page" in text_of(browser, ".events li", "availability\n")
        wait_until(browser, lambda: browser.execute_script(SHAPES, "rect") == 2)

        event.find_element(By.LINK_TEXT, f"{failed:,} requests failed").click()
        find(browser, ".outcome", "100 of ")
        rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "tr.opens")[:3]]
        assert all(" 50" in row for row in rows), rows
        browser.back()
        click(browser, ".events a", "Show this time")
        wait_until(browser, lambda: "from" in here(browser))
        find(browser, ".events li", "database-unavailable")


def test_a_deployment_is_marked(browser: Chrome, on_call: OnCall) -> None:
    """A process that starts with another build than the one before; a restart with the same build is none."""
    for at, build in ((60, "one"), (50, "two"), (40, "two")):
        moment = datetime.fromtimestamp(on_call.clock() - at, UTC).isoformat(timespec="milliseconds")
        line = {"timestamp": moment.replace("+00:00", "Z"), "event": "started", "build": build}
        on_call.record(orjson.dumps(line), b"\n")

    browser.get(on_call.url)

    events = find(browser, ".events", "two").find_elements(By.TAG_NAME, "li")
    assert [event.text.split()[1] for event in events] == ["two", "one"]
    wait_until(browser, lambda: browser.execute_script(SHAPES, "line") == 2)


# How many shapes of a kind the drawn charts have, each as many.
SHAPES: Final = """
const drawn = [...document.querySelectorAll(".chart[role=img]")].filter((chart) => chart.layout);
const counts = drawn.map((chart) => chart.layout.shapes.filter(
  ({type, yref}) => type === arguments[0] && yref === "paper").length);
return drawn.length && counts.every((count) => count === counts[0]) ? counts[0] : null;
"""
FAULTS: Final = Metric(names.NAMESPACE, names.FAULTS, (), "Sum")


def clock(seconds: float) -> str:
    """A time of the day, as the page writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"


def test_a_count_of_alarms_leads_to_all_of_them(browser: Chrome, shared: OnCall) -> None:
    """On whichever page. What fires comes first, then what has no data, which says why."""
    browser.get(f"{shared.url}/#/logs?minutes=60")
    click(browser, ".verdict a")

    find(browser, "nav [aria-current]", "Alarms")
    rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, ".events.all > li")]
    (disk,) = [row for row in rows if "disk" in row]
    assert "No data: nobody reports" in disk
    assert "free space on the disk: no data, minimum 977 KiB, over 1 min" in disk
    assert rows.index(disk) == sum("Firing" in row for row in rows)
    assert {row.split("\n")[1] for row in rows} == {"availability", "faults", "disk"}
    click(browser, ".events.all a", "Runbook")
    find(browser, "dialog", "disk")
    assert here(browser)["minutes"] == "60"


def test_a_ticket_is_amber(browser: Chrome, on_call: OnCall) -> None:
    """Where only tickets fire, the verdict, the icon and the list are not red."""
    browser.get(on_call.url)
    find(browser, ".verdict.good", "All quiet")
    at_ms = int(1000 * on_call.clock())
    on_call.record(orjson.dumps(document("Unused", {"Disk": NAME}, {"FreeSpace": 4096}, at_ms)), b"\n")
    on_call.ahead_seconds += 10

    ticket = find(browser, ".firing.unsure li", "disk")

    assert "free space on the disk: 4 KiB, minimum 977 KiB, over 1 min" in ticket.text
    find(browser, ".verdict.unsure", "1 firing")
    find(browser, ".alarms .unsure", "Firing")
    assert browser.find_elements(By.CSS_SELECTOR, ".verdict.bad, .alarms .bad, .firing.bad") == []
    amber = find(browser, "body").find_element(By.XPATH, "//link[@id='icon']").get_attribute("href")
    fire(on_call)
    find(browser, ".verdict.bad", "2 firing")
    assert find(browser, "body").find_element(By.XPATH, "//link[@id='icon']").get_attribute("href") != amber


def test_settings_are_remembered(browser: Chrome, on_call: OnCall) -> None:
    """The time range and the colours."""
    browser.get(on_call.url)
    find(browser, ".choice span", "1 h").find_element(By.XPATH, "./preceding-sibling::input").click()
    click(browser, "#theme", "Dark")
    find(browser, "#theme", "Light")

    browser.refresh()

    find(browser, "#theme", "Light")
    assert browser.execute_script("return document.querySelector('[name=range]:checked').value") == "60"
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_an_unreachable_server_is_reported(browser: Chrome, on_call: OnCall) -> None:
    """The page shows since when the server does not answer."""
    browser.get(on_call.url)
    find(browser, "#source", "Live")

    on_call.stop()
    refresh(browser)

    find(browser, "#source", "The server has not answered since ")
    assert browser.title.startswith("No server")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser logs the failed requests
    browser.get("about:blank")


def test_a_missing_recording_is_reported(browser: Chrome, tmp_path: Path) -> None:
    """The page shows which file it waits for, and which command creates it."""
    with OnCall(tmp_path / "nothing.jsonl") as on_call:
        browser.get(on_call.url)

        find(browser, "#source", "make run in another terminal creates it")
        find(browser, ".verdict.unsure", "No recording yet")
        find(browser, "main .nothing", "No recording yet. make run in another terminal starts the service")
        assert not browser.find_elements(By.CSS_SELECTOR, ".grid")


DRAWN: Final = """
const charts = [...document.querySelectorAll(".chart[role=img]")];
return charts.every((chart) => chart.querySelector(".main-svg"));
"""


@pytest.mark.parametrize(
    "page", ["service", "platform", "logs?query=requests", "traces", "alarms", "service?from=1&to=60"]
)
def test_a_page_is_readable_in_both_colours_and_on_a_phone(browser: Chrome, shared: OnCall, page: str) -> None:
    """The page breaks no rule of axe-core, contrasts among them. At 390 pixels, only tables scroll sideways."""
    fire(shared)
    browser.get(f"{shared.url}/#/{page}")
    find(browser, ".firing li", "faults")
    find(browser, "main .panel")
    for width in (1280, PHONE_WIDTH):
        for colors in ("light", "dark"):
            emulate(browser, width=width, colors=colors)
            find(browser, f":root[data-theme={colors}]")
            wait_until(browser, lambda: browser.execute_script(DRAWN), "a visible chart is not drawn")
            assert_accessible(browser)


@pytest.fixture(name="keep")
def make_keep(browser: Chrome, tmp_path: Path) -> Callable[[str], None]:
    """Saves a screenshot of the whole page in the folder that SCREENSHOTS names."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str) -> None:
        width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wait_until(browser, lambda: browser.execute_script(DRAWN), "a visible chart is not drawn")
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))

    return keep


@pytest.mark.parametrize(("width", "colors"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_a_real_run_is_shown(
    browser: Chrome,
    busy_page: OnCall,
    keep: Callable[[str], None],
    width: int,
    colors: Literal["light", "dark"],
) -> None:
    """The deployment's own dashboards show a run with many faults. All pages are accessible; screenshots are saved."""
    for page in ("service", "platform", "requests", "logs?query=slowest-requests", "traces?errors=1"):
        emulate(browser, width=width, colors=colors)
        browser.get(f"{busy_page.url}/#/{page}")
        find(browser, "main .panel")
        find(browser, "#source .live, #source .unsure")  # on a slow machine, the recorded run is long over
        keep(f"{page.partition('?')[0]}-{width}-{colors}")
        assert_accessible(browser)
    emulate(browser, width=width, colors=colors)
    click(browser, "td a")
    click(browser, ".waterfall summary")
    keep(f"trace-{width}-{colors}")
    assert_accessible(browser)
