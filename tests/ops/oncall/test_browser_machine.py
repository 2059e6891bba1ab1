"""What the page says of the machine and of the service that runs on it, its runbooks, and the page on a phone."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from ops.oncall import machine
from ops.oncall.state import CLOUDWATCH
from tests.axe import assert_accessible
from tests.browser import PHONE_WIDTH, emulate
from tests.ops.oncall.browsing import find, press, refresh, text_of, wait_until
from tests.ops.oncall.conftest import end
from tests.ops.oncall.page import OnCall, faults

HOUR: Final = 3600


@pytest.fixture(name="on_call")
def make_on_call(recording: Path, tmp_path: Path) -> Iterator[OnCall]:
    """A server with the deployment's own dashboards and runbooks, at the end of a recording."""
    with OnCall(Path(shutil.copy(recording, tmp_path)), CLOUDWATCH, now=end(recording)) as on_call:
        yield on_call


def test_the_platform_says_what_stands_for_what(browser: Chrome, on_call: OnCall) -> None:
    """So does a panel that has no data here. The dashboard of the service has figures of its own only."""
    browser.get(f"{on_call.url}/#/platform")
    assert text_of(browser, "main .note") == machine.NOTE
    find(browser, ".panel", machine.MISSING["AWS/CertificateManager DaysToExpiry"])
    find(browser, ".panel", machine.MISSING["AWS/RDS ReadLatency"])

    browser.get(f"{on_call.url}/#/service")
    find(browser, ".panel h2", "Latency")
    assert not browser.find_elements(By.CSS_SELECTOR, "main .note")


def test_the_size_of_the_recording_is_shown(browser: Chrome, on_call: OnCall) -> None:
    """With its maximum."""
    browser.get(on_call.url)
    find(browser, "#source", "recording.jsonl, 1 MB of at most 100 MB: ")


def test_a_service_that_has_stopped_is_reported(browser: Chrome, on_call: OnCall) -> None:
    """First with the time, beside its last data; where no data is left to show, with the command that starts it."""
    browser.get(on_call.url)
    find(browser, "#source", "Live")

    on_call.ahead_seconds += 30
    refresh(browser)
    find(browser, "#source", "no line for ")
    find(browser, ".verdict.unsure h1", "No line")
    find(browser, ".verdict p", "For ")
    find(browser, ".panel h2", "Latency")

    on_call.ahead_seconds += 60
    refresh(browser)
    stopped = text_of(browser, "#source", "the service stopped at ")
    assert re.search(r"; the service stopped at \d\d:\d\d:\d\d UTC\.", stopped)
    find(browser, ".panel h2", "Latency")

    on_call.ahead_seconds += 30 * HOUR
    refresh(browser)
    said = text_of(browser, "main .nothing", "make run in another terminal starts the service")
    assert re.match(r"The service stopped at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\. ", said)  # with its day
    assert not browser.find_elements(By.CSS_SELECTOR, ".grid, .firing")
    find(browser, ".verdict.unsure h1", "The service stopped")
    find(browser, ".verdict p", "At 20")
    assert_accessible(browser)

    on_call.record(faults(0, at=on_call.clock()))
    refresh(browser)
    find(browser, ".panel h2", "Latency")


def test_the_commands_of_a_runbook_wrap_and_can_be_copied(browser: Chrome, on_call: OnCall) -> None:
    """By keyboard, too. Where the browser refuses to copy them, they are selected for the keyboard's shortcut."""
    origin = {"origin": on_call.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    emulate(browser, width=PHONE_WIDTH)
    browser.get(f"{on_call.url}/#/service?runbook=database-load")
    block = find(browser, "dialog pre")
    commands = block.text.strip()
    for one in browser.find_elements(By.CSS_SELECTOR, "dialog, dialog pre"):
        assert browser.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", one) == 0
    assert_accessible(browser)

    button = find(browser, "dialog .copied button", "Copy")
    browser.execute_script("arguments[0].focus()", button)
    press(browser, Keys.ENTER)
    find(browser, "dialog .copied button", "Copied")
    assert browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == commands

    browser.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    button.click()
    find(browser, "dialog .copied button", "Selected: press Ctrl-C")
    assert browser.execute_script("return String(getSelection())").strip() == commands
    wait_until(browser, lambda: button.text == "Copy")


@pytest.mark.parametrize("page", ["logs", "traces"])
def test_the_summary_above_logs_and_traces_is_one_line_on_a_phone(browser: Chrome, on_call: OnCall, page: str) -> None:
    """Also while an alarm fires, which has a line of its own. On a dashboard it has its whole height."""
    emulate(browser, width=PHONE_WIDTH)
    browser.get(f"{on_call.url}/#/service")
    whole = find(browser, "#summary .verdict").size["height"]
    find(browser, "#summary .budget")

    browser.get(f"{on_call.url}/#/{page}")
    wait_until(browser, lambda: browser.find_element(By.ID, "summary").size["height"] < 45)
    assert browser.find_element(By.ID, "summary").size["height"] < whole
    for at in range(8):
        on_call.record(faults(50, at=on_call.clock() - 60 * at))
    on_call.ahead_seconds += 10
    refresh(browser)
    row = find(browser, ".firing li", "availability")
    assert row.size["height"] < 45
    assert find(browser, ".firing li a", "Runbook").location["y"] < row.location["y"] + row.size["height"]
    assert_accessible(browser)
