"""The Node.js packages that tests use; `make test` installs those of package.json."""

from pathlib import Path

from ops.common.process import ROOT
from tests.missing import missing


def node_packages() -> Path:
    """The folder of the installed packages."""
    folder = ROOT / ".venv/node"
    if not (folder / "installed").exists():
        missing("Node.js packages are missing (on Debian: apt install nodejs npm; then make .venv/node/installed)")
    return folder / "node_modules"
