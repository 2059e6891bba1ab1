"""The pages, in a real browser and over HTTP."""

import html
import re
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.request import Request, urlopen

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import presence_of_element_located
from selenium.webdriver.support.wait import WebDriverWait

from svc.http.access import digest
from tests.axe import assert_accessible
from tests.browser import PHONE_WIDTH, console_errors, emulate, start_browser
from tests.conftest import Client
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

OPERATIONS = 6  # that /docs shows


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with start_browser(tmp_path_factory.mktemp("browser")) as chrome:
        yield chrome


@pytest.fixture
def browser(shared_browser: Chrome) -> Chrome:
    """A browser on a desktop, in light colours."""
    emulate(shared_browser)
    return shared_browser


def find(browser: Chrome, selector: str) -> WebElement:
    """The first such element, once the page has it."""
    return WebDriverWait(browser, PATIENCE_SECONDS).until(presence_of_element_located((By.CSS_SELECTOR, selector)))


def find_all(browser: Chrome, selector: str, count: int) -> list[WebElement]:
    """All such elements, once the page, which draws itself in steps, has so many of them."""
    wait = WebDriverWait(browser, PATIENCE_SECONDS)
    wait.until(lambda chrome: len(chrome.find_elements(By.CSS_SELECTOR, selector)) == count)
    return browser.find_elements(By.CSS_SELECTOR, selector)


def test_the_docs_are_interactive(browser: Chrome, serve: Callable[..., Service]) -> None:
    """/docs lists the endpoints and can send requests, and the browser's console has no errors."""
    service = serve()
    browser.get(f"{service.url}/docs")
    find_all(browser, ".opblock", OPERATIONS)
    assert browser.find_elements(By.CSS_SELECTOR, ".authorize, .servers") == []

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
    find(browser, f"#operations-clients-{operation} .opblock-summary-control").click()
    find(browser, f"#operations-clients-{operation} .execute").click()
    return find(browser, ".live-responses-table .highlight-code").text


def test_the_docs_accept_a_key(browser: Chrome, serve: Callable[..., Service]) -> None:
    """Where the API requires a key, users can enter theirs in /docs, and its requests succeed."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    browser.get(f"{service.url}/docs")
    find(browser, "button.authorize").click()
    find(browser, ".auth-container input").send_keys("the key\n")
    find(browser, ".btn-done").click()

    assert "Andres" in get_client_1(browser)
    assert console_errors(browser) == []


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, PHONE_WIDTH])
def test_the_pages_are_accessible(
    browser: Chrome, serve: Callable[..., Service], width: int, colors: Literal["light", "dark"]
) -> None:
    """The home page and /docs in each of its states: with its dialog, an answer, and everything open."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    emulate(browser, width=width, colors=colors)
    browser.get(service.url)
    assert_accessible(browser)

    browser.get(f"{service.url}/docs")
    find(browser, "#operations-health-version")
    assert_accessible(browser)
    find(browser, "button.authorize").click()
    key = find(browser, ".auth-container input")
    assert_accessible(browser)
    key.send_keys("the key\n")
    close = find(browser, ".btn-done")
    assert_accessible(browser)
    close.click()
    for control in browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-control, .model-container button"):
        browser.execute_script("arguments[0].click()", control)
    for execute in find_all(browser, ".execute", OPERATIONS):
        browser.execute_script("arguments[0].click()", execute)
    find_all(browser, ".live-responses-table .response", OPERATIONS)
    assert_accessible(browser)


def test_the_docs_need_no_mouse(browser: Chrome, serve: Callable[..., Service]) -> None:
    """With the keyboard alone: enter a key, open an operation, and send a request."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    browser.get(f"{service.url}/docs")
    find(browser, "#operations-clients-getClient")
    tab_to(browser, "button.authorize").send_keys(Keys.ENTER)
    find(browser, ".auth-container input")
    tab_to(browser, ".auth-container input").send_keys("the key", Keys.ENTER)
    find(browser, ".auth-container .btn-done")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    find_all(browser, ".auth-container", 0)
    tab_to(browser, "#operations-clients-getClient .opblock-summary-control").send_keys(Keys.ENTER)
    find(browser, "#operations-clients-getClient .execute")
    tab_to(browser, "#operations-clients-getClient .execute").send_keys(Keys.ENTER)

    assert "Andres" in find(browser, ".live-responses-table .highlight-code").text
    assert console_errors(browser) == []


def tab_to(browser: Chrome, selector: str) -> WebElement:
    """Presses Tab until such an element has the focus."""
    for _ in range(100):
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return browser.switch_to.active_element
        ActionChains(browser).send_keys(Keys.TAB).perform()
    raise AssertionError(f"Tab does not lead to {selector}")


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_the_dialog_of_the_docs_leaves_the_page_where_it_is(
    browser: Chrome, serve: Callable[..., Service], colors: Literal["light", "dark"]
) -> None:
    """On a phone, it opens in view, keeps the focus, and gives it back to the button that opened it."""
    service = serve(API_KEY_HASHES=digest("the key").hex())
    emulate(browser, width=PHONE_WIDTH, colors=colors)
    browser.get(f"{service.url}/docs")
    opener = find(browser, "#operations-clients-getClient .authorization__btn")
    browser.execute_script("arguments[0].scrollIntoView()", opener)
    before = browser.execute_script("return scrollY")
    opener.click()
    dialog = find(browser, "[role=dialog]")
    top, bottom, height = browser.execute_script(
        "const {top, bottom} = arguments[0].getBoundingClientRect(); return [top, bottom, innerHeight]", dialog
    )
    for _ in range(10):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        assert browser.execute_script("return arguments[0].contains(document.activeElement)", dialog)
    during = browser.execute_script("return scrollY")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    WebDriverWait(browser, PATIENCE_SECONDS).until(lambda chrome: chrome.switch_to.active_element == opener)

    assert 0 < before == during == browser.execute_script("return scrollY")
    assert 0 <= top < bottom <= height


async def test_the_examples_of_the_home_page_are_responses(api: Client) -> None:
    """Each is a request, and below it what the service answers."""
    page = await (await api.get("/")).text()
    examples = re.findall(r"<pre><b>(\w+) (.+)</b>\n(.+)</pre>", html.unescape(page))
    responses = [await (await api.request(method, path)).text() for method, path, _ in examples]

    assert [f"{shown}\n" for *_, shown in examples] == responses
    assert len(examples) == page.count("<pre>") > 0


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


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.css", "/docs/docs.js", "/docs/swagger-ui-bundle.js"])
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
    wait = WebDriverWait(browser, PATIENCE_SECONDS)

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
