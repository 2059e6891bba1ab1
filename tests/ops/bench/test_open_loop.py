"""The open loop sends requests when they are due. No test depends on how fast anything is."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from ops.bench import contenders, open_loop

pytestmark = pytest.mark.slow

_STALL_SECONDS: Final = 1.0


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server with this handler. It closes each connection after its response."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


class Fixed(BaseHTTPRequestHandler):
    """Responds with a status to every request."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_kept_connections_carry_the_load(tmp_path: Path) -> None:
    """All requests that were due get a response; the figures are those of the whole run."""
    (floor,) = (each for each in contenders.FLOORS if each.name == "floor-uvloop")
    with contenders.started(floor, {}, tmp_path) as service:
        found = open_loop.run(service.url, "get", 10, rate=200, seconds=1)

    assert found.requests > 100  # 200 on average, with a standard deviation of 14
    assert found.errors == 0
    assert 0 < found.p50_ms <= found.p99_ms <= found.p999_ms
    assert found.cpu_share > 0


@pytest.mark.parametrize("workload", ["get", "add"])
def test_a_connection_that_the_server_closes_is_replaced(workload: str) -> None:
    """A server that closes connections after each response gets all requests, and no error is counted."""
    with served(Fixed) as url:
        found = open_loop.run(url, workload, 10, rate=50, seconds=1)

    assert found.requests > 0
    assert found.errors == 0


def test_a_response_that_is_no_success_is_an_error() -> None:
    """A status of 400 or above is counted."""
    with served(type("Failing", (Fixed,), {"status": 503})) as url:
        found = open_loop.run(url, "get", 10, rate=50, seconds=1)

    assert found.errors == found.requests > 0


def test_latency_counts_from_when_a_request_was_due() -> None:
    """While the service stalls, requests become due and wait. In a closed loop, only one per connection would."""
    stalls = [_STALL_SECONDS]
    turn = threading.Lock()

    class Stalling(Fixed):
        def do_GET(self) -> None:
            with turn:
                time.sleep(stalls.pop() if stalls else 0)
            super().do_GET()

    with served(Stalling) as url:
        found = open_loop.run(url, "get", 10, rate=100, seconds=1)

    assert found.errors == 0
    assert found.p50_ms > 250  # nearly all were due in the second in which the service stalled
    assert found.p99_ms > 750


def test_a_late_or_busy_generator_is_the_limit() -> None:
    """Then the figures describe the generator. Its own figures show it."""
    assert not open_loop.limit(late_ms=1.0, cpu_share=0.9)
    assert open_loop.limit(late_ms=1.2, cpu_share=0.1) == "1 % of the requests were sent 1.2 ms late or later"
    assert open_loop.limit(late_ms=0.1, cpu_share=0.95) == "the generator used 95 % of a core"


def test_no_other_machine_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL whose host is not a loopback address is refused before the generator is started."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("the generator was started"))

    with pytest.raises(open_loop.OpenLoopError, match="loopback"):
        open_loop.run("http://192.0.2.1:8080", "get", 1, rate=1, seconds=1)


def test_a_service_that_cannot_be_reached_is_no_result() -> None:
    """All requests are errors, and none is waited for longer than the end of the run and its timeout."""
    found = open_loop.run("http://127.0.0.1:9", "get", 1, rate=20, seconds=1)

    assert found.errors == found.requests > 0
