"""Counts the instructions of process trees with perf, where the machine lets it."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

_EVENT: Final = "instructions:u"  # in user mode; to count those of the kernel needs more rights


def unavailable() -> str:
    """Why instructions cannot be counted here; empty if they can."""
    perf = shutil.which("perf")
    if perf is None:
        return "perf is missing"
    command = [perf, "stat", "-x,", "-e", _EVENT, "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if _parsed(done.stderr) is not None else f"perf does not count {_EVENT} on this machine"


def counting(root: int, output: Path) -> Sequence[str]:
    """What to put before a command, so that perf counts a tree's instructions while that command runs.

    perf attaches to all threads of the tree before the command starts, and also counts threads and processes that they
    start meanwhile. It is not attached to the command.

    Args:
        root: the first process of the tree.
        output: the file for count().
    """
    process = psutil.Process(root)
    pids = ",".join(str(each.pid) for each in (process, *process.children(recursive=True)))
    return ["perf", "stat", "-x,", "-e", _EVENT, "-p", pids, "-o", str(output), "--"]


def count(output: Path) -> int | None:
    """The instructions that perf counted; None if it was not able to."""
    return _parsed(output.read_text())


def _parsed(text: str) -> int | None:
    """From lines such as `12345,,instructions:u,…`, or `<not supported>,,instructions:u,…`."""
    for line in text.splitlines():
        value, _, rest = line.partition(",")
        if _EVENT in rest and value.isdigit():
            return int(value)
    return None
