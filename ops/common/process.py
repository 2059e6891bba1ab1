"""The service as a process of its own."""

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
    """`python -m svc serve`, or what starts it, on a free port of 127.0.0.1."""

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
        """What it has said so far."""
        # Not read(): the service writes where this file stands.
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode(errors="replace")

    @cached_property  # the output grows by a line for each request
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
        """Its worker processes, where it has more than one."""
        return psutil.Process(self.process.pid).children()

    def memory(self) -> list[int]:
        """Bytes of the machine's memory that each of them has."""
        return [worker.memory_info().rss for worker in self.workers()]

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Signals it, and waits for its exit status."""
        self.process.send_signal(how)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Leaves nothing of it behind."""
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
        self._output.close()
