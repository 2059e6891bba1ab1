"""Tests of the collector's configurations: that it accepts them, and how it converts traces and counters.

CI has no registry with the collector. So each claim is checked against a model of its source (tests/ops/adot/model.py)
and, on a machine that has the collector, against the collector, too.
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
from ops.common.process import ROOT
from ops.deploy.common import aws_client
from ops.rehearsal.aws import REGION
from svc.logs import names
from tests.conftest import Owner
from tests.ops.adot import model as adot
from tests.ops.adot.model import Config, Point, Total
from tests.ops.fluent_bit import model as fluentbit
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.postgres.locks import cancel_waiting
from tests.svc.telemetry.otlp import Collector, collecting

CLUSTER = "olimac"
TRACES = adot.read(adot.FILES[0])["exporters"]["awsxray"]
BINARY = next(filter(None, map(shutil.which, ("aws-otel-collector", "awscollector", "otelcol-contrib"))), None)
NEEDS_CLUSTER = re.compile("failed to initialize NodeCapacity|initialize kube client")
IMPLEMENTATIONS = ["model", *(["collector"] if BINARY else [])]

Document: TypeAlias = dict[str, Any]

each_file = pytest.mark.parametrize("file", adot.FILES, ids=lambda file: file.stem)
each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


# --- The collector itself


def run(file: Path, *more: str) -> "subprocess.Popen[str]":
    """Starts the collector outside a cluster, with the AWS endpoint that the environment names."""
    assert BINARY
    variables = {"CLUSTER": CLUSTER, "REGION": REGION, "NODE": "node-1", "RUN_IN_CONTAINER": "True"}
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}  # where nothing listens
    command = [BINARY, f"--config={file}", *(f"--config=yaml:{one}" for one in more)]
    return subprocess.Popen(
        command, env={**os.environ, **variables, **cluster}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@contextmanager
def running() -> Iterator[str]:
    """Runs the collector, and yields its OTLP address. At the end it has exported everything."""
    otlp, health = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = run(
        adot.FILES[0],
        "processors::k8s_attributes::auth_type: none",
        f"receivers::otlp::protocols::http::endpoint: {otlp}",
        f"receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:{free_port()}",
        f"extensions::health_check::endpoint: {health}",
        "service::telemetry::metrics: {level: none, readers: []}",
    )
    try:
        wait_until_healthy(process, health)
        yield otlp
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def wait_until_healthy(process: "subprocess.Popen[str]", health: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        with suppress(OSError), closing(http.client.HTTPConnection(health, timeout=PATIENCE_SECONDS)) as connection:
            connection.request("GET", "/")
            return
        time.sleep(0.05)


def post(address: str, path: str, body: bytes, sender: str = "127.0.0.1") -> None:
    with closing(
        http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS, source_address=(sender, 0))
    ) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
        assert connection.getresponse().status == 200


# --- Configurations


@each_implementation
@each_file
def test_the_collector_accepts_the_configuration(implementation: str, file: Path) -> None:
    """All component types are included, all keys are known, and all values are valid."""
    if implementation == "model":
        assert adot.errors(adot.read(file)) == []
    else:
        assert NEEDS_CLUSTER.search(output_of(file))


def output_of(file: Path) -> str:
    """The collector's output for a configuration, until it ends or needs a cluster."""
    process, output = run(file), ""
    assert process.stdout
    for line in process.stdout:
        output += line
        if NEEDS_CLUSTER.search(line):
            process.kill()
    process.wait()
    return output


MISTAKES = [
    ("batch::timeot", "1s", "processors.batch.timeot"),
    ("awsemf::dimension_rollup", "NoDimensionRollup", "exporters.awsemf.dimension_rollup"),
    ("memory_limiter::check_interval", "soon", "processors.memory_limiter.check_interval"),
    ("awsemf::request_timeout_seconds", "2s", "exporters.awsemf.request_timeout_seconds"),
    ("k8sattribute::passthrough", True, "processors.k8sattribute"),
]


@each_implementation
@pytest.mark.parametrize(("place", "value", "found"), MISTAKES, ids=[place for place, *_ in MISTAKES])
def test_a_mistake_is_found(implementation: str, place: str, value: object, found: str, tmp_path: Path) -> None:
    """The check above fails for a misspelt key, type or value."""
    component, key = place.split("::")
    config = adot.read(adot.FILES[1])
    config[found.partition(".")[0]].setdefault(component, {})[key] = value
    if implementation == "collector":
        file = tmp_path / "mistake.yaml"
        file.write_text(yaml.safe_dump(config))
        output = output_of(file)
        assert "failed to get config" in output
        assert found.rpartition(".")[2] in output
    else:
        assert [one for one in adot.errors(config) if one.startswith(found)] == adot.errors(config) != []


def test_old_component_names_are_rejected() -> None:
    """The collector still accepts some of them for now, with a warning at each start."""
    assert adot.errors({"processors": {"k8sattributes": {}}, "service": {}}) == ["processors.k8sattributes"]


@each_file
def test_all_defined_components_are_used(file: Path) -> None:
    """And all used components are defined."""
    config = adot.read(file)
    pipelines = config["service"]["pipelines"].values()
    used = {kind: {one for pipeline in pipelines for one in pipeline.get(kind, [])} for kind in adot.INCLUDED}
    used["extensions"] = set(config["service"]["extensions"])

    assert used == {kind: set(config[kind]) for kind in adot.INCLUDED}


@each_file
def test_each_pipeline_limits_memory_first_and_batches_last(file: Path) -> None:
    """Data is refused before it costs anything, and batches are made after everything else."""
    for pipeline in adot.read(file)["service"]["pipelines"].values():
        types = [adot.type_of(one) for one in pipeline["processors"]]
        assert (types[0], types[-1]) == ("memory_limiter", "batch")
        assert "batch" not in types[:-1]


def test_senders_are_identified_before_batches_are_made() -> None:
    """Both pipelines that receive from pods look up the pod, since a batch no longer has the connection's address."""
    for pipeline in adot.read(adot.FILES[0])["service"]["pipelines"].values():
        assert "k8s_attributes" in pipeline["processors"]


# --- Metrics


def test_only_declared_counters_pass() -> None:
    """Other metrics are neither stored nor paid for. Each counter has a unit that CloudWatch knows."""
    config = adot.read(adot.FILES[0])
    declared = {metric for _, metric, _ in adot.declared_metrics(adot.FILES[0])}
    others = (
        "fluentbit_uptime fluentbit_input_bytes_total fluentbit_output_proc_bytes_total fluentbit_output_retries "
        "otelcol_process_uptime otelcol_exporter_sent_metric_points otelcol_receiver_accepted_metric_points"
    ).split()

    assert {name for name in (*declared, *others) if adot.passes(config, name)} == declared
    assert {one["metric_name"] for one in config["exporters"]["awsemf"]["metric_descriptors"]} == declared


@each_file
def test_no_metric_is_for_one_pod_or_node(file: Path) -> None:
    """Each new pod or node would create new metrics. The values of dimensions are names that people chose."""
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


def test_pod_name_is_the_workloads_name() -> None:
    """The receiver's PodName has no suffix of a single pod, so its number of values is limited."""
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
    Total("127.0.0.3", "fluentbit_output_dropped_records_total", "collector", 10),
    Total("127.0.0.3", "fluentbit_output_dropped_records_total", "collector", 20),
    Total("127.0.0.3", "fluentbit_uptime", "cloudwatch", 1),
    Total("127.0.0.3", "fluentbit_uptime", "cloudwatch", 2),
]


@each_implementation
@pytest.mark.usefixtures("mock_aws")
def test_counts_of_all_senders_add_up(implementation: str) -> None:
    """Each sender's totals are converted to counts separately, and the first total is not counted.

    What Fluent Bit's output to the collector dropped is not counted: a roll-out of the collector loses nothing.
    """
    found = sorted(counted_by(implementation))
    in_cluster = frozenset({("ClusterName", CLUSTER)})

    assert {point[:4] for point in found} == {
        ("Telemetry", "fluentbit_output_dropped_records_total", "Count", in_cluster)
    }
    assert sum(point.value for point in found) == 2 + 3 + 7 + 1
    assert sorted(point.value for point in found) == [1, 2, 3, 7]


def counted_by(implementation: str) -> list[Point]:
    if implementation == "model":
        return list(adot.counts(adot.read(adot.FILES[0]), CLUSTER, TOTALS))
    logs, group = aws_client("logs", REGION), f"/{CLUSTER}/telemetry/metrics"
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
    """A total as Fluent Bit exports it."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=total.metric, unit="1")
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    point = metric.sum.data_points.add(as_double=total.total, time_unix_nano=int(at * 1e9))
    point.attributes.add(key="name").value.string_value = total.output
    return bytes(request.SerializeToString())


# --- Traces


@each_implementation
@pytest.mark.usefixtures("mock_aws")
async def test_a_trace_is_found_by_the_id_in_the_log(
    implementation: str, serve: Callable[..., Service], owner: Owner
) -> None:
    """The trace has the query, the outcome, the indexed attributes, and the group of its log lines."""
    collector, logged = await served(serve, owner)
    documents = await asyncio.to_thread(
        through, implementation, collector, [adot.xray_id(line[names.TRACE_ID]) for line in logged]
    )

    succeeded, unknown, failed = (
        [one for one in documents if one["trace_id"] == adot.xray_id(line[names.TRACE_ID])] for line in logged
    )
    request, query = succeeded
    assert (request["name"], request["annotations"]["http.route"]) == ("clients-api", "/get/{id}")
    assert request["annotations"]["otel.resource.service.version"] == "abc"
    assert (request["http"]["request"]["method"], request["http"]["response"]["status"]) == ("GET", 200)
    assert (query["type"], query["namespace"], query["parent_id"]) == ("subsegment", "remote", request["id"])
    assert (query["sql"]["database_type"], query["sql"]["url"]) == ("postgresql", "SELECT clients")
    assert "$1" in query["sql"]["sanitized_query"]
    assert request["http"]["request"]["url"].startswith("http://127.0.0.1:")
    assert request["http"]["request"]["url"].endswith("/get/1")
    assert [[one["fault"], one["error"]] for one in succeeded] == [[False, False]] * 2
    assert [[one["fault"], one["error"]] for one in unknown] == [[False, True]]
    assert [[one["fault"], one["error"]] for one in failed] == [[True, False]] * 2
    assert {one["annotations"]["error.type"] for one in failed} == {"QueryTimedOut"}
    for document in documents:
        assert document["aws"]["cloudwatch_logs"] == [{"log_group": f"/{CLUSTER}/clients-api/lines"}]
        assert document["aws"]["eks"].items() >= {"cluster_name": CLUSTER, "pod": "clients-api-1"}.items()


async def served(serve: Callable[..., Service], owner: Owner) -> tuple[Collector, list[lines.Record]]:
    """The spans and the log lines of three requests: one succeeds, one has an unknown path, and one fails."""
    with collecting("http/protobuf") as collector:
        service = serve(
            OTEL_TRACES_SAMPLER="always_on",
            TRACES_PER_SECOND="0",
            **collector.variables,
            OTEL_RESOURCE_ATTRIBUTES=f"k8s.pod.name=clients-api-1,k8s.cluster.name={CLUSTER}",
            BUILD="abc",
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
        )
        async with ClientSession() as session:
            statuses = [await status_of(session, f"{service.url}{path}") for path in ("/get/1", "/nowhere")]
            async with owner.transaction():
                await owner.execute("LOCK TABLE clients")
                failing = asyncio.create_task(status_of(session, f"{service.url}/get/1"))
                await cancel_waiting(owner)
                statuses.append(await failing)
        await collector.wait_for(3 + 2)  # of requests and of batches
        assert await asyncio.to_thread(service.stop) == 0
    assert statuses == [200, 404, 504]
    return collector, lines.requests(service.output)


async def status_of(session: ClientSession, url: str) -> int:
    async with session.get(url) as response:
        return response.status


def through(implementation: str, collector: Collector, ids: list[str]) -> list[Document]:
    """The documents that X-Ray stores for these traces, by start time."""
    config = {
        **TRACES,
        "aws_log_groups": [group.replace("${env:CLUSTER}", CLUSTER) for group in TRACES["aws_log_groups"]],
    }
    expected = [adot.segment(span, collector.resources[0], config) for span in collector.spans]
    xray = aws_client("xray", REGION)
    if implementation == "model":
        xray.put_trace_segments(TraceSegmentDocuments=[json.dumps(one) for one in expected])
    else:
        with running() as address:
            post(address, "/v1/traces", exported_spans(collector))
    traces = xray.batch_get_traces(TraceIds=ids)["Traces"]
    found = [json.loads(one["Document"]) for trace in traces for one in trace["Segments"]]
    for one, model in zip(sorted(found, key=by_id), sorted(expected, key=by_id), strict=True):
        assert_contains(one, model)
    return sorted(found, key=lambda one: (one["start_time"], "parent_id" in one))


def by_id(document: Document) -> str:
    found: str = document["id"]
    return found


def assert_contains(found: Any, expected: Any) -> None:
    """Asserts that a document contains all members of the expected one."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert_contains(found[name], value)
    else:
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def exported_spans(collector: Collector) -> bytes:
    """All spans that the service exported, as one request."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    for name, value in collector.resources[0].items():
        of_resource.resource.attributes.add(key=name).value.string_value = str(value)
    of_resource.scope_spans.add().spans.extend(collector.spans)
    return bytes(request.SerializeToString())


def test_the_output_whose_drops_are_not_counted_exists() -> None:
    """Its alias is the value of the attribute name, and it does not retry."""
    (output,) = fluentbit.of_kind(fluentbit.read(), "outputs", "opentelemetry")
    config, dropped = adot.read(adot.FILES[0]), "fluentbit_output_dropped_records_total"
    outputs = [one["alias"] for one in fluentbit.read()["pipeline"]["outputs"]]

    assert output["retry_limit"] == "no_retries"
    assert [one for one in outputs if not adot.passes(config, dropped, one)] == [output["alias"]]
    assert adot.passes(config, "fluentbit_output_retries_total", output["alias"])


def test_terraform_creates_all_log_groups_that_exporters_name() -> None:
    """These are the group of the service's lines, which traces name, and each metrics exporter's own."""
    logs = (ROOT / "terraform" / "logs.tf").read_text()
    created = {one.replace("${var.name}", "${env:CLUSTER}") for one in re.findall(r'= +"(/.*)"', logs)}
    named = [*TRACES["aws_log_groups"], *(exporter(file)["log_group_name"] for file in adot.FILES)]

    assert set(named) <= created
    assert len(set(named)) == 3


def exporter(file: Path) -> Config:
    found: Config = adot.read(file)["exporters"]["awsemf"]
    return found
