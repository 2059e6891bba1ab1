"""What README says is what happens, and what SECURITY.md points to is there."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from aiohttp import ClientSession

from ops.common.process import ROOT, Service
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings
from svc.telemetry.settings import TelemetrySettings
from tests.svc.logs import lines

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_curl_lines_print_what_readme_says(short_folder: Path) -> None:
    """Each curl line, on a fresh database, prints the line below it."""
    block = next(block for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "$ curl" in block)
    commands = block.splitlines()
    service = Service({"LOCAL_FOLDER": str(short_folder)})
    try:
        service.wait_until_listening()
        for command, expected in zip(commands[::2], commands[1::2], strict=True):
            words = shlex.split(command.removeprefix("$ ").replace("http://127.0.0.1:8080", service.url))
            printed = subprocess.run([*words, "--silent"], capture_output=True, text=True, check=True).stdout

            assert printed == expected
    finally:
        service.end()


def test_every_setting_is_in_the_table() -> None:
    """The settings table has each variable with its default."""
    plain = [f for f in fields(Settings) if f.name not in ("server", "telemetry", "database")]
    defaults = {f.name.upper(): f.default for f in (*plain, *fields(ServerSettings))}
    defaults |= {"TELEMETRY": TelemetrySettings.is_on, "METRICS_INTERVAL": TelemetrySettings.metrics_interval}
    database = [f for f in fields(DatabaseSettings) if f.name not in ("dsn", "max_queue")]
    defaults |= {f"DB_{f.name.upper()}": f.default for f in database}
    defaults["MAX_QUEUE"] = DatabaseSettings.max_queue
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

        assert f"| `{name}` | {shown}|" in README


async def test_the_log_line_has_the_fields_of_a_real_one(serve: Callable[..., Service]) -> None:
    """The line that is shown is of the form that the service writes, and the budget that is named is the budget."""
    (shown,) = re.findall(r"```json\n(.*?)\n```", README, re.DOTALL)
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0")
    async with ClientSession() as session, session.get(f"{service.url}/get/1") as answer:
        assert answer.status == 200
    service.stop()
    (line,) = lines.requests(service.output)

    assert list(json.loads(shown)) == list(line)
    assert f"at most {names.MAX_SERIES} metrics" in " ".join(README.split())


def quoted(text: str) -> set[str]:
    """What stands in backticks, but for blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def test_security_names_what_is_there() -> None:
    """Each file, setting and make target that it says something of; a claim about what is gone is no claim."""
    names = quoted(SECURITY)
    files = {name for name in names if re.match(r"\.?\w+/", name) or name == "Dockerfile"}
    settings = {name for name in names if re.fullmatch("[A-Z]+(_[A-Z]+)+", name)}
    made = {name.removeprefix("make ") for name in names if name.startswith("make ")}

    assert len(files) > 30
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []
    assert [name for name in sorted(settings) if f"`{name}`" not in README] == []
    assert made == {"lint", "audit", "workflows", "infra", "run"}
    assert made <= TARGETS


@pytest.mark.parametrize("document", ["README.md", "SECURITY.md", "docs/deploying.md", "docs/performance.md"])
def test_links_lead_somewhere(document: str) -> None:
    """Each link to a file or to a heading of one."""
    file = ROOT / document
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", file.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (file.parent / path) if path else file
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link
