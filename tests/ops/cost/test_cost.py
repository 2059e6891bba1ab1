"""The bill: what it is made of, and that it follows what was measured and what is deployed."""

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ops.common.process import ROOT
from ops.cost import deployment, measure, model, report
from ops.cost.deployment import PRICES
from ops.cost.model import Bill, Design, Sample

# Resources of Terraform that cost nothing by themselves, or whose price depends on what they do.
FREE = {
    *("aws_budgets_budget", "aws_iam_policy", "aws_s3_bucket_lifecycle_configuration", "aws_s3_bucket_policy"),
    *("aws_s3_bucket_public_access_block", "aws_s3_bucket_server_side_encryption_configuration"),
    *("aws_cloudwatch_dashboard", "aws_cloudwatch_log_group", "aws_cloudwatch_log_metric_filter"),
    *("aws_cloudwatch_query_definition", "aws_db_parameter_group", "aws_db_subnet_group"),
    *("aws_default_security_group", "aws_eks_access_entry", "aws_eks_access_policy_association", "aws_eks_addon"),
    *("aws_eks_pod_identity_association", "aws_flow_log", "aws_iam_role", "aws_iam_role_policy"),
    *("aws_iam_role_policy_attachment", "aws_internet_gateway", "aws_kms_alias", "aws_launch_template", "aws_route"),
    *("aws_route_table", "aws_route_table_association", "aws_security_group", "aws_sns_topic"),
    *("aws_sns_topic_policy", "aws_sns_topic_subscription", "aws_subnet", "aws_vpc", "aws_vpc_peering_connection"),
    *("aws_scheduler_schedule",),  # the first 14 million messages of a month
    *("aws_vpc_peering_connection_options", "aws_vpc_security_group_ingress_rule"),
}
COUNTED = {  # with prices by other measures
    *("aws_cloudwatch_composite_alarm", "aws_cloudwatch_metric_alarm", "aws_db_instance", "aws_eip"),
    *("aws_eks_cluster", "aws_eks_node_group", "aws_nat_gateway", "aws_s3_bucket"),
}


def sample(rate: float, **values: float) -> Sample:
    return Sample(**{**{each.name: 0.0 for each in fields(Sample)}, "rate": rate, **values})


def design(*samples: Sample, **values: Any) -> Design:
    made = Design("this", "2026-11-29", failed=0, slow=0, metadata_bytes=0, series=0, compressed=0, samples=samples)
    return replace(made, **values)


@pytest.fixture(scope="module")
def deployed() -> deployment.Deployment:
    return deployment.read()


def bill(of: Design, rate: float, deployed: deployment.Deployment) -> Bill:
    return model.bill(of, rate, deployed)


def test_a_worker_lies_on_the_line_through_its_nearest_samples() -> None:
    """Between two rates and beyond the last, bytes grow in a straight line; they never fall below zero."""
    measured = design(sample(10, line_bytes=100), sample(100, line_bytes=1000), sample(1000, line_bytes=1900))

    found = {rate: measured.at(rate).line_bytes for rate in (0, 10, 55, 100, 550, 1000, 2000)}
    assert found == pytest.approx({0: 0, 10: 100, 55: 550, 100: 1000, 550: 1450, 1000: 1900, 2000: 2900})
    assert design(sample(10), sample(20, line_bytes=100)).at(1).line_bytes == 0


def test_a_gigabyte_of_lines_costs_what_the_prices_say(deployed: deployment.Deployment) -> None:
    """Each byte of a line, and of the metadata beside it, is ingested, kept and sent through NAT."""
    idle = bill(design(sample(0), sample(1000)), 200, deployed)
    per_second = 1e9 / model.MONTH_SECONDS  # in all pods together, a gigabyte a month
    lines = design(sample(0), sample(1000, line_bytes=5 * per_second / 2, lines=5 * per_second / 2), metadata_bytes=1)
    found = bill(lines, 200, deployed)

    assert found.parts["logs"] - idle.parts["logs"] == pytest.approx(PRICES["logs"]["ingested_gb"])
    assert found.parts["shipping"] - idle.parts["shipping"] == pytest.approx(PRICES["network"]["nat_gb"])
    assert found.total - idle.total == pytest.approx(found.telemetry - idle.telemetry)


def test_a_million_traces_cost_what_the_price_says(deployed: deployment.Deployment) -> None:
    """X-Ray bills traces, not spans."""
    traces = design(sample(0), sample(1000, traces=1000))

    found = bill(traces, 1e6 / model.MONTH_SECONDS, deployed)
    assert found.parts["traces"] == pytest.approx(PRICES["traces"]["recorded_million"])


def test_pods_do_not_multiply_metrics() -> None:
    """A metric counts once for each set of dimensions and their values, whatever else the documents have."""

    def document(route: str, pod: str) -> bytes:
        directive = {"Namespace": "N", "Dimensions": [[], ["Route"]], "Metrics": [{"Name": "A"}, {"Name": "B"}]}
        return json.dumps({"_aws": {"CloudWatchMetrics": [directive]}, "Route": route, "pod": pod}).encode()

    assert measure.series([document("/a", "1"), document("/a", "2"), b"a line"]) == 4
    assert measure.series([document("/a", "1"), document("/b", "2")]) == 6


def test_only_lines_of_requests_are_part_of_a_steady_load() -> None:
    """Start and stop are not; an access log is."""
    request, access = b'{"event":"request"}\n', b'"GET /get/1 HTTP/1.1" 200\n'
    written = b'{"event":"started"}\n' + request + b'{"_aws":{}}\n' + access

    assert measure.parted(written) == ([request, access], [b'{"_aws":{}}\n'])


def test_the_autoscalers_bounds_hold(deployed: deployment.Deployment) -> None:
    """Pods and nodes follow the CPU time between their bounds; what exceeds them is not served."""
    busy = design(sample(0), sample(1000, service_cpus=1))

    found = [bill(busy, rate, deployed) for rate in (1, 1000, 3000, 1e6)]
    assert [each.pods for each in found] == [2, 4, 10, 10]
    assert [each.nodes for each in found] == sorted(each.nodes for each in found)
    assert deployed.nodes[0] <= found[0].nodes
    assert found[-1].nodes <= deployed.nodes[1]
    assert [each.is_served for each in found] == [True, True, True, False]


def test_the_deployment_is_read_from_its_files(deployed: deployment.Deployment) -> None:
    """Figures that the shipped files have in plain sight are the ones that are read."""
    terraform = (ROOT / "terraform/variables.tf").read_text()
    alarms = (ROOT / "ops/cloudwatch/alarms.yaml").read_text()

    assert f'"{deployed.node_type}"' in terraform
    assert f"{{ least = {deployed.nodes[0]}, most = {deployed.nodes[1]} }}" in terraform
    assert f"minReplicas: {deployed.pods[0]}" in (ROOT / "k8s/base/horizontalpodautoscaler.yaml").read_text()
    assert deployed.nats == deployed.zones == 2
    assert deployed.alarm_metrics > len(re.findall("^  - name:", alarms, re.MULTILINE)) - deployed.composite_alarms


def test_everything_that_terraform_creates_has_a_price_or_is_free(deployed: deployment.Deployment) -> None:
    """A resource of a new type gets a price in prices.yaml, or is listed above."""
    assert set(deployed.resources) <= FREE | COUNTED | set(PRICES["resources"])
    assert deployed.node_type in PRICES["compute"]["nodes"]
    assert deployed.database_type in PRICES["database"]["types"]


def test_the_bill_of_every_line_is_what_it_was(deployed: deployment.Deployment) -> None:
    """Telemetry with a line for each request cost $2,084 a month at 1,000 requests a second, and $20,432 at 10,000."""
    every_line = model.load()["every-line"]

    assert bill(every_line, 1_000, deployed).telemetry == pytest.approx(2_084, rel=0.15)
    assert bill(every_line, 10_000, deployed).telemetry == pytest.approx(20_432, rel=0.15)


def test_the_page_has_the_bill_of_this_repository(deployed: deployment.Deployment) -> None:
    """docs/costs.md is up to date; `make cost ARGS="--saved --save --output docs/costs"` updates it."""
    bills = {name: [bill(each, rate, deployed) for rate in report.RATES] for name, each in model.load().items()}
    page = (ROOT / "docs/costs.md").read_text()

    for row in report.rows(bills):
        assert f"| {' | '.join(row)} |" in page


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    """A short run measures the service and the peer, and writes the table, the bills and the plot."""
    command = [
        sys.executable,
        "-m",
        "ops.cost",
        *"--rates 5 25 --warm-up 1 --seconds 2 --output".split(),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    bills = json.loads((tmp_path / "costs.json").read_text())

    assert re.search(r"^traces \* ", done.stdout, re.MULTILINE)
    assert list(bills) == list(report.TITLES)
    assert all(each["parts"]["metrics"] > 0 for each in bills["this"])
    assert all(each["parts"]["traces"] > 0 for each in bills["off-the-shelf"])  # which records all, unlike ours
    assert bills["off-the-shelf"][-1]["telemetry"] > bills["this"][-1]["telemetry"]
    assert {path.name for path in tmp_path.iterdir()} == {*("costs.json", "costs-light.svg", "costs-dark.svg")}
