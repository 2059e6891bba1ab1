"""`make` lists its targets and says what it installs; the packages of Debian that tests need are complete."""

import os
import pty
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from ops.common.process import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# As in a new shell: the make that runs the tests would pass its own options on.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
# Lock files whose packages are not in the environment of the tests.
ELSEWHERE = {"tools", "audit", "node"}


def test_the_list_of_targets_has_groups_and_fits_into_100_columns() -> None:
    """Each target with a description is in one group, which has a name."""
    command = ["make"]
    shown = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    first, *groups = re.split(r"^(?=[A-Z][^.]*$)", shown, flags=re.MULTILINE)
    listed = re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE)

    assert first == ""
    assert len(groups) >= 7
    assert all("\n  make " in group for group in groups)
    assert sorted(listed) == sorted(re.findall(r"^([a-z-]+):.* ## ", MAKEFILE, re.MULTILINE))
    assert max(map(len, shown.splitlines())) <= 100


def disk_megabytes(lock: Path) -> float:
    """What the packages of a lock file take, as far as this platform has them."""
    total = 0
    for name in re.findall(r"^([a-z0-9._-]+)==", lock.read_text(), re.MULTILINE):
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:  # of another platform
            continue
        paths = [Path(file.locate()) for file in files]
        total += sum(path.stat().st_size for path in paths if path.is_file())
    return total / 1e6


@pytest.mark.slow
def test_the_sizes_that_make_announces_are_those_of_the_packages() -> None:
    """Within a quarter; README names that of `make run`."""
    announced = {name: float(size) for name, size in re.findall(r"^MB_(\w+) := \d+ (\d+)$", MAKEFILE, re.MULTILINE)}
    locks = {lock.stem: lock for lock in (ROOT / "requirements").glob("*.txt")}
    measured = {name: disk_megabytes(locks[name]) for name in announced.keys() - ELSEWHERE}

    assert announced.keys() == {*locks, "node"} - {"service"}  # make installs it in no target
    assert measured == pytest.approx({name: announced[name] for name in measured}, rel=0.25)
    assert f"installs some {announced['local']:g} MB" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("has_terminal", [True, False])
def test_pip_shows_its_progress_on_a_terminal_only(has_terminal: bool, tmp_path: Path) -> None:
    """What is installed, and how much, is said on both."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "pip got: $*"\n')
    python.chmod(0o755)
    ours, theirs = pty.openpty() if has_terminal else os.pipe()
    command = ["make", f"VENV={tmp_path}", str(tmp_path / "local")]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=theirs, check=True)
    shown = os.read(ours, 2**16).decode()
    os.close(theirs)
    os.close(ours)

    assert re.search(r"^Installing the packages of requirements/local.txt: up to \d+ MB to download, \d+ MB", shown)
    assert ("--quiet" in shown) is not has_terminal


def test_the_packages_of_debian_are_complete() -> None:
    """CONTRIBUTING.md names those that .ci/run installs, and those that messages about a missing tool name."""
    lines = re.findall(r"^\$ apt install (.*)$", CONTRIBUTING, re.MULTILINE)
    named = set(" ".join(lines).split())
    installed = set(" ".join(re.findall(r"packages\+=\(([^)]*)\)", (ROOT / ".ci" / "run").read_text())).split())
    sources = [file for folder in ("tests", "ops") for file in (ROOT / folder).rglob("*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in (*sources, ROOT / ".ci" / "workflows"))
    asked = set(" ".join(re.findall(r"on Debian: apt install ([a-z0-9 -]+)", code)).split())

    assert installed - named == {"nodejs", "npm"}  # which are in the sentences below, for NodeSource has other ones
    assert named <= installed
    assert len(asked) >= 8
    assert asked <= named
