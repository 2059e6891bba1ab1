"""The collector's configurations: that it takes them, and what becomes of a trace and of a counter.

It is a program that no registry of CI's has. So each claim is checked against a model of what its source says
(tests/ops/adot/model.py) and, on a machine that has the collector itself, against that as well.
"""

import asyncio
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from aiohttp import ClientSession
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from ops.common.ports import free_port
from ops.common.process import ROOT, Service
from ops.deploy.common import aws
from ops.rehearsal.aws import REGION
from svc.logs import names
from tests.conftest import Owner
from tests.ops.adot import model as adot
from tests.ops.adot.model import Config, Point, Total
from tests.svc.logs import lines
from tests.svc.telemetry.otlp import Collector, collecting

CLUSTER = "olimac"
TRACES = adot.read(adot.FILES[0])["exporters"]["awsxray"]
BINARY = next(filter(None, map(shutil.which, ("aws-otel-collector", "awscollector", "otelcol-contrib"))), None)
WAYS = ["model", *(["collector"] if BINARY else [])]

Document: TypeAlias = dict[str, Any]

each_file = pytest.mark.parametrize("file", adot.FILES, ids=lambda file: file.stem)
either_way = pytest.mark.parametrize("way", WAYS)


# --- The collector itself


def run(file: Path, *more: str) -> "subprocess.Popen[str]":
    """The collector, outside a cluster, with AWS where the environment says."""
    assert BINARY
    known = {"CLUSTER": CLUSTER, "REGION": REGION, "NODE": "node-1", "RUN_IN_CONTAINER": "True"}
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}  # where nobody answers
    command = [BINARY, f"--config={file}", *(f"--config=yaml:{one}" for one in more)]
    return subprocess.Popen(
        command, env={**os.environ, **known, **cluster}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@contextmanager
def running() -> Iterator[str]:
    """Where it takes OTLP meanwhile; at the end it has sent all on."""
    taking, health = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = run(
        adot.FILES[0],
        "processors::k8s_attributes::auth_type: none",
        f"receivers::otlp::protocols::http::endpoint: {taking}",
        f"receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:{free_port()}",
        f"extensions::health_check::endpoint: {health}",
        "service::telemetry::metrics: {level: none, readers: []}",
    )
    try:
        wait_until_well(process, health)
        yield taking
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_until_well(process: "subprocess.Popen[str]", health: str) -> None:
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        with suppress(OSError), closing(http.client.HTTPConnection(health, timeout=1)) as connection:
            connection.request("GET", "/")
            return
        time.sleep(0.05)


def post(address: str, path: str, body: bytes, sender: str = "127.0.0.1") -> None:
    with closing(http.client.HTTPConnection(address, timeout=10, source_address=(sender, 0))) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
        assert connection.getresponse().status == 200


# --- Configurations


@either_way
@each_file
def test_the_collector_takes_it(way: str, file: Path) -> None:
    """It carries each type, knows each key, and each value is of the right kind."""
    if way == "model":
        assert adot.faults(adot.read(file)) == []
    else:
        assert re.search("failed to initialize NodeCapacity|initialize kube client", said_of(file))


def said_of(file: Path) -> str:
    """What the collector says of a configuration, until it comes to what only a cluster has."""
    process = run(file)
    try:
        return process.communicate(timeout=5)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


SLIPS = [
    ("batch::timeot", "1s", "processors.batch.timeot"),
    ("awsemf::dimension_rollup", "NoDimensionRollup", "exporters.awsemf.dimension_rollup"),
    ("memory_limiter::check_interval", "soon", "processors.memory_limiter.check_interval"),
    ("awsemf::request_timeout_seconds", "2s", "exporters.awsemf.request_timeout_seconds"),
    ("k8sattribute::passthrough", True, "processors.k8sattribute"),
]


@either_way
@pytest.mark.parametrize(("place", "value", "found"), SLIPS, ids=[place for place, *_ in SLIPS])
def test_a_slip_is_seen(way: str, place: str, value: object, found: str, tmp_path: Path) -> None:
    """The check above is no blank cheque."""
    component, key = place.split("::")
    config = adot.read(adot.FILES[1])
    config[found.partition(".")[0]].setdefault(component, {})[key] = value
    if way == "collector":
        file = tmp_path / "slip.yaml"
        file.write_text(yaml.safe_dump(config))
        said = said_of(file)
        assert "failed to get config" in said
        assert found.rpartition(".")[2] in said
    else:
        assert [one for one in adot.faults(config) if one.startswith(found)] == adot.faults(config) != []


def test_an_old_name_is_none() -> None:
    """The collector still understands some, for now, and says so each time."""
    assert adot.faults({"processors": {"k8sattributes": {}}, "service": {}}) == ["processors.k8sattributes"]


@each_file
def test_all_that_is_defined_is_used(file: Path) -> None:
    """And all that is used is defined."""
    config = adot.read(file)
    pipelines = config["service"]["pipelines"].values()
    used = {kind: {one for pipeline in pipelines for one in pipeline.get(kind, [])} for kind in adot.CARRIED}
    used["extensions"] = set(config["service"]["extensions"])

    assert used == {kind: set(config[kind]) for kind in adot.CARRIED}


@each_file
def test_each_pipeline_limits_memory_first_and_batches_last(file: Path) -> None:
    """What is refused has cost nothing yet; and what makes batches has nothing left to wait for."""
    for pipeline in adot.read(file)["service"]["pipelines"].values():
        types = [adot.type_of(one) for one in pipeline["processors"]]
        assert (types[0], types[-1]) == ("memory_limiter", "batch")
        assert "batch" not in types[:-1]


def test_what_is_known_of_a_connection_is_found_before_batches_forget_it() -> None:
    """Both pipelines that take from pods ask whose the connection is."""
    for pipeline in adot.read(adot.FILES[0])["service"]["pipelines"].values():
        assert "k8s_attributes" in pipeline["processors"]


# --- Metrics


def test_the_counters_that_pass_are_those_that_are_declared() -> None:
    """Whatever else senders have is neither stored nor paid for, and each has a unit that CloudWatch knows."""
    config = adot.read(adot.FILES[0])
    declared = {metric for _, metric, _ in adot.declared_metrics(adot.FILES[0])}
    others = (
        "fluentbit_uptime fluentbit_input_bytes_total fluentbit_output_proc_bytes_total fluentbit_output_retries "
        "otelcol_process_uptime otelcol_exporter_sent_metric_points otelcol_receiver_accepted_metric_points"
    ).split()

    assert {name for name in (*declared, *others) if adot.passes(config, name)} == declared
    assert {one["metric_name"] for one in config["exporters"]["awsemf"]["metric_descriptors"]} == declared


@each_file
def test_no_metric_is_of_one_pod_or_one_node(file: Path) -> None:
    """Each pod and node would make its own anew; a dimension's values are names that people gave."""
    declared = adot.declared_metrics(file)
    exporter = adot.read(file)["exporters"]["awsemf"]

    assert {dimension for *_, dimensions in declared for dimension in dimensions} <= {
        "ClusterName",
        "Namespace",
        "PodName",
        "Service",
    }
    assert all("ClusterName" in dimensions for *_, dimensions in declared)
    assert exporter["dimension_rollup_option"] == "NoDimensionRollup"
    assert exporter["resource_to_telemetry_conversion"] == {"enabled": True}


def test_the_workloads_name_is_the_pods() -> None:
    """The receiver's PodName has no hash of a pod's own, which would make it a dimension without end."""
    receiver = adot.read(adot.FILES[1])["receivers"]["awscontainerinsightreceiver"]

    assert receiver["prefer_full_pod_name"] is False
    assert "add_full_pod_name_metric_label" not in receiver


TOTALS = [
    Total("127.0.0.2", "fluentbit_output_dropped_records_total", "cloudwatch", 0),
    Total("127.0.0.3", "fluentbit_output_dropped_records_total", "cloudwatch", 100),
    Total("127.0.0.2", "fluentbit_output_dropped_records_total", "cloudwatch", 2),
    Total("127.0.0.2", "fluentbit_output_dropped_records_total", "metrics", 0),
    Total("127.0.0.3", "fluentbit_output_dropped_records_total", "cloudwatch", 101),
    Total("127.0.0.2", "fluentbit_output_dropped_records_total", "metrics", 7),
    Total("127.0.0.2", "fluentbit_output_dropped_records_total", "cloudwatch", 5),
    Total("127.0.0.3", "fluentbit_uptime", "cloudwatch", 1),
    Total("127.0.0.3", "fluentbit_uptime", "cloudwatch", 2),
]


@either_way
@pytest.mark.usefixtures("ground")
def test_counts_of_all_senders_add_up(way: str) -> None:
    """Each sender's totals become counts by themselves; one that has run for long is not counted anew."""
    found = sorted(counted_by(way))
    in_cluster = frozenset({("ClusterName", CLUSTER)})

    assert {point[:4] for point in found} == {
        ("Telemetry", "fluentbit_output_dropped_records_total", "Count", in_cluster)
    }
    assert sum(point.value for point in found) == 2 + 3 + 7 + 1
    assert sorted(point.value for point in found) == [1, 2, 3, 7]


def counted_by(way: str) -> list[Point]:
    if way == "model":
        return list(adot.counts(adot.read(adot.FILES[0]), CLUSTER, TOTALS))
    logs, group = aws("logs", REGION), f"/{CLUSTER}/telemetry/metrics"
    logs.create_log_group(logGroupName=group)
    with running() as address:
        for number, total in enumerate(TOTALS):
            post(address, "/v1/metrics", exported(total, at=time.time() - 60 + number), total.sender)
    found: list[Point] = []
    for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        for event in events["events"]:
            found += adot.points(json.loads(event["message"]))
    return found


def exported(total: Total, at: float) -> bytes:
    """A total as Fluent Bit sends it."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=total.metric, unit="1")
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    point = metric.sum.data_points.add(as_double=total.total, time_unix_nano=int(at * 1e9))
    point.attributes.add(key="name").value.string_value = total.output
    return bytes(request.SerializeToString())


# --- Traces


@either_way
@pytest.mark.usefixtures("ground")
async def test_a_trace_is_found_by_the_id_in_the_log(way: str, serve: Callable[..., Service], owner: Owner) -> None:
    """With its query, its outcome, what it is searched by, and the group that its log lines are in."""
    collector, told = await served(serve, owner)
    documents = await asyncio.to_thread(through, way, collector, [line[names.XRAY_TRACE_ID] for line in told])

    fine, unknown, failed = (
        [one for one in documents if one["trace_id"] == line[names.XRAY_TRACE_ID]] for line in told
    )
    request, query = fine
    assert (request["name"], request["annotations"]["http.route"]) == ("clients-api", "/get/{id}")
    assert request["annotations"]["otel.resource.service.version"] == "abc"
    assert (request["http"]["request"]["method"], request["http"]["response"]["status"]) == ("GET", 200)
    assert (query["type"], query["namespace"], query["parent_id"]) == ("subsegment", "remote", request["id"])
    assert (query["sql"]["database_type"], query["sql"]["url"]) == ("postgresql", "SELECT clients")
    assert "$1" in query["sql"]["sanitized_query"]
    assert [[one["fault"], one["error"]] for one in fine] == [[False, False]] * 2
    assert [[one["fault"], one["error"]] for one in unknown] == [[False, True]]
    assert [[one["fault"], one["error"]] for one in failed] == [[True, False]] * 2
    assert {one["annotations"]["error.type"] for one in failed} == {"QueryTimedOut"}
    for document in documents:
        assert document["aws"]["cloudwatch_logs"] == [{"log_group": f"/aws/containerinsights/{CLUSTER}/application"}]
        assert document["aws"]["eks"].items() >= {"cluster_name": CLUSTER, "pod": "clients-api-1"}.items()


async def served(serve: Callable[..., Service], owner: Owner) -> tuple[Collector, list[lines.Record]]:
    """What the service sends of three requests, and says of them: one is fine, one is lost, and one fails."""
    with collecting("http/protobuf") as collector:
        service = serve(
            OTEL_TRACES_SAMPLER="always_on",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_RESOURCE_ATTRIBUTES=f"k8s.pod.name=clients-api-1,k8s.cluster.name={CLUSTER}",
            BUILD="abc",
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
            DB_STATEMENT_SECONDS="0.2",
        )
        async with ClientSession() as session:
            statuses = [await status_of(session, f"{service.url}{path}") for path in ("/get/1", "/nowhere")]
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients")
                statuses.append(await status_of(session, f"{service.url}/get/1"))
        assert await asyncio.to_thread(service.stop) == 0
    assert statuses == [200, 404, 504]
    return collector, lines.requests(service.output)


async def status_of(session: ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


def through(way: str, collector: Collector, ids: list[str]) -> list[Document]:
    """What X-Ray has of these traces in the end, in order of their beginning."""
    config = {
        **TRACES,
        "aws_log_groups": [group.replace("${env:CLUSTER}", CLUSTER) for group in TRACES["aws_log_groups"]],
    }
    expected = [adot.segment(span, collector.resources[0], config) for span in collector.spans]
    xray = aws("xray", REGION)
    if way == "model":
        xray.put_trace_segments(TraceSegmentDocuments=[json.dumps(one) for one in expected])
    else:
        with running() as address:
            post(address, "/v1/traces", exported_spans(collector))
    traces = xray.batch_get_traces(TraceIds=ids)["Traces"]
    found = [json.loads(one["Document"]) for trace in traces for one in trace["Segments"]]
    for one, known in zip(sorted(found, key=by_id), sorted(expected, key=by_id), strict=True):
        assert_agrees(one, known)
    return sorted(found, key=lambda one: (one["start_time"], "parent_id" in one))


def by_id(document: Document) -> str:
    found: str = document["id"]
    return found


def assert_agrees(found: Any, known: Any) -> None:
    """Asserts that all that is known of a document is in the one that was found."""
    if isinstance(known, dict):
        for name, value in known.items():
            assert_agrees(found[name], value)
    else:
        assert found == (pytest.approx(known) if isinstance(known, float) else known)


def exported_spans(collector: Collector) -> bytes:
    """What the service sent, in one."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    for name, value in collector.resources[0].items():
        of_resource.resource.attributes.add(key=name).value.string_value = str(value)
    of_resource.scope_spans.add().spans.extend(collector.spans)
    return bytes(request.SerializeToString())


def test_the_group_that_traces_name_is_where_the_services_lines_go() -> None:
    """The one that Terraform makes, and each exporter's own."""
    logs = (ROOT / "terraform" / "logs.tf").read_text()
    made = {one.replace("${var.name}", "${env:CLUSTER}") for one in re.findall(r'= +"(/.*)"', logs)}
    named = [*TRACES["aws_log_groups"], *(exporter(file)["log_group_name"] for file in adot.FILES)]

    assert set(named) <= made
    assert len(set(named)) == 3


def exporter(file: Path) -> Config:
    found: Config = adot.read(file)["exporters"]["awsemf"]
    return found
