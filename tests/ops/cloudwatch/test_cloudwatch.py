"""Dashboards and alarms cannot lie: each metric that they name is told of in a real run, and each panel has data."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from ops.cloudwatch import dashboard
from ops.cloudwatch.rows import Metric, load
from ops.oncall import dashboards
from ops.oncall.desk import Desk
from ops.oncall.machine import NAME
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import has_data
from ops.oncall.sources import Replay
from svc.logs import names
from tests.ops.adot import model as adot
from tests.ops.cloudwatch.recording import Run

ALARMS: Final = load(NAME)
WIDGETS: Final = dashboards.load({"name": NAME, "region": "local", "account": "000000000000"})

# What AWS tells of a PostgreSQL and of log groups, as far as it is used here, by the dimensions that are used here.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Logs-Monitoring-CloudWatch-Metrics.html
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
}


def read_by_alarms() -> set[Metric]:
    """All metrics that alarms look at."""
    return {metric for row in ALARMS.metric.values() for metric in row.metrics.values()}


def read_by_panels() -> set[Metric]:
    """All metrics that panels draw."""
    return {metric for widgets in WIDGETS.values() for widget in widgets for metric in dashboards.metrics_of(widget)}


@pytest.fixture(scope="module")
def told(recorded: Run) -> MetricStore:
    """The metrics of the run."""
    return recorded.metrics()


@pytest.fixture(scope="module")
def desk(recorded: Run) -> Iterator[Desk]:
    """What whoever is on call sees at the end of the run."""
    found = Desk(Replay(recorded.path))
    while found.step(0):
        pass
    yield found
    found.close()


def test_the_dashboards_are_those_that_are_made() -> None:
    """What is in the repository is what the code makes."""
    assert dashboard.main(["--check"]) == 0


def test_a_dashboard_that_is_not_up_to_date_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what mends it."""
    monkeypatch.setattr(dashboard, "DASHBOARDS", tmp_path)

    assert dashboard.main(["--check"]) == 1
    assert "service.json is not what dashboard.py makes: run python -m ops.cloudwatch.dashboard" in (
        capsys.readouterr().err
    )
    assert dashboard.main([]) == 0
    assert dashboard.main(["--check"]) == 0


def test_widgets_do_not_overlap() -> None:
    """And none reaches beyond the 24 columns."""
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
def test_each_metric_is_told_of_in_a_real_run(read: set[Metric], told: MetricStore) -> None:
    """By the service, or by this machine for what AWS has; with just these dimensions."""
    assert {metric.key for metric in read} - told.known() == set()


@pytest.mark.parametrize("read", [read_by_alarms(), read_by_panels()], ids=["alarms", "panels"])
def test_each_metric_is_one_that_its_source_has(read: set[Metric]) -> None:
    """The service's catalogue, what the collector declares, what AWS documents."""
    declared = set.union(*(adot.declared_metrics(file) for file in adot.FILES))
    for metric in read:
        dimensions = {name for name, _ in metric.dimensions}
        if metric.namespace == names.NAMESPACE:
            assert dimensions in map(set, names.METRICS[metric.name].dimensions)
        elif metric.namespace in AWS:
            assert dimensions == AWS[metric.namespace][0]
            assert metric.name in AWS[metric.namespace][1]
        else:
            assert (metric.namespace, metric.name, frozenset(dimensions)) in declared


def test_no_panel_is_without_data(desk: Desk) -> None:
    """In a run of a minute under load and faults: each line of each chart, and each table."""
    empty = [
        (name, panel["title"])
        for name in WIDGETS
        for panel in desk.view(name, 15, 0)["panels"]
        if not has_data(panel) or any(not any_value(line["values"]) for line in panel.get("lines", ()))
    ]

    assert empty == []


def any_value(values: list[float | None]) -> bool:
    return any(value is not None for value in values)


def test_each_metric_of_the_service_is_looked_at_somewhere() -> None:
    """A metric that no panel and no alarm reads would be paid for in vain."""
    read = {metric.name for metric in read_by_alarms() | read_by_panels() if metric.namespace == names.NAMESPACE}

    assert names.METRICS.keys() - read == set()


def test_each_alarm_is_in_sight_on_a_dashboard() -> None:
    """Those that call someone, once; windows are parts of them."""
    text = json.dumps([widget for widgets in WIDGETS.values() for widget in widgets if widget["type"] == "alarm"])
    calling = [name for name, row in ALARMS.metric.items() if row.severity != "part"] + list(ALARMS.composite)

    assert {name: text.count(f'alarm:{NAME}-{name}"') for name in calling} == dict.fromkeys(calling, 1)


def test_a_limit_in_a_panel_is_an_alarms() -> None:
    """Where a panel shows when an alarm fires, it is the alarm's threshold, and the panel shows its metric."""
    shown = [
        (limit, widget)
        for widgets in WIDGETS.values()
        for widget in widgets
        for limit in widget["properties"].get("annotations", {}).get("horizontal", ())
        if limit["label"].startswith("alarm ")
    ]

    assert len(shown) >= 12
    for limit, widget in shown:
        row = ALARMS.metric[limit["label"].removeprefix("alarm ")]
        assert limit["value"] == row.threshold
        assert {metric.key for metric in row.metrics.values()} <= {
            metric.key for metric in dashboards.metrics_of(widget)
        }
