"""The recorder, which `make run` starts: it runs the service, records its telemetry and prints its log."""

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import orjson
import psutil
import pytest

from ops.common.process import ROOT
from ops.oncall import recorder
from ops.oncall.machine import Shipped
from ops.oncall.recorder import Recorder, Recording
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import SERVICE_ROLE, Databases
from tests.ops.cloudwatch.recording import Run
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines

pytestmark = pytest.mark.slow

MODULE: Final = ["ops.oncall.recorder"]


def environment(dsn: str, folder: Path) -> dict[str, str]:
    """Variables of the recorder: the service's database, and short intervals."""
    return {"DATABASE_URL": dsn, "LOCAL_FOLDER": str(folder), "METRICS_INTERVAL": "1", "DRAIN_SECONDS": "0"}


@pytest.fixture
def service(database_settings: DatabaseSettings, short_folder: Path) -> Iterator[Service]:
    """A service that is being recorded, on the test's database."""
    found = Service(environment(database_settings.dsn, short_folder), module=MODULE)
    try:
        found.wait_until_listening()
        yield found
    finally:
        found.end()


@dataclass(frozen=True)
class FinishedRun:
    """A run with one request that SIGTERM stopped.

    Attributes:
        request_id: of the request.
        output: of the recorder.
        lines: of the recording.
        survivors: processes that still ran after the recorder.
    """

    request_id: str
    output: str
    lines: list[str]
    survivors: list[psutil.Process]

    def documents(self) -> list[dict[str, Any]]:
        """The parsed lines."""
        return [orjson.loads(line) for line in self.lines]


@pytest.fixture(scope="module")
def finished(postgres: EmbeddedPostgres, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run for the tests that only read its results."""
    database, folder = asyncio.run(databases.new()), tmp_path_factory.mktemp("run")
    service = Service(environment(postgres.dsn(SERVICE_ROLE, database), folder), module=MODULE)
    try:
        service.wait_until_listening()
        family = psutil.Process(service.process.pid).children(recursive=True)
        request_id = request(service, "get/1")["X-Request-Id"]
        wait_until(lambda: {"spans", "figures"} <= set(map(kind, documents(folder))))
        assert service.stop() == 0
        _, survivors = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
        lines = (folder / recorder.FILE).read_text().splitlines()
        return FinishedRun(request_id, service.output, lines, survivors)
    finally:
        service.end()
        asyncio.run(databases.drop(database))


def kind(document: Mapping[str, Any]) -> str:
    """What a line of a recording has."""
    if "_aws" in document:
        return "figures" if "ClusterName" in document else "metrics"
    return "spans" if "resourceSpans" in document else "log"


def documents(folder: Path) -> list[dict[str, Any]]:
    """The parsed lines of a recording that is being written."""
    whole, _, _ = (folder / recorder.FILE).read_bytes().rpartition(b"\n")
    return [orjson.loads(line) for line in whole.splitlines()]


def request(service: Service, path: str) -> dict[str, str]:
    """Sends a request and returns the headers of the response."""
    with urlopen(f"{service.url}/{path}", timeout=PATIENCE_SECONDS) as response:
        return dict(response.headers)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_recording_has_log_lines_metrics_traces_and_figures_of_the_machine(finished: FinishedRun) -> None:
    """The log line of a request has its trace ID, and the spans of that trace are in the same file."""
    found = finished.documents()
    (line,) = [one for one in found if one.get("trace_id") == finished.request_id and "event" in one]
    spans = [
        span
        for one in found
        for resource in one.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["traceId"] == line["trace_id"]
    ]
    assert {span["name"] for span in spans} == {"GET /get/{id}", "SELECT clients"}
    (query,) = [span for span in spans if span["name"] == "SELECT clients"]
    assert query["kind"] == 3  # client; OTLP's JSON has numbers here
    assert query["parentSpanId"] == lines.span_id(line)
    namespaces = {one["_aws"]["CloudWatchMetrics"][0]["Namespace"] for one in found if "_aws" in one}
    assert namespaces == {
        *("ClientsApi", "ContainerInsights", "Telemetry"),
        *("AWS/RDS", "AWS/Logs", "AWS/ELB", "AWS/Route53"),
    }
    assert {one["event"] for one in found if "event" in one} >= {"started", "request", "stopping", "stopped"}


def test_the_output_has_the_lines_of_the_service_unchanged(finished: FinishedRun) -> None:
    """Where the output is not a terminal, it has all lines of the service."""
    printed = [line for line in finished.output.splitlines() if line.startswith("{")]

    assert set(printed) <= set(finished.lines)
    assert any('"event":"request"' in line for line in printed)
    assert "make oncall" in finished.output


def test_sigterm_leaves_no_process(finished: FinishedRun) -> None:
    """The recorder forwards the signal, and the service and its workers exit."""
    assert finished.survivors == []


def test_sigint_leaves_no_process(service: Service) -> None:
    """As after Ctrl-C."""
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert len(family) == 3  # the service and its two workers

    assert service.stop(signal.SIGINT) == 0
    assert psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1] == []


def record(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs a recorder that exits at once."""
    return subprocess.run(
        [sys.executable, "-m", *MODULE],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_an_invalid_setting_is_refused_with_a_message() -> None:
    """The message is the service's own, and no process starts."""
    done = record(PORT="many")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: PORT is 'many', but must be a whole number from 0 to 65535.\n"


def test_a_failure_of_the_service_is_passed_on(database_settings: DatabaseSettings, short_folder: Path) -> None:
    """Its message and its exit status; here, the port is in use."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = record(PORT=port, WORKERS="1", DATABASE_URL=database_settings.dsn, LOCAL_FOLDER=str(short_folder))

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_a_terminal_shows_requests_in_readable_form(database_settings: DatabaseSettings, short_folder: Path) -> None:
    """Metric documents are only in the recording."""
    ours, theirs = pty.openpty()
    variables = {**environment(database_settings.dsn, short_folder), "WORKERS": "1"}
    service = Service(variables, module=MODULE, stdout=theirs)
    try:
        service.wait_until_listening()
        request(service, "get/1")
        wait_until(lambda: "metrics" in map(kind, documents(short_folder)))
        shown = b""
        while b"/get/{id}" not in shown:
            shown += os.read(ours, 2**16)
    finally:
        service.end()
        os.close(ours)
        os.close(theirs)

    assert b" 200 " in shown
    assert b"_aws" not in shown
    assert b'{"timestamp"' not in shown


def test_a_recording_and_the_one_before_it_stay_below_the_maximum_size(tmp_path: Path) -> None:
    """Each of both files has up to half of it, and no line between them is lost."""
    with closing(Recording(tmp_path / "recording.jsonl", 205)) as recording:
        for number in range(30):
            recording.write(b"%09d\n" % number)
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 205

    kept = [*(tmp_path / "recording.1.jsonl").read_text().split(), *(tmp_path / "recording.jsonl").read_text().split()]
    assert [int(one) for one in kept] == list(range(30 - len(kept), 30))
    assert len(kept) > 10


def test_lines_that_the_figures_are_about_are_counted() -> None:
    """Documents that are not JSON or break the rules of the format; workers that start and exit."""
    machine = type("Machine", (), {"shipped": Shipped()})()
    counting = Recorder(recording=None, machine=machine)  # type: ignore[arg-type]  # not used here
    counting._count(
        [
            b'{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [',
            b'{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Metrics": [{"Name": "M"}]}]}}',
            b'{"_aws": {"CloudWatchMetrics": []}}',
            b'{"event":"started","pod":"host-1","port":8080}',
            b'{"event":"started","pod":"host-2","port":8080}',
            b'{"event":"worker_exited","pod":"host-1"}',
            b'{"event":"worker_exited","po',
        ]
    )

    assert machine.shipped == Shipped(records=7, unread=1, invalid=1, restarts=1, ready={"host-2"}, fewest_ready=1)
    assert counting.port == 8080


def test_spans_that_cannot_be_parsed_are_refused_and_counted(service: Service, short_folder: Path) -> None:
    """With 400, after which the sender does not retry."""
    (child,) = psutil.Process(service.process.pid).children()
    endpoint = child.environ()["OTEL_EXPORTER_OTLP_ENDPOINT"]
    with pytest.raises(OSError, match="400"):
        urlopen(Request(f"{endpoint}/v1/traces", b"no spans", method="POST"), timeout=PATIENCE_SECONDS)
    wait_until(lambda: any(one.get("otelcol_exporter_send_failed_spans") for one in documents(short_folder)))


def test_the_busy_run_has_the_events_that_other_tests_need(busy_run: Run) -> None:
    """A killed worker, failed requests, and an outage of the database that ended."""
    events = [orjson.loads(line).get("event") for line in busy_run.lines()]

    assert events.count("worker_exited") == 1
    assert "database_unavailable" in events
    assert "database_recovered" in events
    assert "request_failed" in events
