"""Writes the lock files in requirements/, or checks that they match pyproject.toml.

    python .ci/check_locks.py [--write] [--upgrade]

service.txt is what the image runs, local.txt adds the embedded PostgreSQL, oncall.txt is for the page of make oncall,
load.txt is for load tests, dev.txt is for tests and checks of Python, tools.txt is for the other checks, deploy.txt is
for the steps of a deployment. audit.txt is separate, because its tools need other versions than the rest.
They have hashes for every platform and Python version that the project supports, and no address of a registry.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# dev includes all packages of the service. The other files take their versions from it, so the tested versions run.
LOCKS = {
    "dev": ["pyproject.toml", "--extra", "local", "--group", "dev"],
    "service": ["pyproject.toml", "--constraint", "requirements/dev.txt"],
    "local": ["pyproject.toml", "--constraint", "requirements/dev.txt", "--extra", "local"],
    "oncall": ["pyproject.toml", "--constraint", "requirements/dev.txt", "--group", "oncall"],
    "load": ["pyproject.toml", "--group", "load", "--constraint", "requirements/dev.txt"],
    "tools": ["--group", "tools", "--constraint", "requirements/dev.txt"],
    "deploy": ["--group", "deploy", "--constraint", "requirements/dev.txt"],
    "audit": ["--group", "audit"],
}


def compile_lock(name: str, output: Path, extra: list[str]) -> None:
    """Resolves one lock file, and keeps the versions that `output` already has."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "compile", *LOCKS[name], *extra, "--output-file", output]
    # The machine's own certificates, as pip is configured to use them.
    options = ["--system-certs", "--universal", "--python-version", "3.11", "--generate-hashes"]
    quiet = ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate", "--quiet"]
    subprocess.run([*command, *options, *quiet], check=True)


def main() -> int:
    """Returns 0 if the lock files match, 1 if not."""
    write, upgrade = "--write" in sys.argv, ["--upgrade"] if "--upgrade" in sys.argv else []
    stale = []
    for name in LOCKS:
        lock = Path("requirements", f"{name}.txt")
        if write:
            compile_lock(name, lock, upgrade)
            continue
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder, lock.name)
            shutil.copy(lock, fresh)
            compile_lock(name, fresh, [])
            if fresh.read_text() != lock.read_text():
                stale.append(str(lock))
    if stale:
        print(f"{', '.join(stale)}: does not match pyproject.toml; run make lock")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
