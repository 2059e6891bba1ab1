"""What a test does on the page: looks for an element, waits, presses keys."""

from collections.abc import Callable
from typing import Any, Final

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.patience import PATIENCE_SECONDS

FIND: Final = """
const [selector, text] = arguments;
const shows = (element) => element.checkVisibility() && (element.innerText ?? element.textContent).includes(text);
return [...document.querySelectorAll(selector)].find(shows) ?? null;
"""


def find(browser: Chrome, selector: str, text: str = "") -> WebElement:
    """Waits for a visible element with a text, and returns the first one."""
    found = wait_until(
        browser, lambda: browser.execute_script(FIND, selector, text), f"no {selector} with the text {text!r}"
    )
    assert isinstance(found, WebElement)
    return found


def click(browser: Chrome, selector: str, text: str = "") -> None:
    """Clicks the first such element, found once more where the page has just drawn it anew."""

    def clicked() -> bool:
        browser.execute_script(FIND, selector, text).click()
        return True

    wait_until(browser, clicked, f"no {selector} with the text {text!r} can be clicked")


def text_of(browser: Chrome, selector: str, text: str = "") -> str:
    """The text of the first such element, found once more where the page has just drawn it anew."""
    found = wait_until(
        browser, lambda: [browser.execute_script(FIND, selector, text).text], f"no {selector} with the text {text!r}"
    )
    return str(found[0])


def wait_until(browser: Chrome, condition: Callable[[], Any], message: str = "") -> Any:
    """Waits until a condition is true, and returns its value."""
    wait = WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.05, ignored_exceptions=[Exception])
    return wait.until(lambda _: condition(), message)


def refresh(browser: Chrome) -> None:
    """Makes the page request its data now, as when the user returns to its tab."""
    browser.execute_script("dispatchEvent(new Event('visibilitychange'))")


def press(browser: Chrome, *keys: str) -> None:
    """Presses keys one after the other."""
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: Chrome) -> str:
    """The label, the text or the id of the element with the focus."""
    element = browser.switch_to.active_element
    return str(element.get_attribute("aria-label") or element.text or element.get_attribute("id"))
