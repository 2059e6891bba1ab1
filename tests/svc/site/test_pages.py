"""The pages, in a real browser and over HTTP."""

from collections.abc import Callable, Iterator
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from ops.common.process import Service
from svc.http.access import digest
from tests.browser import WAIT_SECONDS, console_errors, start_browser
from tests.conftest import Client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with start_browser(tmp_path_factory.mktemp("browser")) as chrome:
        yield chrome


def test_the_docs_are_interactive(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/docs lists the endpoints and can send requests, and the browser's console has no errors."""
    service = serve()
    browser.get(f"{service.url}/docs")
    wait = WebDriverWait(browser, WAIT_SECONDS)
    wait.until(presence_of_element_located((By.ID, "operations-clients-getClient")))
    assert len(browser.find_elements(By.CLASS_NAME, "opblock")) == 6
    assert browser.find_elements(By.CLASS_NAME, "authorize") == []

    assert "Andres" in get_client_1(browser)
    assert console_errors(browser) == []


def test_the_docs_add_a_client(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/docs sends the example as a body, and leaves the same fields of the query empty."""
    browser.get(f"{serve().url}/docs")

    assert '"id": 5' in execute(browser, "addClient")


def get_client_1(browser: Chrome) -> str:
    """Gets the first client from /docs."""
    return execute(browser, "getClient")


def execute(browser: Chrome, operation: str) -> str:
    """Sends a request from /docs with its examples, and returns the response as the page shows it."""
    wait = WebDriverWait(browser, WAIT_SECONDS)
    control = (By.CSS_SELECTOR, f"#operations-clients-{operation} .opblock-summary-control")
    wait.until(presence_of_element_located(control)).click()
    execute = (By.CSS_SELECTOR, f"#operations-clients-{operation} .execute")
    wait.until(presence_of_element_located(execute)).click()
    response = (By.CSS_SELECTOR, ".live-responses-table .highlight-code")
    return wait.until(presence_of_element_located(response)).text


def test_the_docs_accept_a_key(browser: Chrome, serve: Callable[..., Service]) -> None:
    """Where the API requires a key, users can enter theirs in /docs, and its requests succeed."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    browser.get(f"{service.url}/docs")
    wait = WebDriverWait(browser, WAIT_SECONDS)
    wait.until(presence_of_element_located((By.CSS_SELECTOR, "button.authorize"))).click()
    wait.until(presence_of_element_located((By.CSS_SELECTOR, ".auth-container input"))).send_keys("the key\n")
    wait.until(presence_of_element_located((By.CSS_SELECTOR, ".btn-done"))).click()

    assert "Andres" in get_client_1(browser)
    assert console_errors(browser) == []


def test_the_links_of_the_home_page_work(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/ has a title and links, and none of the links leads to an error."""
    service = serve()
    browser.get(service.url)
    links = [link.get_attribute("href") or "" for link in browser.find_elements(By.TAG_NAME, "a")]

    assert "Clients API" in browser.title
    assert {link.removeprefix(service.url) for link in links} >= {"/docs", "/openapi.json", "/healthz", "/readyz"}
    assert console_errors(browser) == []
    for link in links:
        browser.get(link)
        assert "problem+json" not in str(browser.execute_script("return document.contentType"))


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js", "/docs/style.css", "/docs/swagger-ui-bundle.js"])
async def test_pages_load_nothing_from_other_hosts(api: Client, path: str) -> None:
    """The service itself serves every page and asset, and lets the browser load nothing from any other host."""
    response = await api.get(path)

    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "https://" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js"])
async def test_pages_restrict_scripts_frames_and_referrers(api: Client, path: str) -> None:
    """The browser runs no inline scripts or styles, lets no site frame the page, and sends no Referer header."""
    response = await api.get(path)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))

    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_another_site_has_no_reference_to_a_page_that_it_opened(browser: Chrome, serve: Callable[..., Service]) -> None:
    """Users may type a key into /docs, so a site of another origin that opened it sees the window as closed."""
    service = serve()
    browser.get(service.url.replace("127.0.0.1", "localhost") + "/version")  # another origin, with no policy of its own
    browser.execute_script(f"window.opened = [open('{service.url}/docs'), open('{service.url}/version')]")
    wait = WebDriverWait(browser, WAIT_SECONDS)

    assert wait.until(lambda chrome: chrome.execute_script("return opened[0].closed"))
    assert browser.execute_script("return opened[1].closed") is False


@pytest.mark.parametrize(
    ("trusted", "hsts_by_proto"),
    [
        ("127.0.0.1", {"https": "max-age=31536000", "http": None, None: None}),
        ("10.0.0.0/8", {"https": None}),  # this client is not a trusted proxy, and could send any header
    ],
)
def test_pages_over_https_have_hsts(
    serve: Callable[..., Service], trusted: str, hsts_by_proto: dict[str | None, str | None]
) -> None:
    """Where a trusted proxy reports that the request came over HTTPS, browsers use only HTTPS from then on."""
    service = serve(TRUSTED_PROXIES=trusted, DRAIN_SECONDS="0")
    for path in ("/", "/docs"):
        for proto, hsts in hsts_by_proto.items():
            request = Request(service.url + path, headers={"X-Forwarded-Proto": proto} if proto else {})
            with urlopen(request) as response:
                assert response.headers["Strict-Transport-Security"] == hsts


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2Fdocs.py", "/docs/../docs.html"])
async def test_there_are_no_other_assets(api: Client, path: str) -> None:
    """No other file is served."""
    assert (await api.get(path)).status == 404
