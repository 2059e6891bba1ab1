"""Runs the service as a separate process."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


class Service:
    """`python -m svc serve`, or another module that listens, on a free port of 127.0.0.1.

    Args:
        environment: variables of the process; from this one it inherits only PATH and HOME.
        before: a command that starts it, such as `prlimit`, with its arguments.
        stdout: a file descriptor; by default `output` has stdout too.
        module: another module, with its arguments.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        before: Sequence[str] = (),
        stdout: int | None = None,
        module: Sequence[str] = ("svc", "serve"),
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", *module],
            cwd=ROOT,
            env={**inherited, "PORT": "0", "PYTHONWARNINGS": "error", **environment},
            stdout=self._output if stdout is None else stdout,
            stderr=self._output,
        )

    @property
    def output(self) -> str:
        """What the process has written so far."""
        # Not read(): the process shares the file's position, and would write from where read() leaves it.
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode(errors="replace")

    @cached_property  # the output grows with each request
    def port(self) -> int:
        found = re.search(r"^API   http://\S+:(\d+)/$", self.output, re.MULTILINE)
        assert found, self.output
        return int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_listening(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while "\nAPI   http" not in f"\n{self.output}":
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.02)

    def workers(self) -> list[psutil.Process]:
        """Its worker processes, where WORKERS is more than 1."""
        return psutil.Process(self.process.pid).children()

    def memory(self) -> list[int]:
        """Bytes of resident memory of each worker process."""
        return [worker.memory_info().rss for worker in self.workers()]

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Sends a signal, waits for the process to exit, and returns its exit status."""
        self.process.send_signal(how)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Ends the process and its children, and closes its output."""
        self._end_processes()
        self._output.close()

    def _end_processes(self) -> None:
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for child in children:
                    child.kill()
                self.process.kill()
                self.process.wait()
