"""Makes the lock files in requirements/, or says where they no longer fit pyproject.toml.

    python .ci/check_locks.py [--write] [--upgrade]

service.txt is what the image runs, local.txt adds the embedded PostgreSQL, oncall.txt is for the page of make oncall,
load.txt is for load tests, dev.txt is what tests and checks need, deploy.txt is for the steps of a deployment;
audit.txt is apart, for tools that agree with none of these.
They hold hashes for every platform and Python that the project takes, and no registry's address.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# dev has all that the service needs; service and local take their versions from it, so that what is tested runs.
LOCKS = {
    "dev": ["pyproject.toml", "--extra", "local", "--group", "dev"],
    "service": ["pyproject.toml", "--constraint", "requirements/dev.txt"],
    "local": ["pyproject.toml", "--constraint", "requirements/dev.txt", "--extra", "local"],
    "oncall": ["pyproject.toml", "--constraint", "requirements/dev.txt", "--group", "oncall"],
    "load": ["pyproject.toml", "--group", "load", "--constraint", "requirements/dev.txt"],
    "deploy": ["--group", "deploy", "--constraint", "requirements/dev.txt"],
    "audit": ["--group", "audit"],
}


def compile_lock(name: str, output: Path, extra: list[str]) -> None:
    """Resolves one lock file, staying with the versions that `output` already names."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "compile", *LOCKS[name], *extra, "--output-file", output]
    # The machine's own certificates, as pip is told to use them.
    options = ["--system-certs", "--universal", "--python-version", "3.11", "--generate-hashes"]
    quiet = ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate", "--quiet"]
    subprocess.run([*command, *options, *quiet], check=True)


def main() -> int:
    """0 where the lock files fit, 1 where not."""
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
        print(f"{', '.join(stale)}: no longer what pyproject.toml asks for; run make lock")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
