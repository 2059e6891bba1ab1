"""import-linter holds the layers of svc and ops, and an upward import breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.common.process import ROOT

pytestmark = pytest.mark.slow  # `make check` runs the linter itself


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    command: list[str | Path] = [program, "--config", ROOT / "pyproject.toml", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code, to be changed."""
    for package in ("svc", "ops", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("svc/http/messages.py", "svc.clients.model"),
        ("svc/postgres/batching.py", "svc.telemetry.metrics"),
        ("svc/logs/writer.py", "svc.errors"),
        ("ops/common/ports.py", "ops.load.target"),
        ("svc/clients/store.py", "ops.common.ports"),
    ],
)
def test_an_upward_import_is_refused(checkout: Path, module: str, imported: str) -> None:
    """The linter names the module and what it may not import."""
    file = checkout / module
    file.write_text(f"{file.read_text()}\nimport {imported}\n")
    done = lint(checkout)

    assert done.returncode == 1, done.stdout
    assert f"-> {imported}" in done.stdout.replace("\n", " ")


def test_the_layers_hold() -> None:
    """Each room imports only rooms below it."""
    done = lint(ROOT)

    assert done.returncode == 0, done.stdout
