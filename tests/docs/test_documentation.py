"""The documentation states what happens: its commands run, its tables are complete, its links lead somewhere."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from urllib.request import urlopen

import pytest
from aiohttp import ClientSession

from ops.common.ports import free_port
from ops.common.process import ROOT
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings
from svc.telemetry.settings import TelemetrySettings
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines

DOCUMENTS = sorted(str(file.relative_to(ROOT)) for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
TEXTS = {document: (ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS}
README, SPANISH, SECURITY = TEXTS["README.md"], TEXTS["README.es.md"], TEXTS["SECURITY.md"]
ARCHITECTURE, OBSERVABILITY = TEXTS["docs/architecture.md"], TEXTS["docs/observability.md"]
CONFIGURATION = TEXTS["docs/configuration.md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ROOMS = [folder for folder in (ROOT / "svc").iterdir() if folder.is_dir() and folder.name[0] != "_"]
# As in a new shell: the make that runs the tests would pass its own options on.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def console_lines(text: str) -> list[str]:
    """The lines of all console blocks."""
    return "".join(re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).splitlines()


def make(target: str) -> list[str]:
    return ["make", f"VENV={sys.prefix}", target]


@contextmanager
def making(target: str, output: Path, **environment: str) -> Iterator[Callable[[str], str]]:
    """Runs a make target meanwhile, and yields a function that waits for a pattern in its output."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            make(target),
            cwd=ROOT,
            env={**ENVIRONMENT, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    def wait_for(pattern: str) -> str:
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(pattern, output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.05)
        return found[1]

    try:
        yield wait_for
        # As a terminal's Ctrl-C: to make and to all that it started.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_every_command_of_readme_runs(short_folder: Path) -> None:
    """`make run` serves, each curl command prints the line below it, `make oncall` serves, `make test` tests."""
    shown = console_lines(README)
    commands = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    curls = [command for command in commands if command.startswith("curl")]
    expected = [shown[shown.index(f"$ {curl}") + 1] + "\n" for curl in curls]
    printed = []
    with making("run", short_folder / "run.log", PORT="0", LOCAL_FOLDER=str(short_folder)) as run:
        url = run(r"API   (http://\S+:\d+)/")
        for command in curls:
            words = shlex.split(command.replace("http://127.0.0.1:8080", url))
            done = subprocess.run([*words, "--silent"], capture_output=True, text=True, check=True)
            printed.append(done.stdout)
        page = f"--follow {short_folder / 'recording.jsonl'} --port {free_port()}"
        with (
            making("oncall", short_folder / "oncall.log", ARGS=page) as oncall,
            urlopen(oncall(r"(http://127\.0\.0\.1:\d+)")) as response,
        ):
            served = response.read().decode()
    some = [*make("test"), "ARGS=-n0 tests/svc/clients/test_model.py -k limit"]
    tests = subprocess.run(some, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert [command for command in commands if command not in curls] == ["make run", "make test", "make oncall"]
    assert printed == expected
    assert "<html" in served
    assert " passed" in tests.stdout


def structure(text: str) -> dict[str, object]:
    """What a page has in every language: levels of headings, commands, links, pictures, code in backticks, rows."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "commands": console_lines(text),
        "links": [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")],
        "pictures": re.findall(r'src(?:set)?="([^"]+)"', text),
        "code": sorted(re.findall(r"`([^`\n]+)`", prose)),
        "rows": len(re.findall(r"^\|", prose, re.MULTILINE)),
    }


def test_the_spanish_readme_says_the_same() -> None:
    """Both have the same headings, commands, links, pictures and code."""
    assert structure(SPANISH) == structure(README)


@pytest.mark.parametrize("readme", [README, SPANISH], ids=["en", "es"])
def test_readme_is_short(readme: str) -> None:
    """A newcomer reads it in one go: at most 150 lines."""
    assert len(readme.splitlines()) <= 150


def test_every_setting_is_in_the_table() -> None:
    """The table of settings has each variable with its default."""
    plain = [f for f in fields(Settings) if f.name not in ("server", "telemetry", "database")]
    defaults = {f.name.upper(): f.default for f in (*plain, *fields(ServerSettings))}
    defaults |= {"TELEMETRY": TelemetrySettings.is_on, "METRICS_INTERVAL": TelemetrySettings.metrics_interval}
    database = [f for f in fields(DatabaseSettings) if f.name != "dsn"]
    defaults |= {f"DB_{f.name.upper()}": f.default for f in database}
    for name, default in defaults.items():
        match default:
            case True:
                shown = "`on` "
            case () | "":
                shown = ""
            case float():
                shown = f"`{default:g}` "
            case _:
                shown = f"`{default}` "

        assert f"| `{name}` | {shown}|" in CONFIGURATION


@pytest.mark.slow
async def test_the_log_line_has_the_fields_of_a_real_one(serve: Callable[..., Service]) -> None:
    """The line that is shown has the fields that the service writes, and the number of metrics is its maximum."""
    (shown,) = re.findall(r"```json\n(.*?)\n```", OBSERVABILITY, re.DOTALL)
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as response:
        assert response.status == 200
    service.stop()
    (line,) = lines.requests(service.output)

    assert list(json.loads(shown)) == list(line)
    assert f"at most {names.MAX_SERIES} metrics" in " ".join(OBSERVABILITY.split())


def quoted(text: str) -> set[str]:
    """The code in backticks, without that of blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def test_security_names_what_exists() -> None:
    """Each file, setting and make target that SECURITY.md names exists."""
    names = quoted(SECURITY)
    files = {name for name in names if re.match(r"\.?\w+/", name) or name == "Dockerfile"}
    settings = {name for name in names if re.fullmatch("[A-Z]+(_[A-Z]+)+", name)}

    assert len(files) > 30
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []
    assert [name for name in sorted(settings) if f"`{name}`" not in CONFIGURATION] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_targets_exist(document: str) -> None:
    """Each file and make target that a document names exists."""
    absent = []
    for name in quoted(TEXTS[document]):
        if target := re.fullmatch(r"make ([a-z-]+)\b.*", name):
            absent += [] if target[1] in TARGETS else [name]
        elif re.fullmatch(r"(svc|sql|ops|terraform|k8s|tests|docs|\.ci|\.github)/[\w./-]+", name):
            is_made_later = name.endswith(".tfstate") or "NAME" in name
            absent += [] if is_made_later or (ROOT / name).exists() else [name]

    assert absent == []


def test_the_rooms_are_the_folders() -> None:
    """docs/architecture.md names each room of svc and of ops, in its drawing and its tables, and no other."""
    for package, heading in (("svc", "## The rooms of the service"), ("ops", "## The rooms of ops")):
        section = ARCHITECTURE.partition(f"{heading}\n")[2].partition("\n## ")[0]
        named = "".join(re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE))
        rooms = {folder.name for folder in (ROOT / package).iterdir() if folder.is_dir() and folder.name[0] != "_"}

        assert set(re.findall(r"`([\w-]+)/`", named)) == rooms
    assert set(re.findall(r"<b>(\w+)/</b>", ARCHITECTURE)) == {room.name for room in ROOMS}
    outside = {file.stem for file in (ROOT / "svc").glob("*.py")}
    assert outside == {"__init__", "__main__", "app", "settings", "errors", "answers"}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_modules_of_a_room_are_in_its_row(room: Path) -> None:
    """docs/architecture.md names each module of the service in the row of its room."""
    (row,) = re.findall(rf"^\| `{room.name}/` \| (.*?) \|", ARCHITECTURE, re.MULTILINE)

    assert {file.stem for file in room.glob("*.py")} - {"__init__"} <= set(re.findall(r"`(\w+)`", row))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Each link leads to a file that exists, or to a heading of one."""
    file = ROOT / document
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[document]):
        path, _, anchor = link.partition("#")
        target = (file.parent / path) if path else file
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link
