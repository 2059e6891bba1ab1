"""The pages, in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from ops.common.process import Service
from svc.http.access import digest
from tests.browser import WAIT_SECONDS, browsing, complaints
from tests.conftest import Client


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with browsing(tmp_path) as chrome:
        yield chrome


def test_the_docs_are_interactive(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/docs lists the endpoints and sends a request that is answered, without a complaint from the browser."""
    service = serve()
    browser.get(f"{service.url}/docs")
    wait = WebDriverWait(browser, WAIT_SECONDS)
    wait.until(presence_of_element_located((By.ID, "operations-clients-getClient")))
    assert len(browser.find_elements(By.CLASS_NAME, "opblock")) == 6
    assert browser.find_elements(By.CLASS_NAME, "authorize") == []

    assert "Andres" in ask_for_client_1(browser)
    assert complaints(browser) == []


def ask_for_client_1(browser: Chrome) -> str:
    """What /docs shows of the answer once its request is sent."""
    wait = WebDriverWait(browser, WAIT_SECONDS)
    browser.find_element(By.CSS_SELECTOR, "#operations-clients-getClient .opblock-summary-control").click()
    execute = (By.CSS_SELECTOR, "#operations-clients-getClient .execute")
    wait.until(presence_of_element_located(execute)).click()
    answer = (By.CSS_SELECTOR, ".live-responses-table .highlight-code")
    return wait.until(presence_of_element_located(answer)).text


def test_the_docs_take_a_key(browser: Chrome, serve: Callable[..., Service]) -> None:
    """Where the API wants a key, /docs lets people give theirs, and its requests are answered."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    browser.get(f"{service.url}/docs")
    wait = WebDriverWait(browser, WAIT_SECONDS)
    wait.until(presence_of_element_located((By.CSS_SELECTOR, "button.authorize"))).click()
    wait.until(presence_of_element_located((By.CSS_SELECTOR, ".auth-container input"))).send_keys("the key\n")
    wait.until(presence_of_element_located((By.CSS_SELECTOR, ".btn-done"))).click()

    assert "Andres" in ask_for_client_1(browser)
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


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js"])
async def test_pages_take_nothing_but_their_own_files(api: Client, path: str) -> None:
    """No script or style within a page counts, no other site may frame it, and none learns where readers come from."""
    response = await api.get(path)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))

    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_no_other_site_keeps_a_hold_on_a_page_that_it_opened(browser: Chrome, serve: Callable[..., Service]) -> None:
    """A key may be typed in there: to who opened it from elsewhere, the window is as good as closed."""
    service = serve()
    browser.get(service.url.replace("127.0.0.1", "localhost") + "/version")  # another origin, with no policy of its own
    browser.execute_script(f"window.opened = [open('{service.url}/docs'), open('{service.url}/version')]")
    wait = WebDriverWait(browser, WAIT_SECONDS)

    assert wait.until(lambda chrome: chrome.execute_script("return opened[0].closed"))
    assert browser.execute_script("return opened[1].closed") is False


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(
    ("trusted", "proto", "told"),
    [
        ("127.0.0.1", "https", "max-age=31536000"),
        ("127.0.0.1", "http", None),
        ("127.0.0.1", None, None),
        ("10.0.0.0/8", "https", None),  # anyone can say so
    ],
)
def test_who_came_by_https_is_to_come_so_again(
    serve: Callable[..., Service], path: str, trusted: str, proto: str | None, told: str | None
) -> None:
    """A balancer of ours ends TLS, and says so; a browser then never asks in the clear again."""
    service = serve(TRUSTED_PROXIES=trusted, DRAIN_SECONDS="0")
    asked = Request(service.url + path, headers={"X-Forwarded-Proto": proto} if proto else {})
    with urlopen(asked) as answer:
        assert answer.headers["Strict-Transport-Security"] == told


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2Fdocs.py", "/docs/../docs.html"])
async def test_there_are_no_other_assets(api: Client, path: str) -> None:
    """Only the listed files are served."""
    assert (await api.get(path)).status == 404
