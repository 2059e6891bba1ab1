"""Tests of Fluent Bit's configuration: where each log line of a node goes.

CI has no registry with Fluent Bit. So each claim is checked against a model (model.py) and, on a machine that has
Fluent Bit, against the real one, which sends to a mock of CloudWatch. Both must agree on each record.

The model covers options, tags, regular expressions, the runtime's format, the merging of objects, and what an output
sends. Only the real one shows that the configuration is accepted, that lines are joined, escaped and signed correctly,
that no line is lost when it stops, and its own metrics.
"""

import itertools
import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from ops.common.process import ROOT
from ops.deploy.common import aws_client
from ops.rehearsal import tls
from ops.rehearsal.aws import REGION
from tests.ops.adot import model as adot
from tests.ops.deploy.fixtures import FaultyProxy, MockAws, connection_reset
from tests.ops.fluent_bit import model as fluentbit
from tests.ops.fluent_bit.model import Event, Logs, Real
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import attributes

CONFIG = fluentbit.read()
IMPLEMENTATIONS = ["model", *(["real"] if fluentbit.BINARY else [])]
JOURNAL_IMPLEMENTATIONS = ["model", *(["real"] if fluentbit.BINARY and fluentbit.JOURNAL_WRITER else [])]

METRICS, LINES = "/made-up/clients-api/metrics", "/made-up/clients-api/lines"
APPLICATION, DATAPLANE, HOST = (
    f"/aws/containerinsights/made-up/{group}" for group in ("application", "dataplane", "host")
)
GROUPS = METRICS, LINES, APPLICATION, DATAPLANE, HOST

Ship: TypeAlias = Callable[[Logs], list[Event]]

HEAD = '{"Timestamp":1795600800000,"CloudWatchMetrics":[{"Namespace":"ClientsApi","Dimensions":[[]],"Metrics":[]}]}'
DOCUMENTS = {
    "_aws first": f'{{"_aws":{HEAD},"Requests":[1]}}',
    "after a text": f'{{"Route":"/get/{{id}}","_aws":{HEAD},"Latency":[0.5,1.5]}}',
    "after a text with quotes and braces": f'{{"a":"\\"}}{{[\\\\","_aws":{HEAD}}}',
    "after numbers and arrays": f'{{"a":-1.5e3,"b":[1,2],"c":[],"d":null,"_aws":{HEAD}}}',
    "after objects in arrays and objects": f'{{"a":[{{"b":{{"c":"}}"}}}}],"_aws":{HEAD}}}',
    "last": f'{{"a":1,"_aws":{HEAD}}}',
    "with white space": f' {{ "a" : 1 , "_aws" : {HEAD} }}',
    "in parts, split before _aws": f'{{"a":"{"x" * 40_000}","_aws":{HEAD}}}',
    "in parts, split within _aws": f'{{"a":"{"x" * 16_376}","_aws":{HEAD}}}',
    "with letters that are not ASCII": f'{{"a":"é 😀","_aws":{HEAD}}}',
}
ORDINARY: dict[str, str | bytes] = {
    "an object": '{"event":"request","status":200,"duration_ms":1.0,"error":null,"sampled":true,"client":["::1"]}',
    "a text": "Traceback (most recent call last):",
    "an indented text": '  File "svc/app.py", line 1',
    "an empty line": "",
    "an empty object": "{}",
    "an array": "[1,2,3]",
    "a number": "17",
    "a truncated object": '{"event":"request","status":',
    "an object followed by text": '{"event":"request"} and more',
    "two objects": '{"a":1}{"b":2}',
    "the same member twice": '{"a":1,"a":2}',
    "letters that are not ASCII": 'é 😀 \\ "quoted" \t tab',
    "letters that are not ASCII, in an object": '{"a":"é 😀 \\u00e9 \\ud83d\\ude00 \\u0000","b":"end\\n"}',
    "large numbers": '{"a":12345678901234567890,"b":0.1,"c":1e300,"d":-0.0}',
    "a mention of _aws in a text": '"_aws":{ at the beginning',
    "a mention of _aws in an object's text": '{"detail":"{\\"_aws\\":{\\"Timestamp\\":1}}"}',
    "a mention of _aws in the name of a member": '{"\\"_aws\\":{":1}',
    "a member _aws that is a text": '{"_aws":"a text"}',
    "an inner _aws": f'{{"a":{{"_aws":{HEAD}}}}}',
    "an _aws in an array": f'[{{"_aws":{HEAD}}}]',
    "an _aws in an inner array": f'{{"a":[{{"_aws":{HEAD}}}],"b":{{"c":{{"d":{{"_aws":{{}}}}}}}}}}',
    "a document after a word": f'INFO {{"_aws":{HEAD}}}',
    "an object in parts": f'{{"a":"{"y" * 40_000}"}}',
    "a text in parts": "z" * 40_000,
    "invalid UTF-8": b"caf\xe9 \xff\xfe.",
    "invalid UTF-8 in an object": b'{"a":"caf\xe9!","b":1}',
}


# --- The real Fluent Bit, and CloudWatch


@dataclass(frozen=True)
class CloudWatch:
    """A mock of CloudWatch Logs.

    Attributes:
        front: its TLS endpoint.
        proxy: the proxy to it, which can inject faults.
    """

    front: tls.TlsProxy
    proxy: FaultyProxy

    def fail(self) -> None:
        """Resets the connection of each request."""
        for operation in ("CreateLogStream", "PutLogEvents"):
            self.proxy.inject(operation, itertools.repeat(connection_reset))

    def recover(self) -> None:
        self.proxy.reset()

    def events(self) -> list[Event]:
        """All events that it received."""
        logs = aws_client("logs", REGION)
        return [
            Event(group, stream["logStreamName"], event["timestamp"], event["message"])
            for group in GROUPS
            for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]
            for page in pages(group, stream["logStreamName"])
            for event in page
        ]


def pages(group: str, stream: str) -> Iterator[list[dict[str, Any]]]:
    """The pages of a stream's events."""
    token: dict[str, str] = {}
    while True:
        logs = aws_client("logs", REGION)
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        if not page["events"]:
            return
        yield page["events"]
        token = {"nextToken": page["nextForwardToken"]}


@pytest.fixture
def cloudwatch(mock_aws: MockAws) -> Iterator[CloudWatch]:
    """Listens with TLS, and has the groups that Terraform creates."""
    behind = urlsplit(mock_aws.proxy.url)
    assert behind.hostname
    assert behind.port
    address = behind.hostname, behind.port
    front = tls.listen(mock_aws.certificate, lambda: address, ("127.0.0.1", 0))
    for group in GROUPS:
        aws_client("logs", REGION).create_log_group(logGroupName=group)
    yield CloudWatch(front, mock_aws.proxy)
    front.close()
    mock_aws.proxy.reset()
    for group in GROUPS:
        aws_client("logs", REGION).delete_log_group(logGroupName=group)


class MetricsReceiver(ThreadingHTTPServer):
    """Receives metrics by OTLP over HTTP.

    Attributes:
        names: the values of the attribute "name", by metric.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.names: dict[str, set[str]] = {}


class _Handler(BaseHTTPRequestHandler):
    server: MetricsReceiver

    def do_POST(self) -> None:  # as the base class names it
        assert self.path == "/v1/metrics"
        request = ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for of_resource in request.resource_metrics:
            for metric in itertools.chain(*(of_scope.metrics for of_scope in of_resource.scope_metrics)):
                assert metric.sum.aggregation_temporality != AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
                values = self.server.names.setdefault(metric.name, set())
                values |= {attributes(point.attributes).get("name", "") for point in metric.sum.data_points}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[MetricsReceiver]:
    server = MetricsReceiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def real(cloudwatch: CloudWatch, receiver: MetricsReceiver, mock_aws: MockAws, tmp_path: Path) -> Iterator[Real]:
    """The real Fluent Bit, not yet started."""
    collector = "127.0.0.1", receiver.server_port
    config = fluentbit.for_this_machine(CONFIG, tmp_path, cloudwatch.front.address, mock_aws.ca.certificate, collector)
    made = Real(tmp_path, config)
    yield made
    made.end()


@pytest.fixture(name="ship")
def make_ship(implementation: str, request: pytest.FixtureRequest) -> Ship:
    """A function that returns the events for logs: from the model, or from the real one, which must equal the model."""
    if implementation == "model":
        return lambda logs: fluentbit.ship(CONFIG, logs)
    real: Real = request.getfixturevalue("real")
    cloudwatch: CloudWatch = request.getfixturevalue("cloudwatch")

    def ship(logs: Logs) -> list[Event]:
        expected = fluentbit.ship(real.config, logs)
        real.write(logs)
        real.start()
        fluentbit.wait_until(lambda: len(cloudwatch.events()) >= len(expected) or " [error] " in real.output)
        assert real.stop() == 0  # before it exits, it sends everything
        events = cloudwatch.events()
        assert Counter(one.comparable() for one in events) == Counter(one.comparable() for one in expected)
        return events

    return ship


each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def text_of(line: str | bytes) -> str:
    return line if isinstance(line, str) else line.decode(errors="fluent-bit")


# --- Lines


@each_implementation
def test_each_metric_arrives_once_as_it_was_written(ship: Ship) -> None:
    """Wherever _aws is among its members, the document is unchanged in the group of metrics, and in no other group."""
    logs = Logs()
    logs.add("clients-api-1", "clients", "clients-api", *DOCUMENTS.values())
    events = ship(logs)

    assert Counter(event.message for event in events) == Counter(DOCUMENTS.values())
    assert {event.group for event in events} == {METRICS}


@each_implementation
def test_each_other_line_of_the_service_arrives_once_as_it_was_written(ship: Ship) -> None:
    """An object or a traceback's line is an event of its own, and nothing is added. An empty line is none."""
    logs = Logs()
    logs.add("clients-api-1", "clients", "clients-api", *ORDINARY.values())
    events = ship(logs)

    assert {event.group for event in events} == {LINES}
    assert Counter(event.message for event in events) == Counter(filter(None, map(text_of, ORDINARY.values())))


@each_implementation
def test_each_line_of_another_pod_arrives_once_and_complete(ship: Ship) -> None:
    """In the application's group, an object arrives as an object, any other line as text, and no line as both."""
    logs = Logs()
    logs.add("other-1", "default", "other", *ORDINARY.values())
    events = ship(logs)
    records = [event.record() for event in events]
    objects = [json.dumps(record["log_processed"]) for record in records if "log_processed" in record]
    texts = [record[name] for record in records for name in ("log", "text") if name in record]
    sent = {kind: text_of(line) for kind, line in ORDINARY.items()}
    merged = {kind: line for kind, line in sent.items() if is_object(line)}

    assert {event.group for event in events} == {APPLICATION}
    assert Counter(texts) == Counter(line for kind, line in sent.items() if kind not in merged)
    assert Counter(objects) == Counter(json.dumps(json.loads(line)) for line in merged.values())
    assert len(objects) + len(texts) == len(events) == len(ORDINARY)


@each_implementation
def test_what_is_added_to_another_pods_line_is_read_by_someone(ship: Ship) -> None:
    """It has the names of pod, namespace, container and node, and no IDs, hashes, images or addresses."""
    logs = Logs()
    logs.add("a.pod-1", "default", "app", '{"a":1}', "a text")
    of_object, of_text = (event.record() for event in ship(logs))
    container = {"pod_name": "a.pod-1", "namespace_name": "default", "container_name": "app"}

    assert of_object.pop("log_processed") == {"a": 1}
    assert of_text.pop("log") == "a text"
    for record in (of_object, of_text):
        assert record.pop("time").startswith("2026-")
        assert record == {"stream": "stdout", "kubernetes": container, "host": "node-1"}


@each_implementation
def test_events_that_cloudwatch_would_discard_are_not_sent(ship: Ship) -> None:
    """A file that was last written more than 14 days ago is not read, and one that was written since is."""
    logs = Logs()
    for pod in ("gone", "running"):
        for namespace in ("clients", "default"):
            logs.add(pod, namespace, "app", f"of {pod}")
    logs.old = {name for name in logs.containers if name.startswith("gone_")}
    events = ship(logs)

    assert sorted(event.group for event in events) == [APPLICATION, LINES]
    assert all("of running" in event.message for event in events)


def is_object(line: str) -> bool:
    """Whether the line is a JSON object that is not empty."""
    try:
        return isinstance(parsed := json.loads(line), dict) and bool(parsed)
    except ValueError:
        return False


@each_implementation
async def test_the_services_lines_and_metrics_arrive_once(ship: Ship, serve: Callable[..., Service]) -> None:
    """Lines arrive in their group, and valid metrics in theirs, as they were written. Nothing is paid for twice."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0", METRICS_INTERVAL="1")
    async with ClientSession() as session:
        for path in ("/get/1", "/get/999", "/get/_aws", "/getall", "/healthz", '/"_aws":{'):
            async with session.get(service.url + path) as response:
                await response.read()
    service.stop()
    logs = Logs()
    output = service.output.splitlines()
    logs.add("clients-api-1", "clients", "clients-api", *output)
    events = ship(logs)
    metrics = [event.message for event in events if event.group == METRICS]
    others = [event.message for event in events if event.group == LINES]

    assert Counter(metrics) == Counter(line for line in output if is_object(line) and "_aws" in json.loads(line))
    assert len(lines.documents("\n".join(metrics))) == len(metrics) > 3
    assert len(lines.requests("\n".join(others))) == 5  # probes have no line
    assert Counter(metrics + others) == Counter(output)
    assert len(events) == len(output)


@each_implementation
def test_only_the_services_containers_have_metrics(ship: Ship) -> None:
    """A document that another container writes is an ordinary line."""
    logs = Logs()
    logs.add("other-1", "default", "other", *DOCUMENTS.values())
    events = ship(logs)

    assert {event.group for event in events} == {APPLICATION}
    assert len(events) == len(DOCUMENTS)


@each_implementation
def test_system_pods_have_a_group_of_their_own(ship: Ship) -> None:
    """The namespace decides, whatever the pod's name. Fluent Bit does not ship its own log."""
    logs = Logs()
    logs.add("coredns-1", "kube-system", "coredns", "of coredns", '{"of":"coredns"}')
    logs.add("collector-1", "telemetry", "collector", "of the collector")
    logs.add("fluent-bit-x1", "telemetry", "fluent-bit", "of Fluent Bit")
    logs.add("telemetry-kube-system-1", "default", "kube-system", "of a pod with such a name")
    logs.add("telemetry-kube-system-1", "clients", "kube-system", "of a pod of the service with such a name")
    logs.add("telemetry-1", "default", "telemetry", "of a pod with another")
    events = ship(logs)
    shipped = {
        (event.group, str(record.get("log", record.get("log_processed"))))
        for event, record in with_records(event for event in events if event.group != LINES)
    }

    assert shipped == {
        (DATAPLANE, "of coredns"),
        (DATAPLANE, "{'of': 'coredns'}"),
        (DATAPLANE, "of the collector"),
        (APPLICATION, "of a pod with such a name"),
        (APPLICATION, "of a pod with another"),
    }
    assert [event.message for event in events if event.group == LINES] == ["of a pod of the service with such a name"]
    assert len(events) == len(shipped) + 1


def with_records(events: Iterable[Event]) -> Iterator[tuple[Event, dict[str, Any]]]:
    return ((event, event.record()) for event in events)


@each_implementation
def test_parts_of_two_streams_are_not_mixed_up(ship: Ship) -> None:
    """A container's stdout and stderr are in one file, but their parts are joined separately."""
    long = {"stdout": f'{{"a":"{"o" * 40_000}"}}', "stderr": "e" * 40_000}
    pieces = [fluentbit.parts(line, stream).splitlines(keepends=True) for stream, line in long.items()]
    logs = Logs()
    logs.add("app-1", "default", "app")
    (name,) = logs.containers
    logs.containers[name] = b"".join(itertools.chain(*zip(*pieces, strict=True)))
    records = {record["stream"]: record for _, record in with_records(ship(logs))}

    assert records["stdout"]["log_processed"] == json.loads(long["stdout"])
    assert records["stderr"]["log"] == long["stderr"]


@pytest.mark.parametrize("implementation", JOURNAL_IMPLEMENTATIONS)
def test_the_journal_goes_to_the_groups_of_host_and_data_plane(ship: Ship) -> None:
    """The kubelet's and containerd's entries go to the data plane. Each entry arrives once, with the listed fields."""
    units = ["kubelet.service", "containerd.service", "sshd.service", "kubelet.service.d", "", "init.scope"]
    logs = Logs()
    for number, unit in enumerate(units):
        unit_field = {"_SYSTEMD_UNIT": unit} if unit else {}
        logs.journal.append(
            {
                "__REALTIME_TIMESTAMP": str(1_795_600_800_000_000 + number * 1000),
                "MESSAGE": f"entry {number}",
                "PRIORITY": "6",
                "_CMDLINE": "long",
                **unit_field,
            }
        )
    events = ship(logs)

    assert sorted((event.group, event.record()["MESSAGE"]) for event in events) == sorted(
        (DATAPLANE if number < 2 else HOST, f"entry {number}") for number in range(len(units))
    )
    assert {name for _, record in with_records(events) for name in record} == {"MESSAGE", "PRIORITY", "_SYSTEMD_UNIT"}


# --- The configuration


def test_regular_expressions_mean_the_same_in_onigmo_and_python() -> None:
    """They use only syntax that both interpret equally, so that the model's matches are Fluent Bit's."""
    text = fluentbit.FILE.read_text()
    outputs = [one["match_regex"] for one in CONFIG["pipeline"]["outputs"] if "match_regex" in one]
    rules = [step["rule"].split(" ")[1] for step in fluentbit.processors(CONFIG)]
    conditions = [step["condition"].split(" ")[2] for step in fluentbit.of_kind(CONFIG, "filters", "modify")]
    parsers = [re.sub(r"\(\?<\w+>", "(", one["regex"]) for one in CONFIG["parsers"]]  # Python has another form of names
    patterns = [*outputs, *rules, *conditions, *parsers]

    assert len(patterns) == len(re.findall(r"\b(?:match_regex|rule|condition|regex):", text)) == 6
    for pattern in patterns:
        assert set(re.findall(r"\\.", pattern)) <= {r"\A", r"\s", r"\.", r"\{", r"\}", r"\\"}
        assert set(re.findall(r"\(\?.", pattern)) <= {"(?>", "(?!"}
        assert not re.search(r"[*+?}]\+", pattern)  # possessive in one of them, under some options


def test_the_search_for_metrics_does_not_backtrack() -> None:
    """The search takes time linear in the length of a line: with backtracking, lines of 1 MB would block it."""
    (step,) = fluentbit.processors(CONFIG)
    pattern = step["rule"].split(" ")[1]
    for text in ('{"a":"' + "\\" * 1_000_000, "{" + '{"a":' * 200_000, "{" + '"a":[' * 200_000, "{" + " " * 1_000_000):
        assert not fluentbit.search(pattern, text)


def test_each_line_has_one_output() -> None:
    """Each tag matches one output. Without one, the line would be lost; with two, it would be paid for twice."""
    tags = [
        f"{prefix}{pod}_{namespace}_{container}-{'a' * 64}.log"
        for prefix in ("kube.var.log.containers.", "clients.var.log.containers.", "emf.clients.var.log.containers.")
        for pod in ("clients-api-1", "kube-system", "telemetry.a")
        for namespace in ("clients", "default", "kube-system", "telemetry", "telemetry2", "my-kube-system")
        for container in ("clients-api", "kube-system", "telemetry")
    ]
    units = ("kubelet.service", "containerd.service", "sshd.service", "unknown", "xkubelet.service", "kubelet_service")
    tags += [f"journal.{unit}" for unit in units]
    tags.append("counts")

    for tag in tags:
        matching = [one["alias"] for one in CONFIG["pipeline"]["outputs"] if fluentbit.matches(one, tag)]
        assert len(matching) == 1, (tag, matching)


def test_terraform_creates_all_log_groups() -> None:
    """Fluent Bit must not create one, because it would keep its events forever."""
    created = re.findall(r'^    \w+ += "(/.+)"$', (ROOT / "terraform" / "logs.tf").read_text(), re.MULTILINE)
    outputs = fluentbit.of_kind(CONFIG, "outputs", "cloudwatch_logs")

    assert {one["log_group_name"] for one in outputs} <= {name.replace("${var.name}", "made-up") for name in created}
    assert {one["auto_create_group"] for one in outputs} == {False}


def test_an_outage_of_a_day_loses_nothing_that_fits_on_the_disk() -> None:
    """Each output retries for a day, and has a limit. All limits together leave most of a node's disk free."""
    service = CONFIG["service"]
    outputs = fluentbit.of_kind(CONFIG, "outputs", "cloudwatch_logs")
    seconds = (service["scheduler.base"] + service["scheduler.cap"]) / 2  # the average wait before a retry
    gigabytes = {"M": 1 / 1024, "G": 1}
    bounds = [one["storage.total_limit_size"] for one in outputs]
    (disk,) = re.findall(r"volume_size += (\d+)", (ROOT / "terraform" / "nodes.tf").read_text())

    assert all(one["retry_limit"] * seconds > 24 * 3600 for one in outputs)
    assert sum(int(bound[:-1]) * gigabytes[bound[-1]] for bound in bounds) <= int(disk) / 5


# --- Start and stop


@pytest.mark.parametrize("sent_signal", [signal.SIGTERM, signal.SIGKILL], ids=lambda sent_signal: sent_signal.name)
@each_implementation
def test_no_line_is_lost_when_it_stops(
    implementation: str, sent_signal: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """It stops while CloudWatch is unavailable and lines are still written, and starts again: each line arrives.

    After SIGTERM, each arrives once. After SIGKILL, lines that were in flight may arrive twice.
    """
    if implementation == "model":
        persistent = [one for one in CONFIG["pipeline"]["inputs"] if one["name"] in ("tail", "systemd")]
        assert {one["storage.type"] for one in persistent} == {"filesystem"}
        assert len({one["db"] for one in persistent}) == len(persistent) == 3
        # A filter's queue would be only in memory.
        assert "rewrite_tag" not in [one["name"] for one in CONFIG["pipeline"]["filters"]]
        return
    real: Real = request.getfixturevalue("real")
    cloudwatch: CloudWatch = request.getfixturevalue("cloudwatch")
    all_logs = Logs()

    def write(rounds: range) -> None:
        for number in rounds:
            more = Logs()
            for pod in range(8):
                line = f'{{"number":{number},"pod":{pod}'
                more.add(f"clients-api-{pod}", "clients", "clients-api", f"{line}}}", f'{line},"_aws":{HEAD}}}')
            real.write(more)
            all_logs.containers |= {
                name: all_logs.containers.get(name, b"") + content for name, content in more.containers.items()
            }

    write(range(20))
    real.start()
    fluentbit.wait_until(lambda: len(cloudwatch.events()) == 20 * 8 * 2)
    cloudwatch.fail()
    write(range(20, 60))
    fluentbit.wait_until(lambda: real.has_read(all_logs.containers))
    write(range(60, 80))
    real.stop(sent_signal)
    write(range(80, 100))
    cloudwatch.recover()
    real.start()
    expected = Counter(event.comparable() for event in fluentbit.ship(real.config, all_logs))
    fluentbit.wait_until(lambda: {event.comparable() for event in cloudwatch.events()} >= expected.keys())
    assert real.stop() == 0
    received = Counter(event.comparable() for event in cloudwatch.events())

    assert received.keys() == expected.keys()
    twice = {int(re.findall(r'"number": ?(\d+)', event.message)[0]) for event in received - expected}
    assert twice <= (set(range(20, 80)) if sent_signal is signal.SIGKILL else set())


@each_implementation
def test_it_accepts_its_configuration(implementation: str, request: pytest.FixtureRequest) -> None:
    """Its own check passes, and it starts without logging an error. The model knows all options."""
    if implementation == "model":
        assert fluentbit.unknown(CONFIG) == []
        return
    real: Real = request.getfixturevalue("real")
    logs = Logs()
    logs.add("app-1", "default", "app", "a line")
    real.write(logs)
    check = real.check()
    real.start()
    fluentbit.wait_until(lambda: real.has_read(logs.containers))

    assert real.stop() == 0
    assert "configuration test is successful" in check.stdout + check.stderr
    assert [line for line in real.output.splitlines() if "[error]" in line] == []


@each_implementation
def test_it_exports_the_metrics_that_the_collector_uses(implementation: str, request: pytest.FixtureRequest) -> None:
    """They have the names that the collector passes, and are totals for each input and output."""
    used = {name for _, name, _ in adot.declared_metrics(adot.FILES[0]) if name.startswith("fluentbit_")}
    if implementation == "model":
        assert used <= fluentbit.METRICS.keys()
        return
    real: Real = request.getfixturevalue("real")
    receiver: MetricsReceiver = request.getfixturevalue("receiver")
    logs = Logs()
    for namespace in ("clients", "default"):
        logs.add("app-1", namespace, "app", "a line")
        (name,) = [one for one in logs.containers if f"_{namespace}_" in one]
        logs.containers[name] += b"x" * 2_000_000 + b"\n"
    real.write(logs)
    real.start()

    def has_all_metrics() -> bool:
        return all(values <= receiver.names.get(name, set()) for name, values in fluentbit.METRICS.items())

    fluentbit.wait_until(has_all_metrics)
    assert real.stop() == 0
