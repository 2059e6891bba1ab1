"""A real browser: Chromium, from Debian's chromium and chromium-driver, or what goes by another name elsewhere."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver

from tests.missing import missing

WAIT_SECONDS: Final = 20

# Headless, and quiet: a browser that calls home finds no network here and waits for it.
_OPTIONS: Final = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


@contextmanager
def browsing(profile: Path, *, more: Sequence[str] = ()) -> Iterator[Chrome]:
    """A browser meanwhile.

    Args:
        profile: a folder for what it keeps.
        more: options of its command line.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (chromium and driver):
        missing("chromium and chromedriver are missing (on Debian: apt install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for option in (*_OPTIONS, *more, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Driver(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def complaints(browser: Chrome) -> list[str]:
    """What the page complained of in its console: a blocked script, a missing file, an exception."""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]
