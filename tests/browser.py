"""A real browser: Chromium, as in Debian's packages chromium and chromium-driver, or Google Chrome."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver

from tests.missing import missing

PHONE_WIDTH: Final = 390  # pixels

# Headless, and without requests to its vendor, for which the browser would wait where there is no network.
_OPTIONS: Final = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


@contextmanager
def start_browser(profile: Path, *, options: Sequence[str] = ()) -> Iterator[Chrome]:
    """Starts a browser, and closes it at the end.

    Args:
        profile: the folder of the browser's profile.
        options: further command line options.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (chromium and driver):
        missing("chromium and chromedriver are missing (on Debian: apt install chromium chromium-driver)")
    chrome_options = ChromeOptions()
    chrome_options.binary_location = chromium
    for option in (*_OPTIONS, *options, f"--user-data-dir={profile}"):
        chrome_options.add_argument(option)
    chrome_options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=chrome_options, service=Driver(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def emulate(browser: Chrome, *, width: int = 1280, colors: Literal["light", "dark"] = "light") -> None:
    """Sets the width of the browser in pixels, and the colours that its user prefers."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width <= PHONE_WIDTH}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": colors}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console_errors(browser: Chrome) -> list[str]:
    """The errors and warnings in the browser's console since the last call, such as a blocked script."""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]
