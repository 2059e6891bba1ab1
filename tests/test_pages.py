"""The pages, in a real browser."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from tests.conftest import Client
from tests.lacking import lacking
from tests.process import Service

# Headless, and quiet: a browser that calls home finds no network here and waits for it.
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
WAIT_SECONDS = 20


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Chromium, from Debian's packages chromium and chromium-driver, or what goes by another name elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (chromium and driver):
        lacking("chromium and chromedriver are missing (on Debian: apt install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, f"--user-data-dir={tmp_path}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Driver(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def complaints(browser: Chrome) -> list[str]:
    """What the page complained of in its console: a blocked script, a missing file, an exception."""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]


def test_the_docs_are_interactive(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/docs lists the endpoints and sends a request that is answered, without a complaint from the browser."""
    service = serve()
    browser.get(f"{service.url}/docs")
    wait = WebDriverWait(browser, WAIT_SECONDS)
    wait.until(presence_of_element_located((By.ID, "operations-clients-getClient")))
    assert len(browser.find_elements(By.CLASS_NAME, "opblock")) == 6

    browser.find_element(By.CSS_SELECTOR, "#operations-clients-getClient .opblock-summary-control").click()
    execute = (By.CSS_SELECTOR, "#operations-clients-getClient .execute")
    wait.until(presence_of_element_located(execute)).click()
    answer = wait.until(presence_of_element_located((By.CSS_SELECTOR, ".live-responses-table .highlight-code")))

    assert "Andres" in answer.text
    assert complaints(browser) == []


def test_the_front_page_leads_on(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/ says what this is, and each of its links leads somewhere."""
    service = serve()
    browser.get(service.url)
    links = [link.get_attribute("href") or "" for link in browser.find_elements(By.TAG_NAME, "a")]

    assert "Clients API" in browser.title
    assert {link.removeprefix(service.url) for link in links} >= {"/docs", "/openapi.json", "/healthz", "/readyz"}
    assert complaints(browser) == []
    for link in links:
        browser.get(link)
        assert "problem+json" not in str(browser.execute_script("return document.contentType"))


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js", "/docs/style.css", "/docs/swagger-ui-bundle.js"])
async def test_pages_come_from_here_alone(api: Client, path: str) -> None:
    """Every page and asset is served from this machine, and forbids the browser to load from any other."""
    response = await api.get(path)

    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "https://" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2Fdocs.py", "/docs/../docs.html"])
async def test_there_are_no_other_assets(api: Client, path: str) -> None:
    """Only the listed files are served."""
    assert (await api.get(path)).status == 404
