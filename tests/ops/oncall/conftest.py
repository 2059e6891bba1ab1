"""A browser, servers of the on-call page on copies of the recording of a quiet run, and a service that is recorded."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from svc.postgres.settings import DatabaseSettings
from tests.browser import console_errors, emulate, start_browser
from tests.ops.oncall.page import OnCall
from tests.patience import PATIENCE_SECONDS
from tests.service import Service


@pytest.fixture(scope="module")
def shared(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCall]:
    """A server for the tests that only read, on a copy of the recording."""
    with OnCall(Path(shutil.copy(recording, tmp_path_factory.mktemp("shared"))), now=end(recording)) as on_call:
        yield on_call


def end(recording: Path) -> float:
    """When a recording has ended, in seconds since 1970."""
    return recording.stat().st_mtime + 0.1  # the kernel's clock for files is some ms behind that of the lines


@pytest.fixture(name="on_call")
def make_on_call(recording: Path, tmp_path: Path) -> Iterator[OnCall]:
    """A server for one test, which may add lines, move its clock, or stop it."""
    with OnCall(Path(shutil.copy(recording, tmp_path)), now=end(recording)) as on_call:
        yield on_call


@pytest.fixture(scope="module", name="chrome")
def launch_chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests."""
    with start_browser(tmp_path_factory.mktemp("profile"), options=["--window-size=1440,1000"]) as chrome:
        chrome.set_script_timeout(PATIENCE_SECONDS)
        yield chrome


@pytest.fixture(name="browser")
def make_browser(chrome: Chrome) -> Iterator[Chrome]:
    """The browser in its initial state. No test may cause an error in its console, or a request to another host."""
    chrome.get("about:blank")
    emulate(chrome)
    for log in ("browser", "performance"):
        chrome.get_log(log)  # type: ignore[no-untyped-call]
    yield chrome
    if chrome.current_url.startswith("http"):
        assert console_errors(chrome) == []
    log = chrome.get_log("performance")  # type: ignore[no-untyped-call]
    sent = [json.loads(entry["message"])["message"] for entry in log]
    urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert urls
    # The browser also requests its own start page.
    assert {url for url in urls if not url.startswith(("http://127.0.0.1:", "data:", "chrome"))} == set()


@pytest.fixture(name="service")
def record_service(database_settings: DatabaseSettings, short_folder: Path) -> Iterator[Service]:
    """The process that `make run` starts, on the tests' PostgreSQL."""
    environment = {
        "DATABASE_URL": database_settings.dsn,
        "LOCAL_FOLDER": str(short_folder),
        "METRICS_INTERVAL": "1",
        "DRAIN_SECONDS": "0",
    }
    found = Service(environment, module=["ops.oncall.recorder"])
    try:
        found.wait_until_listening()
        yield found
    finally:
        found.end()
