"""The page on call, in a real browser, as someone on call uses it."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from ops.common.process import ROOT
from tests.browser import WAIT_SECONDS, console_errors, start_browser
from tests.ops.cloudwatch.recording import Run
from tests.ops.oncall.page import OnCall, faults

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(name="on_call")
def make_on_call(recording: Path, tmp_path: Path) -> Iterator[OnCall]:
    """The page's server, on a copy of the recording."""
    with OnCall(Path(shutil.copy(recording, tmp_path))) as on_call:
        yield on_call


@pytest.fixture(scope="module", name="chrome")
def start_chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One for all: what a page remembers it does not share with another test's, which is at another port."""
    with start_browser(tmp_path_factory.mktemp("profile"), options=["--window-size=1440,1000"]) as chrome:
        yield chrome


@pytest.fixture(name="browser")
def make_browser(chrome: Chrome) -> Chrome:
    """As it was when it started."""
    chrome.get("about:blank")
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for log in ("browser", "performance"):
        chrome.get_log(log)  # type: ignore[no-untyped-call]
    return chrome


def look(browser: Chrome, *, width: int = 1440, colors: Literal["light", "dark"] = "light") -> None:
    """The browser is this wide from now on, and its person likes these colours."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": colors}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(browser: Chrome, selector: str, text: str = "") -> WebElement:
    """The first element like this that is shown and has the text, once there is one."""

    def shown(_: Chrome) -> WebElement | None:
        elements = browser.find_elements(By.CSS_SELECTOR, selector)
        return next((element for element in elements if element.is_displayed() and text in element.text), None)

    return WebDriverWait(browser, WAIT_SECONDS, ignored_exceptions=[Exception]).until(
        shown, f"no {selector} with {text!r} in {find_text(browser)!r}"
    )  # type: ignore[return-value]  # never None


def find_text(browser: Chrome) -> str:
    """All that the page says."""
    return browser.find_element(By.TAG_NAME, "body").text


def press(browser: Chrome, *keys: str) -> None:
    """Keys, one after the other, wherever the focus is."""
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: Chrome) -> str:
    """What has the focus, in its own words."""
    element = browser.switch_to.active_element
    return str(element.get_attribute("aria-label") or element.text or element.get_attribute("id"))


def title_is(browser: Chrome, start: str) -> None:
    """The title begins so, soon."""
    WebDriverWait(browser, WAIT_SECONDS).until(lambda _: browser.title.startswith(start), f"title is {browser.title}")


@pytest.fixture(autouse=True)
def nothing_is_complained_of(browser: Chrome) -> Iterator[None]:
    """Whatever a test does, the console has no error, and no request goes to another machine."""
    yield
    if browser.current_url.startswith("http"):
        assert console_errors(browser) == []
    log = browser.get_log("performance")  # type: ignore[no-untyped-call]
    sent = [json.loads(entry["message"])["message"] for entry in log]
    urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert urls
    # The browser's own first page is its own affair.
    assert {url for url in urls if not url.startswith(("http://127.0.0.1:", "data:", "chrome"))} == set()


def test_an_alarm_shows_and_clears(browser: Chrome, on_call: OnCall) -> None:
    """One glance says that all is quiet, then what fires, why, since when and what to do, and then that it is over."""
    browser.get(on_call.url)
    assert "1 alarm without data" in find(browser, ".verdict", "All quiet").text
    title_is(browser, "All quiet")
    quiet_icon = find(browser, "body").find_element(By.XPATH, "//link[@id='icon']").get_attribute("href")

    on_call.tell(faults(20))
    on_call.later_seconds += 10
    firing = find(browser, ".firing li", "faults")

    assert find(browser, ".verdict").text.startswith("▲\n")
    assert "firing" in find(browser, ".verdict h1").text
    assert "Page" in firing.text
    assert "Callers get faults." in firing.text
    assert "20; it fires at > 5" in firing.text
    assert "since " in firing.text
    assert "firing" not in browser.title
    title_is(browser, "(")
    assert browser.find_element(By.ID, "icon").get_attribute("href") != quiet_icon
    assert "faults fires" in str(browser.find_element(By.ID, "announcement").get_attribute("textContent"))
    assert "Firing" in find(browser, ".alarms .bad", "faults").text

    firing.find_element(By.LINK_TEXT, "Runbook").click()
    runbook = find(browser, "dialog", "Callers get faults.")
    assert "<img src=" in runbook.text
    assert "runbook=faults" in browser.current_url
    assert "smoke (docs/deploying.md)" in runbook.text
    find(browser, "dialog a", "disk").click()
    find(browser, "dialog", "The disk is full.")
    find(browser, "dialog a code", "by-route")
    press(browser, Keys.ESCAPE)
    WebDriverWait(browser, WAIT_SECONDS).until(lambda _: "runbook" not in browser.current_url)

    on_call.later_seconds += 6 * 60
    on_call.tell(faults(0))
    find(browser, ".verdict", "All quiet")
    title_is(browser, "All quiet")
    assert "faults no longer fires" in str(browser.find_element(By.ID, "announcement").get_attribute("textContent"))


def test_every_kind_of_widget_is_drawn(browser: Chrome, on_call: OnCall) -> None:
    """Charts have their lines, axes and limits; numbers their units; what has no data says of which metric."""
    browser.get(f"{on_call.url}/#/service")

    find(browser, ".panel.text h1", "clients here")
    assert "MiB" in find(browser, ".panel.numbers .number b").text
    assert find(browser, ".panel.gauge meter").get_attribute("max") == "100"
    assert "ms" in find(browser, ".panel.chart .legend", "get").text
    find(browser, ".panel.chart .annotation", "alarm faults")
    find(browser, ".panel .nothing", "No data yet: Nobody FreeSpace")
    find(browser, ".panel .nothing", "This page cannot draw a widget of type explorer.")
    find(browser, ".panel.table td", "/get/{id}")
    labels = [chart.get_attribute("aria-label") for chart in browser.find_elements(By.CSS_SELECTOR, ".chart[role=img]")]
    assert any("Requests and faults, latest: faults" in str(label) for label in labels)
    find(browser, ".chart .ytick", " ms")


def test_hovering_shows_all_values_of_a_time(browser: Chrome, on_call: OnCall) -> None:
    """Every line of a chart tells its value where the mouse is, with its unit."""
    browser.get(on_call.url)
    chart = find(browser, ".chart[aria-label^='Latency by route']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    find(browser, ".chart[aria-label^='Latency by route'] .nsewdrag")

    ActionChains(browser).move_to_element_with_offset(chart, int(chart.size["width"] / 2) - 12, 0).perform()

    hover = find(browser, ".hoverlayer", "UTC").text
    assert "get : " in hover
    assert "add : " in hover
    assert " ms" in hover


def test_a_line_leads_to_its_trace_and_back(browser: Chrome, on_call: OnCall) -> None:
    """From the log to a line's fields, to its trace's waterfall and its attributes, and back to its lines."""
    browser.get(f"{on_call.url}/#/logs?query=requests")
    find(browser, ".outcome", "7 rows")

    find(browser, "tr.opens", "/add").click()
    assert "request_id" in find(browser, ".opened .fields").text
    find(browser, ".opened a", "Its trace").click()

    waterfall = find(browser, ".waterfall", "INSERT clients")
    waterfall.find_elements(By.TAG_NAME, "summary")[1].click()
    assert "db.operation.name" in find(browser, ".about .fields").text

    find(browser, "#lines").click()
    find(browser, ".outcome", "1 row;")
    assert "filter log_processed.trace_id" in str(find(browser, "#query").get_attribute("value"))


def test_a_query_can_be_written(browser: Chrome, on_call: OnCall) -> None:
    """A query that is typed in is run and can be sent to somebody; one that is not understood says where."""
    browser.get(f"{on_call.url}/#/logs")
    query = find(browser, "#query")
    find(browser, ".outcome", "0 rows")

    query.clear()
    query.send_keys("stats count(*) as n by log_processed.event", Keys.CONTROL, Keys.ENTER)
    find(browser, ".results th", "event")
    address = browser.current_url

    query.send_keys(" |")
    find(browser, "button.primary", "Run").click()
    find(browser, ".outcome.problem", "Line 1, column")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the browser itself tells of a 400

    browser.get(address)
    find(browser, ".results th", "event")


def test_what_a_log_says_stays_text(browser: Chrome, on_call: OnCall) -> None:
    """A log line or a span that is HTML, or that breaks out of any place that it is shown in, is shown as it is."""
    moment = int(on_call.clock())
    told = {
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
    on_call.tell(orjson.dumps(told), b"\n", orjson.dumps(spans), b"\n")

    browser.get(f"{on_call.url}/#/logs?query=faults")
    find(browser, "tr.opens", HOSTILE).click()
    assert HOSTILE in find(browser, ".opened .fields").text
    find(browser, ".opened a", "Its trace").click()
    find(browser, ".trace h1", HOSTILE)
    find(browser, ".waterfall summary").click()
    assert HOSTILE in find(browser, ".about .fields").text
    browser.get(f"{on_call.url}/#/traces?errors=1")
    find(browser, "td a", HOSTILE)

    assert browser.find_elements(By.CSS_SELECTOR, "main img, main script") == []
    assert "taken" not in browser.title


def test_a_keyboard_is_enough(browser: Chrome, on_call: OnCall) -> None:
    """Shortcuts lead everywhere and stay out of the way of who types; Tab goes through the page in its order."""
    browser.get(on_call.url)
    find(browser, ".panel.chart .legend")

    reached = []
    for _ in range(14):
        press(browser, Keys.TAB)
        reached.append(focused(browser))
    assert reached[:5] == ["To the content", "Service", "Platform", "Logs", "Traces"]
    assert {"Pause", "Use dark colours", "Keyboard shortcuts"} <= set(reached)

    press(browser, "?")
    assert "write a query" in find(browser, "dialog").text
    assert focused(browser) == "Close"
    press(browser, Keys.ESCAPE)

    press(browser, "g", "p")
    find(browser, "nav [aria-current]", "Platform")
    press(browser, "g", "t")
    find(browser, "nav [aria-current]", "Traces")
    press(browser, "/")
    find(browser, "#query")
    WebDriverWait(browser, WAIT_SECONDS).until(lambda _: focused(browser) == "Query")
    press(browser, "g", "s")
    assert str(find(browser, "#query").get_attribute("value")).endswith("gs")
    press(browser, Keys.ESCAPE, "g", "s")
    find(browser, "nav [aria-current]", "Service")
    press(browser, ".")
    assert find(browser, "#pause").get_attribute("aria-pressed") == "true"

    press(browser, Keys.TAB)
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_choice_is_remembered(browser: Chrome, on_call: OnCall) -> None:
    """The time range and the colours are as they were left."""
    look(browser, colors="light")
    browser.get(on_call.url)
    find(browser, ".choice span", "1 h").find_element(By.XPATH, "./preceding-sibling::input").click()
    find(browser, "#theme", "Dark").click()
    find(browser, "#theme", "Light")

    browser.refresh()

    find(browser, "#theme", "Light")
    assert browser.execute_script("return document.querySelector('[name=range]:checked').value") == "60"
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_a_silent_source_is_said_plainly(browser: Chrome, on_call: OnCall) -> None:
    """Where no line comes any more, green is not what the page shows."""
    browser.get(on_call.url)
    find(browser, "#source", "Live")

    on_call.later_seconds += 40

    find(browser, ".verdict.unsure", "No line for ")
    find(browser, "#source", "no line for 4")


def test_a_lost_server_is_said_plainly(browser: Chrome, on_call: OnCall) -> None:
    """Where the server is gone, the page says since when, and comes back by itself."""
    browser.get(on_call.url)
    find(browser, "#source", "Live")

    on_call.stop()

    find(browser, "#source", "This page lost its server since ")
    assert browser.title.startswith("No server")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # the failed requests, which the browser tells of
    browser.get("about:blank")


def test_a_recording_that_is_not_there_is_waited_for(browser: Chrome, tmp_path: Path) -> None:
    """The page says what it waits for, and how to get it."""
    with OnCall(tmp_path / "nothing.jsonl") as on_call:
        browser.get(on_call.url)

        assert "make run writes it" in find(browser, "#source", "There is no").text
        find(browser, ".verdict.unsure", "No recording yet")
        find(browser, ".panel .nothing", "No data yet: ClientsApi Latency")


@pytest.mark.parametrize("page", ["service", "platform", "logs?query=requests", "traces"])
def test_a_phone_needs_no_sideways_scrolling(browser: Chrome, on_call: OnCall, page: str) -> None:
    """At 390 pixels everything is in one column, and only tables scroll within themselves."""
    look(browser, width=390)
    browser.get(f"{on_call.url}/#/{page}")
    find(browser, "main .panel")
    on_call.tell(faults(20))
    on_call.later_seconds += 10
    find(browser, ".firing li", "faults")

    width, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")

    assert (width, inner) == (390, 390)


# Of each text on the page: the contrast to what is behind it, and the least that WCAG 2.2 asks for at its size (AA).
CONTRASTS = """
const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
function behind(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.push(rgb(getComputedStyle(one).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
}
const luminance = (color) => {
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = color.map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
  const box = element.getBoundingClientRect();
  if (!own || element.closest(".hidden, noscript, dialog:not([open])") || box.width === 0) continue;
  const style = getComputedStyle(element);
  const color = element instanceof SVGElement ? style.fill : style.color;
  const ground = behind(element);
  const [light, dark] = [luminance(over(rgb(color), ground)), luminance(ground)].sort((one, other) => other - one);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  found.push([own, (light + 0.05) / (dark + 0.05), isLarge ? 3 : 4.5]);
}
return found;
"""


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("page", ["service", "logs?query=requests", "traces"])
def test_text_can_be_read(browser: Chrome, on_call: OnCall, page: str, colors: Literal["light", "dark"]) -> None:
    """Each text stands out from what is behind it as much as WCAG's level AA asks for, in light and in dark."""
    look(browser, colors=colors)
    on_call.tell(faults(20))
    on_call.later_seconds += 10
    browser.get(f"{on_call.url}/#/{page}")
    find(browser, ".firing li", "faults")
    find(browser, "main .panel")

    found = browser.execute_script(CONTRASTS)

    assert len(found) > 30
    assert [one for one in found if one[1] < one[2]] == []


@pytest.fixture(name="keep")
def make_keep(browser: Chrome, tmp_path: Path) -> Callable[[str], None]:
    """Keeps a picture of the whole page in the folder that SCREENSHOTS names, for people to look at."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str) -> None:
        width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
        size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # What has come into sight is drawn now.
        browser.execute_async_script("setTimeout(arguments[0], 1000)")
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        (folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))

    return keep


@pytest.mark.parametrize(("width", "colors"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_a_real_run_is_shown(
    browser: Chrome,
    busy_run: Run,
    keep: Callable[[str], None],
    tmp_path: Path,
    width: int,
    colors: Literal["light", "dark"],
) -> None:
    """The deployment's own dashboards show a run in which much goes wrong, and pictures of it are kept."""
    folder = ROOT / "ops" / "cloudwatch"
    with OnCall(Path(shutil.copy(busy_run.path, tmp_path)), folder) as on_call:
        on_call.later_seconds = busy_run.moments["over"] - on_call.clock()
        for page in ("service", "platform", "logs?query=slowest-requests", "traces?errors=1"):
            look(browser, width=width, colors=colors)
            browser.get(f"{on_call.url}/#/{page}")
            find(browser, "main .panel")
            find(browser, "#source", "Live")
            keep(f"{page.partition('?')[0]}-{width}-{colors}")
        look(browser, width=width, colors=colors)
        find(browser, "td a").click()
        find(browser, ".waterfall summary").click()
        keep(f"trace-{width}-{colors}")
