"""What make run does: it serves, records all that the service tells, and shows people what people read."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import orjson
import psutil
import pytest

from ops.common.process import ROOT, Service
from ops.oncall import recorder
from ops.oncall.machine import Shipped
from ops.oncall.recorder import Recorder, Recording
from svc.postgres.settings import DatabaseSettings
from tests.ops.cloudwatch.recording import Run

Start = Callable[..., Service]


@pytest.fixture
def start(database_settings: DatabaseSettings, short_folder: Path) -> Iterator[Start]:
    """Starts it as make run does, on the test's database."""
    services: list[Service] = []

    def start(**environment: str) -> Service:
        service = Service(
            {
                "DATABASE_URL": database_settings.dsn,
                "LOCAL_FOLDER": str(short_folder),
                "METRICS_INTERVAL": "1",
                "DRAIN_SECONDS": "0.2",
                **environment,
            },
            module=["ops.oncall.recorder"],
        )
        services.append(service)
        service.wait_until_listening()
        return service

    yield start
    for service in services:
        service.end()


def documents(folder: Path) -> list[dict[str, Any]]:
    """What was recorded."""
    return [orjson.loads(line) for line in (folder / recorder.FILE).read_bytes().splitlines()]


def ask(service: Service, path: str) -> dict[str, str]:
    """A request's headers in the answer."""
    with urlopen(f"{service.url}/{path}", timeout=10) as answer:
        return dict(answer.headers)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_lines_metrics_traces_and_figures_are_in_one_file(start: Start, short_folder: Path) -> None:
    """A request's line names its trace, whose spans are there by that id; and what stands for AWS has its figures."""
    service = start()
    request_id = ask(service, "get/1")["X-Request-Id"]
    wait_for(lambda: any("resourceSpans" in one for one in documents(short_folder)))
    assert service.stop() == 0

    found = documents(short_folder)
    (line,) = [one for one in found if one.get("request_id") == request_id]
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
    assert query["kind"] == 3  # a client's; OTLP's JSON has numbers here
    assert (query["parentSpanId"], query["links"][0]["spanId"]) == (line["span_id"], line["span_id"])
    namespaces = {one["_aws"]["CloudWatchMetrics"][0]["Namespace"] for one in found if "_aws" in one}
    assert namespaces == {"ClientsApi", "ContainerInsights", "AWS/RDS", "Telemetry", "AWS/Logs"}
    assert {one["event"] for one in found if "event" in one} >= {"started", "request", "stopping", "stopped"}


def test_what_reads_its_output_gets_the_services_own_lines(start: Start, short_folder: Path) -> None:
    """Where it is no terminal: all of them, as they are, and nothing else."""
    service = start()
    ask(service, "get/1")
    assert service.stop() == 0

    shown = [line for line in service.output.splitlines() if line.startswith("{")]
    recorded = (short_folder / recorder.FILE).read_text().splitlines()
    assert set(shown) <= set(recorded)
    assert any('"event":"request"' in line for line in shown)
    assert "make oncall" in service.output


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_and_leaves_no_process(start: Start, how: signal.Signals) -> None:
    """It is handed on once, and the service drains, or as after Ctrl-C does not."""
    service = start()
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert len(family) == 3  # the service and its workers

    assert service.stop(how) == 0
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_setting_that_is_wrong_is_refused_in_a_sentence() -> None:
    """As the service does, and with nothing started."""
    done = subprocess.run(
        [sys.executable, "-m", "ops.oncall.recorder"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORT": "many"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: PORT is 'many', and has to be a whole number from 0 to 65535.\n"


def test_the_services_own_failure_is_passed_on(start: Start, short_folder: Path) -> None:
    """Its words and its exit status: here, an address that is taken."""
    port = start().port
    done = subprocess.run(
        [sys.executable, "-m", "ops.oncall.recorder"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "LOCAL_FOLDER": str(short_folder / "other"),
            "PORT": str(port),
            "WORKERS": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_on_a_terminal_people_read_lines_and_not_documents(
    database_settings: DatabaseSettings, short_folder: Path
) -> None:
    """Requests in a form for people; metrics' documents are in the recording alone."""
    ours, theirs = pty.openpty()
    environment = {"DATABASE_URL": database_settings.dsn, "LOCAL_FOLDER": str(short_folder), "METRICS_INTERVAL": "1"}
    service = Service({**environment, "WORKERS": "1"}, module=["ops.oncall.recorder"], stdout=theirs)
    try:
        service.wait_until_listening()
        ask(service, "get/1")
        time.sleep(1.5)
        shown = os.read(ours, 2**16).decode()
    finally:
        service.end()
        os.close(ours)
        os.close(theirs)

    assert "request" in shown
    assert "/get/{id}" in shown
    assert "_aws" not in shown
    assert "{" + '"timestamp"' not in shown


def test_a_recording_is_put_aside_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is kept, and no line is lost between the two."""
    monkeypatch.setattr(recorder, "_MOST_BYTES", 100)
    with closing(Recording(tmp_path / "recording.jsonl")) as recording:
        for number in range(30):
            recording.write(b"%09d\n" % number)

    kept = [*(tmp_path / "recording.1.jsonl").read_text().split(), *(tmp_path / "recording.jsonl").read_text().split()]
    assert [int(one) for one in kept] == list(range(30 - len(kept), 30))
    assert len(kept) > 10


def test_documents_that_cloudwatch_could_not_take_are_counted() -> None:
    """By what is wrong with them."""
    machine = type("Machine", (), {"shipped": Shipped()})()
    watched = Recorder(recording=None, machine=machine)  # type: ignore[arg-type]  # of which nothing is asked here
    watched._note(
        [
            b'{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [',
            b'{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Metrics": [{"Name": "M"}]}]}}',
            b'{"_aws": {"CloudWatchMetrics": []}}',
            b'{"event": "worker_exited"}',
        ]
    )

    assert machine.shipped == Shipped(records=4, unread=1, invalid=1, restarts=1)


def test_spans_that_cannot_be_read_are_refused_and_counted(start: Start, short_folder: Path) -> None:
    """With a status that makes the sender give them up."""
    service = start()
    (child,) = psutil.Process(service.process.pid).children()
    endpoint = child.environ()["OTEL_EXPORTER_OTLP_ENDPOINT"]
    with pytest.raises(OSError, match="400"):
        urlopen(Request(f"{endpoint}/v1/traces", b"no spans", method="POST"), timeout=10)
    wait_for(lambda: any(one.get("otelcol_exporter_send_failed_spans") for one in documents(short_folder)))


def test_a_run_has_the_moments_that_it_tells_of(recorded: Run) -> None:
    """The run that other tests rest on: the worker that was killed is told of, and so is the database's absence."""
    events = [orjson.loads(line).get("event") for line in recorded.lines()]

    assert events.count("worker_exited") == 1
    assert "database_unavailable" in events
    assert "database_recovered" in events
    assert "request_failed" in events
