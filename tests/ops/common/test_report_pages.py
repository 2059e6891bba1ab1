"""The pages of load tests, benchmark, drills and rehearsals in a real browser."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from ops.bench import report as bench
from ops.bench import results
from ops.common.process import ROOT
from ops.drills.claim import Claim
from ops.drills.ledger import Audit
from ops.drills.report import Report as Drills
from ops.drills.run import Run
from ops.drills.timeline import Request, Timeline
from ops.load import measurements, verdict
from ops.load import report as load
from ops.load.measurements import Measurements, Second
from ops.rehearsal.__main__ import Report as Rehearsal
from ops.rehearsal.steps import history
from ops.rehearsal.traffic import Traffic
from tests.axe import assert_accessible
from tests.browser import PHONE_WIDTH, console_errors, emulate, start_browser
from tests.patience import PATIENCE_SECONDS

_SECONDS: Final = 20
_BROKEN_IMAGES: Final = "return [...document.images].filter((image) => !(image.complete && image.naturalWidth)).length"


def load_page(folder: Path, *, late_ms: float = 0.1, failed: int = 0, latency_ms: float = 5) -> Path:
    """The page of a load test with 100 gets and 5 adds a second."""
    parameters = {"id": "20261130-120000-abcdef", "scenario": "mixed", "means": "90 % get, 9 % add", "rate": 100.0}
    run = Measurements({**parameters, "duration": _SECONDS, "host": "http://127.0.0.1:8080", "unfinished": 0})
    for second in range(_SECONDS):
        slow = latency_ms * (2 + math.sin(second))
        latency = {
            "get": Counter({measurements.bucket(slow): 100 - failed}),
            "add": Counter({measurements.bucket(2 * slow): 5}),
        }
        failures = {"get": Counter({"status 503": failed})} if failed else {}
        run.seconds.append(Second(latency, failures, Counter({measurements.bucket(late_ms): 105}), cpu=0.3))
    load.write(run, verdict.evaluate(run), folder / "report.html")
    return folder / "report.html"


def bench_page(folder: Path, *, rounds: int = results.FULL_ROUNDS) -> Path:
    """The page of the published results, or of their first rounds."""
    recorded = results.load(ROOT / "docs/performance/results.json")
    parts = {
        name: [turn for turn in getattr(recorded, name) if turn.round <= rounds]
        for name in ("comparison", "anatomy", "scaling")
    }
    bench.write(results.Results(recorded.machine, **parts), folder / "report.html")
    return folder / "report.html"


def drills_page(folder: Path) -> Path:
    """The page of a drill that passed, one that failed, one that an exception ended, and one that was skipped."""
    outcomes = ["200", "503", "ServerDisconnectedError"]
    timeline = Timeline([Request(n / 10, 0.02 + n % 7 / 20, outcomes[n // 40 % 3]) for n in range(200)])
    timeline.marks = [(4.0, "PostgreSQL is killed"), (8.0, "PostgreSQL accepts connections"), (8.1, "again")]
    audit = Audit(acknowledged=80, unacknowledged=3, lost=["caller 1, add 2"])
    met, missed = Claim("served again after", 0.2, at_most=1, unit="s"), Claim("lost adds", 1, at_most=0)
    runs = [
        Run("database-killed", "the database is killed", "", "", 20, Audit(80, 3), timeline, [met]),
        Run("disk-full", "the disk is full", "", "", 20, audit, timeline, [met, missed]),
        Run("worker-killed", "a worker is killed", error=f"Traceback\n{'x' * 300}\nRuntimeError: a port is taken\n"),
        Run("clock-jumps", "the clock jumps", missing="faketime is missing; on Debian: apt install faketime"),
    ]
    options = {"mode": "quick", "drills": len(runs)}
    return Drills(options, {"system": "Linux"}, [run.summary() for run in runs]).draw(folder)


def rehearsal_page(folder: Path) -> Path:
    """The page of a rehearsal with its real steps, of which the last one failed."""
    report = Rehearsal(folder / "report.json")
    steps = [step for stage in history(Path("ca"), "127.0.0.1:443") for sequence in stage for step in sequence]
    for number, step in enumerate(steps):
        row = {"name": step.name, "kind": step.kind, "started": 9.0 * number, "seconds": 5.0 + number % 20}
        report.steps.append({**row, "worked": number < len(steps) - 1})
    report.add_traffic(Traffic(requests=4321, builds=Counter({"0.1.0": 1234, "0.2.0": 4})))
    report.worked = False
    report.draw()
    return folder / "report.html"


PAGES: Final[dict[str, tuple[Callable[[Path], Path], str, str]]] = {
    "load, met": (
        load_page,
        "met",
        "All objectives with enough samples are met; 1 of 5 have too few.",
    ),
    "load, missed": (
        lambda folder: load_page(folder, failed=3),
        "missed",
        "The service misses 1 of 5 objectives: availability.",
    ),
    "load, late": (
        lambda folder: load_page(folder, late_ms=50, latency_ms=100),
        "unknown",
        "No verdict on the service: the load generator could not keep up.",
    ),
    "bench": (bench_page, "met", "goals are met."),
    "bench, quick": (
        lambda folder: bench_page(folder, rounds=3),
        "unknown",
        "Rough figures, from a few short turns: ",
    ),
    "drills": (
        drills_page,
        "missed",
        "2 of 3 drills failed: disk-full, worker-killed. Skipped, because this machine cannot run them: 1 drill.",
    ),
    "rehearsal": (rehearsal_page, "missed", ""),
}


@pytest.fixture(scope="module", name="chrome")
def launch_chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests."""
    with start_browser(tmp_path_factory.mktemp("profile")) as chrome:
        chrome.set_script_timeout(PATIENCE_SECONDS)
        yield chrome


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """The URL of each page, and the kind and the text of its headline."""
    make, kind, sentence = PAGES[request.param]
    return make(tmp_path_factory.mktemp("page")).as_uri(), kind, sentence


@pytest.mark.parametrize("width", [1280, PHONE_WIDTH])
@pytest.mark.parametrize("colors", ["light", "dark"])
def test_a_report_page_is_accessible_and_fits(
    chrome: Chrome, page: tuple[str, str, str], colors: Literal["light", "dark"], width: int
) -> None:
    """In both themes, on a screen and on a phone: axe-core finds nothing, and only tables scroll to the side."""
    url, kind, sentence = page
    emulate(chrome, width=width, colors=colors)
    chrome.get(url)
    for details in chrome.find_elements(By.TAG_NAME, "details"):
        chrome.execute_script("arguments[0].open = true", details)

    assert_accessible(chrome)
    assert chrome.execute_script(_BROKEN_IMAGES) == 0
    assert console_errors(chrome) == []
    headline = chrome.find_element(By.CSS_SELECTOR, "h1 + .verdict")
    assert headline.get_attribute("class") == f"verdict {kind}"
    assert sentence in headline.text


def test_a_report_page_is_usable_by_keyboard(chrome: Chrome, page: tuple[str, str, str]) -> None:
    """Tab reaches each table and each summary. A table scrolls with the arrow keys, Enter opens and closes details."""
    emulate(chrome, width=PHONE_WIDTH)
    chrome.get(page[0])
    waiting = WebDriverWait(chrome, PATIENCE_SECONDS)

    def press(*keys: str) -> None:
        ActionChains(chrome).send_keys(*keys).perform()

    def toggle(summary: WebElement) -> None:
        def is_open() -> bool:
            return bool(chrome.execute_script("return arguments[0].parentElement.open", summary))

        before = is_open()
        press(Keys.ENTER)
        waiting.until(lambda _: is_open() != before)

    def scroll(region: WebElement) -> None:
        press(Keys.ARROW_RIGHT)
        waiting.until(lambda _: chrome.execute_script("return arguments[0].scrollLeft > 0", region))

    reached: set[str] = set()
    wanted = {each.id for each in chrome.find_elements(By.CSS_SELECTOR, ".scroll, summary") if each.is_displayed()}
    while not wanted <= reached:
        press(Keys.TAB)
        element = chrome.switch_to.active_element
        assert element.tag_name != "body", "Tab left the page before it reached everything"
        reached.add(element.id)
        if element.tag_name == "summary":
            toggle(element)
            toggle(element)
        elif chrome.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", element):
            scroll(element)
