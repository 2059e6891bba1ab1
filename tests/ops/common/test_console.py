"""The console writes plain text where its output is no terminal."""

import subprocess
import sys

from ops.common.process import ROOT

_PROGRAM = """
from ops.common import console

console.err.print("[1/2] started")
with console.progress() as progress:
    progress.advance(progress.add_task("work", total=1))
rows = [("a", "1", "x" * 300), ("bb", "22", "")]
console.out.print(console.table("Title", ["name", console.right("figure"), ""], rows))
"""


def test_a_log_gets_plain_lines() -> None:
    """Lines are neither coloured nor wrapped, columns are aligned, and there is no progress bar."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stderr == "[1/2] started\n"
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "Title",
        "name  figure",
        "a          1  " + "x" * 300,
        "bb        22",
    ]
