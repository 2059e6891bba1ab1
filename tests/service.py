"""The service as a process of a test."""

import signal
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, Final

from ops.common import process
from tests.patience import PATIENCE_SECONDS, PATIENT_SERVICE

SHOWN_CHARACTERS: Final = 30_000  # of a log, in the report of a test that fails


class Service(process.Service):
    """The service with patient settings, whose output is in the report of a test that fails.

    Args:
        environment: variables of the process, which replace those of PATIENT_SERVICE.
        **options: of ops.common.process.Service.
    """

    def __init__(self, environment: Mapping[str, str], **options: Any) -> None:
        super().__init__({**PATIENT_SERVICE, **environment}, **options)

    def wait_until_ready(self) -> None:
        """Waits until /readyz is 200, as it stays then; before, a database that takes longer than 2 s makes it 503."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (status := self._ready_status()) != 200:
            assert time.monotonic() < end, (status, self.output)
            time.sleep(0.05)

    def _ready_status(self) -> int:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        """As of ops.common.process.Service, and patient."""
        return super().stop(how, seconds)

    def end(self) -> None:
        self._end_processes()
        show(f"Output of process {self.process.pid}", self.output)
        super().end()


def show(title: str, text: str) -> None:
    """Prints the end of a log: pytest shows it where the test fails."""
    print(f"-- {title} --\n{text[-SHOWN_CHARACTERS:]}")
