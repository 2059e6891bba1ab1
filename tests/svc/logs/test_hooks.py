"""Errors that no code caught are lines of the log, also before logging is set up."""

import os
import subprocess
import sys
from typing import Final

import pytest

from ops.common.process import ROOT
from svc.logs import names
from tests.patience import PATIENCE_SECONDS
from tests.svc.logs import lines
from tests.svc.logs.lines import Record

pytestmark = pytest.mark.slow

CONFIGURED: Final = (
    "import sys; from svc.logs import hooks, setup; from svc.logs.writer import LineWriter\n"
    "setup.configure(LineWriter(1), readable=False); hooks.install()\n"
)
UNCONFIGURED: Final = "from svc.logs import hooks; hooks.install()\n"
SETUPS: Final = pytest.mark.parametrize("setup", [CONFIGURED, UNCONFIGURED], ids=["configured", "not configured"])


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with its output in pipes."""
    environment = {name: value for name, value in os.environ.items() if name != "LOG_FORMAT"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def only_line(done: subprocess.CompletedProcess[str]) -> Record:
    """The one line that a process wrote, and nothing on stderr."""
    (line,) = lines.records(done.stdout)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert line.keys() <= names.FIELDS.keys()
    assert (line["event"], line["level"]) == (names.UNCAUGHT_ERROR, "error")
    return line


@SETUPS
def test_an_error_that_ends_the_process_is_a_line(setup: str) -> None:
    """With its traceback in the line, and Python's own status."""
    done = run(f"{setup}int('no number')")
    line = only_line(done)

    assert done.returncode == 1
    assert (line["error"], line["detail"]) == ("ValueError", "the process exits")
    assert "Traceback" in line["exception"]
    assert "invalid literal" in line["exception"]


@SETUPS
def test_an_error_that_ends_a_thread_is_a_line(setup: str) -> None:
    """The process goes on."""
    done = run(f"{setup}import threading\nthreading.Thread(target=int, args=('no number',), name='counting').start()")
    line = only_line(done)

    assert done.returncode == 0
    assert (line["error"], line["detail"]) == ("ValueError", "the thread counting ended")
    assert "invalid literal" in line["exception"]


def test_a_thread_that_exits_is_no_error() -> None:
    """SystemExit ends a thread as its code asked for."""
    done = run(f"{CONFIGURED}import threading\nthreading.Thread(target=sys.exit).start()")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@SETUPS
def test_an_error_that_python_ignores_is_a_line(setup: str) -> None:
    """Such as one of a destructor, even where the object cannot be shown."""
    code = "class Odd:\n    def __del__(self): int('no number')\n    def __repr__(self): raise RuntimeError\nOdd()\n"
    line = only_line(run(f"{setup}{code}"))

    assert line["error"] == "ValueError"
    assert line["detail"].startswith("Exception ignored in: <function Odd.__del__")
    assert "invalid literal" in line["exception"]


def test_an_error_of_a_callback_of_the_event_loop_is_a_line() -> None:
    """The event loop logs it, as a library does."""
    code = (
        f"{CONFIGURED}import asyncio\nfrom svc.process.server import new_event_loop\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(int, 'no number'); await asyncio.sleep(0.01)\n"
        "with asyncio.Runner(loop_factory=new_event_loop) as runner: runner.run(main())\n"
    )
    done = run(code)
    (line,) = lines.records(done.stdout)

    assert done.stderr == ""
    assert (line["event"], line["logger"], line["level"]) == (names.LIBRARY, "asyncio", "error")
    assert "invalid literal" in line["exception"]


def test_people_get_the_report_of_python() -> None:
    """On stderr, as of any program."""
    done = run(f"{UNCONFIGURED}int('no number')", LOG_FORMAT="text")

    assert done.stdout == ""
    assert done.stderr.startswith("Traceback")


def test_a_service_that_cannot_start_says_so_in_a_line() -> None:
    """The reason is on stderr for people, and in the log for queries."""
    done = run("import sys; from svc.__main__ import main; sys.argv[1:] = ['serve']; sys.exit(main())", PORT="none")
    (line,) = lines.records(done.stdout)

    assert done.returncode == 1
    assert (line["event"], line["level"], line["error"]) == (names.START_FAILED, "error", "InvalidSetting")
    assert done.stderr == f"error: {line['detail']}\n"
    assert (
        run(
            "import sys; from svc.__main__ import main; sys.argv[1:] = ['serve']; sys.exit(main())",
            PORT="none",
            LOG_FORMAT="text",
        ).stdout
        == ""
    )


def test_what_a_destructor_logs_while_a_line_is_queued_is_written() -> None:
    """Python runs destructors and handlers of signals between any two steps, also in the writer's own methods."""
    code = (
        "import sys; from svc.logs import writer\n"
        "output, interrupted = writer.LineWriter(1), 0\n"
        "def between_steps(frame, event, _):\n"
        "    global interrupted\n"
        "    if frame.f_code.co_filename == writer.__file__:\n"
        "        frame.f_trace_opcodes = True\n"
        "        if event == 'opcode': interrupted += 1; output.write(b'destructor\\n')\n"
        "        return between_steps\n"
        "with output.threaded():\n"
        "    sys.settrace(between_steps)\n"
        "    for _ in range(100): output.write(b'line\\n')\n"
        "    sys.settrace(None)\n"
        "print(interrupted, file=sys.stderr)\n"
    )
    done = run(code)

    assert int(done.stderr) > 100
    assert done.stdout.count("destructor\n") == int(done.stderr)
    assert done.stdout.count("line\n") == 100
