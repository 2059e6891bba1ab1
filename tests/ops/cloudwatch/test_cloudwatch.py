"""The dashboards and alarms: a real run reports each metric that they read, and each panel has data."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from ops.cloudwatch import dashboard
from ops.cloudwatch.rows import Metric, load
from ops.oncall import dashboards
from ops.oncall.machine import NAME
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import has_data
from ops.oncall.sources import Replay
from ops.oncall.state import OnCallState
from svc.logs import names
from tests.ops.adot import model as adot
from tests.ops.cloudwatch.recording import Run

ALARMS: Final = load(NAME)
WIDGETS: Final = dashboards.load({"name": NAME, "region": "local", "account": "000000000000"})

# The metrics of PostgreSQL instances, log groups, load balancers, checks of names and certificates that are used here,
# with their dimensions.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Logs-Monitoring-CloudWatch-Metrics.html
# https://docs.aws.amazon.com/elasticloadbalancing/latest/classic/elb-cloudwatch-metrics.html
# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/monitoring-health-checks.html
# https://docs.aws.amazon.com/acm/latest/userguide/cloudwatch-metrics.html
AWS: Final = {
    "AWS/RDS": (
        {"DBInstanceIdentifier"},
        {
            "CPUUtilization",
            "DBLoad",
            "DatabaseConnections",
            "FreeStorageSpace",
            "FreeableMemory",
            "MaximumUsedTransactionIDs",
            "ReadLatency",
            "WriteLatency",
        },
    ),
    "AWS/Logs": ({"LogGroupName"}, {"EMFParsingErrors", "EMFValidationErrors"}),
    "AWS/ELB": ({"LoadBalancerName"}, {"HTTPCode_ELB_5XX", "BackendConnectionErrors", "UnHealthyHostCount"}),
    "AWS/Route53": ({"HealthCheckId"}, {"HealthCheckStatus"}),
    "AWS/CertificateManager": ({"CertificateArn"}, {"DaysToExpiry"}),
}
NOT_HERE: Final = {"AWS/CertificateManager"}  # a service on loopback has no certificate


def read_by_alarms() -> set[Metric]:
    """The metrics that alarms evaluate."""
    return {metric for row in ALARMS.metric.values() for metric in row.metrics.values()}


def read_by_panels() -> set[Metric]:
    """The metrics that panels show."""
    return {metric for widgets in WIDGETS.values() for widget in widgets for metric in dashboards.metrics_of(widget)}


@pytest.fixture(scope="module")
def reported(busy_run: Run) -> MetricStore:
    """The metrics of the busy run."""
    return busy_run.metrics()


@pytest.fixture(scope="module")
def on_call(busy_run: Run) -> Iterator[OnCallState]:
    """The state of the on-call page at the end of the busy run."""
    state = OnCallState(Replay(busy_run.path))
    while state.step(0):
        pass
    yield state
    state.close()


def test_the_dashboards_are_up_to_date() -> None:
    """The dashboards in the repository are those that the code generates."""
    assert dashboard.main(["--check"]) == 0


def test_a_dashboard_that_is_out_of_date_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check names the dashboard and the command that updates it, and passes after the update."""
    monkeypatch.setattr(dashboard, "DASHBOARDS", tmp_path)

    assert dashboard.main(["--check"]) == 1
    assert "service.json is out of date: run make dashboards" in capsys.readouterr().err
    assert dashboard.main([]) == 0
    assert dashboard.main(["--check"]) == 0


def test_widgets_do_not_overlap() -> None:
    """No widgets overlap, and none exceeds the 24 columns."""
    for widgets in WIDGETS.values():
        taken: set[tuple[int, int]] = set()
        for widget in widgets:
            xs, ys = (
                range(widget["x"], widget["x"] + widget["width"]),
                range(widget["y"], widget["y"] + widget["height"]),
            )
            cells = {(x, y) for x in xs for y in ys}
            assert xs.stop <= 24
            assert not cells & taken
            taken |= cells


@pytest.mark.parametrize("read", [read_by_alarms(), read_by_panels()], ids=["alarms", "panels"])
def test_each_metric_is_reported_in_a_real_run(read: set[Metric], reported: MetricStore) -> None:
    """The service reports each of its metrics with these dimensions; this machine reports those of AWS."""
    assert {metric.key for metric in read if metric.namespace not in NOT_HERE} - reported.keys() == set()


@pytest.mark.parametrize("read", [read_by_alarms(), read_by_panels()], ids=["alarms", "panels"])
def test_each_metric_is_declared_by_its_source(read: set[Metric]) -> None:
    """Each metric is in the service's catalogue, the collector's configuration or AWS's documentation."""
    declared = set.union(*(adot.declared_metrics(file) for file in adot.FILES))
    for metric in read:
        dimensions = {name for name, _ in metric.dimensions} | ({metric.over} if metric.over else set())
        if metric.namespace == names.NAMESPACE:
            assert dimensions in map(set, names.METRICS[metric.name].dimensions)
        elif metric.namespace in AWS:
            assert dimensions == AWS[metric.namespace][0]
            assert metric.name in AWS[metric.namespace][1]
        else:
            assert (metric.namespace, metric.name, frozenset(dimensions)) in declared


def test_each_panel_has_data(on_call: OnCallState) -> None:
    """Each line of each chart, and each table, has data after a run under load and with faults."""
    empty = [
        (name, panel["title"])
        for name in WIDGETS
        for panel in on_call.view(name, on_call.now(0) - 900, on_call.now(0), 0)["panels"]
        if NOT_HERE.isdisjoint(reads.split()[0] for reads in panel.get("reads", ()))
        if not has_data(panel) or any(set(line["values"]) == {None} for line in panel.get("lines", ()))
    ]

    assert empty == []


def test_dashboards_that_stay_open_read_no_logs() -> None:
    """A log widget reads all lines of its dashboard's time range at each refresh, and is paid by the gigabyte."""
    reading = {name for name, widgets in WIDGETS.items() for widget in widgets if widget["type"] == "log"}
    body = json.loads((dashboard.DASHBOARDS / "requests.json").read_text())

    assert reading == {"requests"}
    assert body["start"] == "-PT1H"


def test_each_metric_of_the_service_is_used() -> None:
    """A panel or an alarm reads each metric of the service; an unused metric would only cost money."""
    read = {metric.name for metric in read_by_alarms() | read_by_panels() if metric.namespace == names.NAMESPACE}

    assert names.METRICS.keys() - read == set()


def test_each_alarm_is_on_a_dashboard_once() -> None:
    """Each alarm that notifies someone is in one widget; parts of composite alarms are in none."""
    text = json.dumps([widget for widgets in WIDGETS.values() for widget in widgets if widget["type"] == "alarm"])
    notifying = [row.name for row in ALARMS.notifying]

    assert {name: text.count(f'alarm:{NAME}-{name}"') for name in notifying} == dict.fromkeys(notifying, 1)


def test_a_limit_in_a_panel_is_the_threshold_of_its_alarm() -> None:
    """A panel with the limit of an alarm shows that alarm's threshold and its metrics."""
    shown = [
        (limit, widget)
        for widgets in WIDGETS.values()
        for widget in widgets
        for limit in widget["properties"].get("annotations", {}).get("horizontal", ())
        if limit["label"].startswith("alarm ")
    ]

    assert len(shown) >= 12
    for limit, widget in shown:
        name, _, windows = limit["label"].removeprefix("alarm ").partition(": ")
        metrics: Mapping[str, Metric]
        if windows:
            metrics = ALARMS.burn_rates[name].objective.metrics
            assert limit["value"] in {rate.burn for rate in ALARMS.burn_rates[name].rates.values()}
        else:
            row = ALARMS.metric.get(name) or ALARMS.metric[f"{name}-measured"]
            metrics = row.metrics
            assert limit["value"] == row.threshold
        assert {metric.key for metric in metrics.values()} <= {metric.key for metric in dashboards.metrics_of(widget)}
