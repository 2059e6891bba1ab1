"""Accessibility of a page: the rules of axe-core, and the width of a phone.

https://github.com/dequelabs/axe-core/blob/develop/doc/API.md
"""

import json
from typing import Any, Final

from selenium.webdriver import Chrome

from tests.node import node_packages

_RUN: Final = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  ({violations}) => done(violations.map(({id, help, nodes}) => [id, help, nodes.map((node) => node.html)])),
  (error) => done(String(error)));
"""
_OVERFLOW: Final = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def assert_accessible(browser: Chrome) -> None:
    """Checks that the page, as it is now, breaks no rule of axe-core, and does not scroll to the side."""
    source = (node_packages() / "axe-core/axe.min.js").read_text(encoding="utf-8")
    # Evaluated by the debugger, because the page's own policy forbids other scripts.
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": source})
    violations: Any = browser.execute_async_script(_RUN)
    assert violations == [], json.dumps(violations, indent=1, ensure_ascii=False)
    assert browser.execute_script(_OVERFLOW) == 0, "the page scrolls to the side"
