"""Fluent Bit's configuration: what becomes of each line that is said on a node.

No registry that CI reaches has Fluent Bit. So each claim is checked against a model (model.py) and, on a machine that
has Fluent Bit, against the real one as well, which sends to a mock of CloudWatch. Both have to agree record by record.

The model knows options, tags and regular expressions, what the runtime's format and the merging of objects make of a
record, and what an output sends of it. Only the real one shows that it takes the configuration, that it joins, escapes
and signs as it should, that nothing is lost when it is ended, and what it counts. Neither shows what a kubelet tells:
the pod's metadata is made up.
"""

import itertools
import json
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from ops.common.process import ROOT, Service
from ops.deploy.common import aws
from ops.rehearsal import tls
from ops.rehearsal.aws import REGION
from svc.logs import names
from tests.ops.adot import model as adot
from tests.ops.deploy.cloud import Ground, Way, lost
from tests.ops.fluent_bit import model as fluentbit
from tests.ops.fluent_bit.model import Event, Logs, Real
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import attributes

CONFIG = fluentbit.read()
WAYS = ["model", *(["real"] if fluentbit.BINARY else [])]
WAYS_OF_JOURNALS = ["model", *(["real"] if fluentbit.BINARY and fluentbit.JOURNAL_WRITER else [])]

METRICS = "/made-up/clients-api/metrics"
APPLICATION, DATAPLANE, HOST = (
    f"/aws/containerinsights/made-up/{group}" for group in ("application", "dataplane", "host")
)

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
    "in parts, cut before _aws": f'{{"a":"{"x" * 40_000}","_aws":{HEAD}}}',
    "in parts, cut within _aws": f'{{"a":"{"x" * 16_376}","_aws":{HEAD}}}',
    "with other letters": f'{{"a":"é 😀","_aws":{HEAD}}}',
}
ORDINARY: dict[str, str | bytes] = {
    "an object": '{"event":"request","status":200,"duration_ms":1.0,"error":null,"sampled":true,"client":["::1"]}',
    "a text": "Traceback (most recent call last):",
    "an indented text": '  File "svc/app.py", line 1',
    "an empty line": "",
    "an empty object": "{}",
    "an array": "[1,2,3]",
    "a number": "17",
    "half an object": '{"event":"request","status":',
    "an object with words behind it": '{"event":"request"} and more',
    "two objects": '{"a":1}{"b":2}',
    "the same member twice": '{"a":1,"a":2}',
    "other letters": 'é 😀 \\ "quoted" \t tab',
    "other letters in an object": '{"a":"é 😀 \\u00e9 \\ud83d\\ude00 \\u0000","b":"end\\n"}',
    "large numbers": '{"a":12345678901234567890,"b":0.1,"c":1e300,"d":-0.0}',
    "a mention of _aws in a text": '"_aws":{ is what it begins with',
    "a mention of _aws in an object's text": '{"detail":"{\\"_aws\\":{\\"Timestamp\\":1}}"}',
    "a mention of _aws in the name of a member": '{"\\"_aws\\":{":1}',
    "a text by the name of _aws": '{"_aws":"a text"}',
    "an inner _aws": f'{{"a":{{"_aws":{HEAD}}}}}',
    "an _aws in an array": f'[{{"_aws":{HEAD}}}]',
    "an _aws in an inner array": f'{{"a":[{{"_aws":{HEAD}}}],"b":{{"c":{{"d":{{"_aws":{{}}}}}}}}}}',
    "a document after a word": f'INFO {{"_aws":{HEAD}}}',
    "an object in parts": f'{{"a":"{"y" * 40_000}"}}',
    "a text in parts": "z" * 40_000,
    "no UTF-8": b"caf\xe9 \xff\xfe.",
    "no UTF-8 in an object": b'{"a":"caf\xe9!","b":1}',
}


# --- The real one, and CloudWatch


@dataclass(frozen=True)
class CloudWatch:
    """A mock of it.

    Attributes:
        front: where it listens.
        way: to the mock.
    """

    front: tls.Front
    way: Way

    def go_away(self) -> None:
        """Resets each connection on which it is asked for something."""
        for operation in ("CreateLogStream", "PutLogEvents"):
            self.way.at(operation, itertools.repeat(lost))

    def come_back(self) -> None:
        self.way.clear()

    def events(self) -> list[Event]:
        """All that it has."""
        logs = aws("logs", REGION)
        return [
            Event(group, stream["logStreamName"], event["timestamp"], event["message"])
            for group in (METRICS, APPLICATION, DATAPLANE, HOST)
            for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]
            for page in pages(group, stream["logStreamName"])
            for event in page
        ]


def pages(group: str, stream: str) -> Iterator[list[dict[str, Any]]]:
    """Of a stream's events."""
    token: dict[str, str] = {}
    while True:
        page = aws("logs", REGION).get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        if not page["events"]:
            return
        yield page["events"]
        token = {"nextToken": page["nextForwardToken"]}


@pytest.fixture
def cloudwatch(ground: Ground) -> Iterator[CloudWatch]:
    """Over TLS, with the groups that Terraform makes."""
    behind = urlsplit(ground.way.url)
    assert behind.hostname
    assert behind.port
    address = behind.hostname, behind.port
    front = tls.listen(ground.ours, lambda: address, ("127.0.0.1", 0))
    for group in (METRICS, APPLICATION, DATAPLANE, HOST):
        aws("logs", REGION).create_log_group(logGroupName=group)
    yield CloudWatch(front, ground.way)
    front.close()
    ground.way.clear()
    for group in (METRICS, APPLICATION, DATAPLANE, HOST):
        aws("logs", REGION).delete_log_group(logGroupName=group)


class Counts(ThreadingHTTPServer):
    """A collector of counts, by OTLP over HTTP.

    Attributes:
        names: of each count, the names that it is told of.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TakingCounts)
        self.names: dict[str, set[str]] = {}


class _TakingCounts(BaseHTTPRequestHandler):
    server: Counts

    def do_POST(self) -> None:  # as the base class names it
        assert self.path == "/v1/metrics"
        request = ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for of_resource in request.resource_metrics:
            for metric in itertools.chain(*(of_scope.metrics for of_scope in of_resource.scope_metrics)):
                assert metric.sum.aggregation_temporality != AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
                told = self.server.names.setdefault(metric.name, set())
                told |= {attributes(point.attributes).get("name", "") for point in metric.sum.data_points}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def counts() -> Iterator[Counts]:
    server = Counts()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def real(cloudwatch: CloudWatch, counts: Counts, ground: Ground, tmp_path: Path) -> Iterator[Real]:
    """Fluent Bit itself, not yet started."""
    collector = "127.0.0.1", counts.server_port
    config = fluentbit.deviating(CONFIG, tmp_path, cloudwatch.front.address, ground.ca.certificate, collector)
    made = Real(tmp_path, config)
    yield made
    made.end()


@pytest.fixture(name="ship")
def make_ship(way: str, request: pytest.FixtureRequest) -> Ship:
    """What CloudWatch gets of logs, by the model or by the real one, which is held against the model."""
    if way == "model":
        return lambda logs: fluentbit.ship(CONFIG, logs)
    found: Real = request.getfixturevalue("real")
    cloudwatch: CloudWatch = request.getfixturevalue("cloudwatch")

    def ship(logs: Logs) -> list[Event]:
        expected = fluentbit.ship(found.config, logs)
        found.write(logs)
        found.start()
        fluentbit.wait_until(lambda: len(cloudwatch.events()) >= len(expected) or " [error] " in found.said)
        assert found.stop() == 0  # it sends all that it has before it ends
        got = cloudwatch.events()
        assert Counter(one.comparable() for one in got) == Counter(one.comparable() for one in expected)
        return got

    return ship


either_way = pytest.mark.parametrize("way", WAYS)


def text_of(line: str | bytes) -> str:
    return line if isinstance(line, str) else line.decode(errors="fluent-bit")


# --- Lines


@either_way
def test_each_metric_arrives_once_as_it_was_written(ship: Ship) -> None:
    """Wherever its _aws is among its members, it is a bare document in the group of metrics, and nowhere else."""
    logs = Logs()
    logs.say("clients-api-1", "clients", "clients-api", *DOCUMENTS.values())
    events = ship(logs)

    assert Counter(event.message for event in events) == Counter(DOCUMENTS.values())
    assert {event.group for event in events} == {METRICS}


@either_way
def test_each_other_line_arrives_once_with_all_that_is_in_it(ship: Ship) -> None:
    """In the application's group: an object as an object, all else as a text, and neither as both."""
    logs = Logs()
    logs.say("clients-api-1", "clients", "clients-api", *ORDINARY.values())
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


def is_object(line: str) -> bool:
    """Whether it is one, with something in it and nothing behind it."""
    try:
        return isinstance(found := json.loads(line), dict) and bool(found)
    except ValueError:
        return False


@either_way
async def test_what_the_service_says_arrives_once(ship: Ship, serve: Callable[..., Service]) -> None:
    """Its lines in the application's group, its metrics, all of them valid, in theirs; nothing is paid for twice."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0", METRICS_INTERVAL="1")
    async with ClientSession() as session:
        for path in ("/get/1", "/get/999", "/get/_aws", "/getall", "/healthz", '/"_aws":{'):
            async with session.get(service.url + path) as response:
                await response.read()
    service.stop()
    logs = Logs()
    said = service.output.splitlines()
    logs.say("clients-api-1", "clients", "clients-api", *said)
    events = ship(logs)
    metrics = [event.message for event in events if event.group == METRICS]
    others = [event.record().get("log_processed", {}) for event in events if event.group == APPLICATION]

    assert Counter(metrics) == Counter(line for line in said if is_object(line) and "_aws" in json.loads(line))
    assert len(lines.documents("\n".join(metrics))) == len(metrics) > 3
    assert len([one for one in others if one.get("event") == names.REQUEST]) == 5  # probes have no line
    assert len(metrics) + len(others) == len(events) == len(said)


@either_way
def test_only_the_services_own_containers_have_metrics(ship: Ship) -> None:
    """What others write in that form is a line like any other."""
    logs = Logs()
    logs.say("stranger-1", "default", "stranger", *DOCUMENTS.values())
    events = ship(logs)

    assert {event.group for event in events} == {APPLICATION}
    assert len(events) == len(DOCUMENTS)


@either_way
def test_the_clusters_own_pods_have_a_group_of_their_own(ship: Ship) -> None:
    """By their namespace, whatever they are called; but what Fluent Bit says of its work is not sent by itself."""
    logs = Logs()
    logs.say("coredns-1", "kube-system", "coredns", "of coredns", '{"of":"coredns"}')
    logs.say("collector-1", "telemetry", "collector", "of the collector")
    logs.say("fluent-bit-x1", "telemetry", "fluent-bit", "of Fluent Bit")
    logs.say("telemetry-kube-system-1", "clients", "kube-system", "of a pod by such a name")
    logs.say("telemetry-1", "default", "telemetry", "of a pod by another")
    events = ship(logs)
    said = {
        (event.group, str(record.get("log", record.get("log_processed")))) for event, record in with_records(events)
    }

    assert said == {
        (DATAPLANE, "of coredns"),
        (DATAPLANE, "{'of': 'coredns'}"),
        (DATAPLANE, "of the collector"),
        (APPLICATION, "of a pod by such a name"),
        (APPLICATION, "of a pod by another"),
    }
    assert len(events) == len(said)


def with_records(events: list[Event]) -> Iterator[tuple[Event, dict[str, Any]]]:
    return ((event, event.record()) for event in events)


@either_way
def test_parts_of_two_streams_are_not_mixed_up(ship: Ship) -> None:
    """A container's stdout and stderr are cut and joined each by itself, though they are in one file."""
    long = {"stdout": f'{{"a":"{"o" * 40_000}"}}', "stderr": "e" * 40_000}
    cut = [fluentbit.parts(line, stream).splitlines(keepends=True) for stream, line in long.items()]
    logs = Logs()
    logs.say("app-1", "default", "app")
    (name,) = logs.containers
    logs.containers[name] = b"".join(itertools.chain(*zip(*cut, strict=True)))
    records = {record["stream"]: record for _, record in with_records(ship(logs))}

    assert records["stdout"]["log_processed"] == json.loads(long["stdout"])
    assert records["stderr"]["log"] == long["stderr"]


@pytest.mark.parametrize("way", WAYS_OF_JOURNALS)
def test_the_journal_is_of_the_node_but_for_what_runs_its_containers(ship: Ship) -> None:
    """The kubelet and containerd are the cluster's; each entry arrives once, without fields that nobody asks for."""
    units = ["kubelet.service", "containerd.service", "sshd.service", "kubelet.service.d", "", "init.scope"]
    logs = Logs()
    for number, unit in enumerate(units):
        of_unit = {"_SYSTEMD_UNIT": unit} if unit else {}
        logs.journal.append(
            {
                "__REALTIME_TIMESTAMP": str(1_795_600_800_000_000 + number * 1000),
                "MESSAGE": f"entry {number}",
                "PRIORITY": "6",
                "_CMDLINE": "long",
                **of_unit,
            }
        )
    events = ship(logs)

    assert sorted((event.group, event.record()["MESSAGE"]) for event in events) == sorted(
        (DATAPLANE if number < 2 else HOST, f"entry {number}") for number in range(len(units))
    )
    assert {name for _, record in with_records(events) for name in record} == {"MESSAGE", "PRIORITY", "_SYSTEMD_UNIT"}


# --- The configuration


def test_regular_expressions_mean_the_same_to_both() -> None:
    """They keep to what Onigmo and Python read alike, so that the model's matches are Fluent Bit's."""
    text = fluentbit.FILE.read_text()
    outputs = [one["match_regex"] for one in CONFIG["pipeline"]["outputs"] if "match_regex" in one]
    rules = [step["rule"].split(" ")[1] for step in fluentbit.processors(CONFIG)]
    conditions = [step["condition"].split(" ")[2] for step in fluentbit.of_kind(CONFIG, "filters", "modify")]
    patterns = [*outputs, *rules, *conditions]

    assert len(patterns) == len(re.findall(r"match_regex:|rule:|condition:", text)) == 5
    for pattern in patterns:
        assert set(re.findall(r"\\.", pattern)) <= {r"\A", r"\s", r"\.", r"\{", r"\}", r"\\"}
        assert set(re.findall(r"\(\?.", pattern)) <= {"(?>", "(?!"}
        assert not re.search(r"[*+?}]\+", pattern)  # which is possessive to one of them, at times


def test_a_long_line_that_is_no_metric_is_looked_at_in_no_time() -> None:
    """No text makes the search go back and forth: one of 1 MB takes no longer than its length says."""
    (step,) = fluentbit.processors(CONFIG)
    pattern = step["rule"].split(" ")[1]
    for text in ('{"a":"' + "\\" * 1_000_000, "{" + '{"a":' * 200_000, "{" + '"a":[' * 200_000, "{" + " " * 1_000_000):
        assert not fluentbit.search(pattern, text)


def test_each_line_has_one_output() -> None:
    """Whatever a tag is, one output takes it: none would be a loss, two would cost double."""
    tags = [
        f"{prefix}{pod}_{namespace}_{container}-{'a' * 64}.log"
        for prefix in ("kube.var.log.containers.", "emf.kube.var.log.containers.")
        for pod in ("clients-api-1", "kube-system", "telemetry.a")
        for namespace in ("clients", "default", "kube-system", "telemetry", "telemetry2", "my-kube-system")
        for container in ("clients-api", "kube-system", "telemetry")
    ]
    units = ("kubelet.service", "containerd.service", "sshd.service", "unknown", "xkubelet.service", "kubelet_service")
    tags += [f"journal.{unit}" for unit in units]
    tags.append("counts")

    for tag in tags:
        taking = [one["alias"] for one in CONFIG["pipeline"]["outputs"] if fluentbit.matches(one, tag)]
        assert len(taking) == 1, (tag, taking)


def test_groups_are_terraforms() -> None:
    """Fluent Bit may make none, and one that it made would keep its events for ever."""
    made = re.findall(r'^    \w+ += "(/.+)"$', (ROOT / "terraform" / "logs.tf").read_text(), re.MULTILINE)
    outputs = fluentbit.of_kind(CONFIG, "outputs", "cloudwatch_logs")

    assert {one["log_group_name"] for one in outputs} <= {name.replace("${var.name}", "made-up") for name in made}
    assert {one["auto_create_group"] for one in outputs} == {False}


def test_an_outage_of_a_day_loses_nothing_that_fits_on_the_disk() -> None:
    """Each output tries for so long, has a bound, and all bounds together leave most of a node's disk."""
    service = CONFIG["service"]
    outputs = fluentbit.of_kind(CONFIG, "outputs", "cloudwatch_logs")
    seconds = (service["scheduler.base"] + service["scheduler.cap"]) / 2  # of a wait, on average
    gigabytes = {"M": 1 / 1024, "G": 1}
    bounds = [one["storage.total_limit_size"] for one in outputs]
    (disk,) = re.findall(r"volume_size += (\d+)", (ROOT / "terraform" / "nodes.tf").read_text())

    assert all(one["retry_limit"] * seconds > 24 * 3600 for one in outputs)
    assert sum(int(bound[:-1]) * gigabytes[bound[-1]] for bound in bounds) <= int(disk) / 5


# --- Its life


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
@either_way
def test_nothing_is_lost_when_it_is_ended(way: str, how: signal.Signals, request: pytest.FixtureRequest) -> None:
    """It is ended while CloudWatch is away and lines go on coming, and starts anew: each arrives.

    And once, where it was told to end. Where it was killed, what was on its way may arrive twice.
    """
    if way == "model":
        kept = [one for one in CONFIG["pipeline"]["inputs"] if one["name"] in ("tail", "systemd")]
        assert {one["storage.type"] for one in kept} == {"filesystem"}
        assert len({one["db"] for one in kept}) == len(kept) == 3
        # A filter's queue would be in memory alone.
        assert "rewrite_tag" not in [one["name"] for one in CONFIG["pipeline"]["filters"]]
        return
    real: Real = request.getfixturevalue("real")
    cloudwatch: CloudWatch = request.getfixturevalue("cloudwatch")
    all_logs = Logs()

    def say(rounds: range) -> None:
        for number in rounds:
            more = Logs()
            for pod in range(8):
                said = f'{{"number":{number},"pod":{pod}'
                more.say(f"clients-api-{pod}", "clients", "clients-api", f"{said}}}", f'{said},"_aws":{HEAD}}}')
            real.write(more)
            all_logs.containers |= {
                name: all_logs.containers.get(name, b"") + content for name, content in more.containers.items()
            }

    say(range(20))
    real.start()
    fluentbit.wait_until(lambda: len(cloudwatch.events()) == 20 * 8 * 2)
    cloudwatch.go_away()
    say(range(20, 60))
    fluentbit.wait_until(lambda: real.has_read(all_logs.containers))
    say(range(60, 80))
    real.stop(how)
    say(range(80, 100))
    cloudwatch.come_back()
    real.start()
    expected = Counter(event.comparable() for event in fluentbit.ship(real.config, all_logs))
    fluentbit.wait_until(lambda: {event.comparable() for event in cloudwatch.events()} >= expected.keys(), 60)
    assert real.stop() == 0
    got = Counter(event.comparable() for event in cloudwatch.events())

    assert got.keys() == expected.keys()
    twice = {int(re.findall(r'"number": ?(\d+)', event.message)[0]) for event in got - expected}
    assert twice <= (set(range(20, 80)) if how is signal.SIGKILL else set())


@either_way
def test_it_takes_its_configuration(way: str, request: pytest.FixtureRequest) -> None:
    """By its own check, and in a start without a word of error; the model has no option that it does not know."""
    if way == "model":
        assert fluentbit.unknown(CONFIG) == []
        return
    real: Real = request.getfixturevalue("real")
    logs = Logs()
    logs.say("app-1", "default", "app", "a line")
    real.write(logs)
    checked = real.check()
    real.start()
    fluentbit.wait_until(lambda: real.has_read(logs.containers))

    assert real.stop() == 0
    assert "configuration test is successful" in checked.stdout + checked.stderr
    assert [line for line in real.said.splitlines() if "[error]" in line] == []


@either_way
def test_it_counts_what_the_collector_asks_for(way: str, request: pytest.FixtureRequest) -> None:
    """Under the names that the collector lets pass, for each input and each output, as totals."""
    asked = {name for _, name, _ in adot.declared_metrics(adot.FILES[0]) if name.startswith("fluentbit_")}
    if way == "model":
        assert asked <= fluentbit.COUNTS.keys()
        return
    real: Real = request.getfixturevalue("real")
    counts: Counts = request.getfixturevalue("counts")
    logs = Logs()
    for namespace in ("clients", "default"):
        logs.say("app-1", namespace, "app", "a line")
        (name,) = [one for one in logs.containers if f"_{namespace}_" in one]
        logs.containers[name] += b"x" * 2_000_000 + b"\n"
    real.write(logs)
    real.start()

    def is_told() -> bool:
        return all(told <= counts.names.get(name, set()) for name, told in fluentbit.COUNTS.items())

    fluentbit.wait_until(is_told)
    assert real.stop() == 0
