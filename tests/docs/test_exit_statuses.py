"""The exit statuses in docs/README.md are those of the commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ops.common.ports import free_port
from ops.common.process import ROOT

pytestmark = pytest.mark.slow

INVALID: Final = {"PORT": "many"}
NO_TOOLS: Final = {"PATH": "/nowhere"}
RUNS: Final[list[tuple[str, list[str], dict[str, str], int]]] = [
    ("-m svc", ["key"], {}, 0),
    ("-m svc", ["migrate"], INVALID, 1),
    ("-m svc", ["unknown"], {}, 2),
    ("-m ops.oncall.recorder", [], INVALID, 1),
    ("-m ops.oncall", ["--replay", "/nowhere"], {}, 1),
    ("-m ops.oncall", ["--port", "many"], {}, 2),
    ("-m ops.load", ["mixed", "--duration", "1", "--host", "http://127.0.0.1:{port}"], {}, 2),
    ("-m ops.load", ["mixed", "--host", "http://service.example"], {}, 2),
    ("-m ops.load.compare", ["/nowhere", "/nowhere"], {}, 2),
    ("-m ops.bench", ["--unknown"], {}, 2),
    ("-m ops.cost", ["--rates", "many"], {}, 2),
    ("-m ops.drills", ["unknown"], {}, 2),
    ("-m ops.rehearsal", ["--unknown"], {}, 2),
    ("-m ops.rehearsal", ["--folder", "{folder}"], NO_TOOLS, 3),
    ("-m ops", ["smoke", "--outputs", "/nowhere"], {}, 1),
    ("-m ops", [], {}, 2),
    ("-m ops.deploy.drift", ["production", "true"], {}, 0),
    ("-m ops.deploy.drift", ["production", "false"], {}, 1),
]


def run(command: list[str], variables: dict[str, str]) -> int:
    left_out = ("MAKE", "GITHUB_", "CI")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return subprocess.run(
        command, cwd=ROOT, env={**inherited, **variables}, capture_output=True, check=False
    ).returncode


def documented() -> dict[str, dict[int, str]]:
    """What each status means, by command, from the table."""
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\| (.*) \|$", text.partition("## Exit statuses")[2], re.MULTILINE)
    return {command: dict(enumerate(map(str.strip, f"{cells} ".split("|")), 1)) for command, cells in rows}


@pytest.mark.parametrize(
    ("command", "arguments", "variables", "status"), RUNS, ids=[f"{run[0]} {' '.join(run[1])}" for run in RUNS]
)
def test_a_command_has_the_documented_exit_status(
    command: str, arguments: list[str], variables: dict[str, str], status: int, tmp_path: Path
) -> None:
    """0 is success, 2 an invalid command line, and the table has the others."""
    assert status in (0, 2) or documented()[command][status]
    values = {"folder": tmp_path, "port": free_port()}
    words = [*command.split(), *(argument.format_map(values) for argument in arguments)]
    assert run([sys.executable, *words], variables) == status


@pytest.mark.parametrize(("target", "variables"), [("run", INVALID), ("oncall", {"ARGS": "--replay /nowhere"})])
def test_make_exits_with_2_where_the_command_exits_with_1(target: str, variables: dict[str, str]) -> None:
    """As docs/README.md says, and the last line of `make help`."""
    assert run(["make", f"VENV={sys.prefix}", target], variables) == 2


def test_each_target_of_the_table_runs_its_command() -> None:
    """In the recipe of the Makefile; each command in a recipe is in the table."""
    recipes = dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    table = re.findall(r"^\| `([^`]+)` \| (`.*?`) \|", (ROOT / "docs" / "README.md").read_text(), re.MULTILINE)
    named = {(target, command) for command, targets in table for target in re.findall(r"`([a-z-]+)`", targets)}
    ran = re.compile(r"\$\(BIN\)/python (-m ops[\w.]*|\.ci/\S+)")

    assert len(named) > 10
    assert {(target, command) for target, command in named if command not in recipes[target]} == set()
    assert {command for recipe in recipes.values() for command in ran.findall(recipe)} <= documented().keys()
