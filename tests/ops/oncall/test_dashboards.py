"""Dashboards: parsing their widgets, and the data that they show."""

from pathlib import Path
from typing import Any

import pytest

from ops.cloudwatch.rows import Metric
from ops.oncall.dashboards import InvalidDashboard, lines_of, load, metrics_of
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import Panel, TimeRange, Values, draw, has_data
from tests.ops.oncall.page import CLOUDWATCH

NOW = 1_795_600_000.0
VARIABLES = {"name": "clients", "region": "local", "account": "000000000000"}


def widget(*metrics: list[Any], **properties: Any) -> dict[str, Any]:
    """A widget with these metrics."""
    return {"type": "metric", "width": 6, "height": 6, "properties": {"metrics": metrics, **properties}}


def store_of(name: str, values: dict[int, float]) -> MetricStore:
    """A store with a metric's values, by their seconds before NOW."""
    store = MetricStore()
    for before, value in sorted(values.items(), reverse=True):
        directive = {"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": name}]}
        timestamp = int(1000 * (NOW - before))
        store.add({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, name: value})
    return store


def drawn(of: dict[str, Any], store: MetricStore, minutes: int = 5, settled: float = 0.0) -> Panel:
    """The panel of a widget at NOW."""
    shown = TimeRange(NOW - minutes * 60, NOW, settled, "clients", lambda *_: {"columns": [], "rows": []})
    return draw(of, Values(store), shown)


def test_shorthand_is_expanded() -> None:
    """A dot repeats the part at its place in the row before, and three dots all parts before the rest."""
    of = widget(
        ["N", "Latency", "Route", "/a", "Method", "GET", {"stat": "p99"}],
        [".", "Requests", ".", "/b", ".", "."],
        [{"expression": "m1 + 1", "id": "e1"}],
        ["...", "POST"],
        stat="Sum",
    )

    assert metrics_of(of) == [
        Metric("N", "Latency", (("Method", "GET"), ("Route", "/a")), "p99"),
        Metric("N", "Requests", (("Method", "GET"), ("Route", "/b")), "Sum"),
        Metric("N", "Requests", (("Method", "POST"), ("Route", "/b")), "Sum"),
    ]


def test_options_of_a_line_override_those_of_the_widget() -> None:
    """Options that are missing in both have CloudWatch's defaults."""
    own, plain = lines_of(
        widget(
            [
                "N",
                "A",
                {"id": "a", "label": "all", "period": 10, "visible": False, "yAxis": "right", "color": "#123456"},
            ],
            ["N", "B", "Pod", "one"],
        )
    )

    assert (own.id, own.label, own.period_seconds, own.is_visible) == ("a", "all", 10, False)
    assert (own.axis, own.color) == ("right", "#123456")
    assert (plain.label, plain.period_seconds, plain.is_visible, plain.axis) == ("B one", 300, True, "left")
    assert plain.of == Metric("N", "B", (("Pod", "one"),), "Average")


def test_variables_are_replaced_as_in_terraform() -> None:
    """${name} is the deployment's name, and $${x} becomes ${x}. The service's dashboard is first."""
    dashboards = load(VARIABLES, CLOUDWATCH / "dashboards")

    assert list(dashboards) == ["service", "platform"]
    text = dashboards["service"][0]["properties"]["markdown"]
    assert text.startswith("# clients here")
    assert "`${x}`" in text


@pytest.mark.parametrize(
    "body",
    [
        "nothing",
        "{}",
        '{"widgets": [{"type": "metric"}]}',
        '{"widgets": [{"type": "metric", "properties": {"metrics": [["N"]]}}]}',
        '{"widgets": [{"type": "metric", "properties": {"metrics": [["N", "A", "Pod"]]}}]}',
        '{"widgets": [{"type": "metric", "properties": {"metrics": [[".", "A"]]}}]}',
        '{"widgets": [], "start": "${unknown}"}',
    ],
)
def test_an_invalid_dashboard_is_refused(tmp_path: Path, body: str) -> None:
    """The error names the file."""
    (tmp_path / "mine.json").write_text(body)

    with pytest.raises(InvalidDashboard, match=r"mine\.json"):
        load(VARIABLES, tmp_path)


def test_points_keep_their_times() -> None:
    """A chart has a point every 10 s, each for a whole period, so that a drawn point does not change as time passes."""
    store = store_of("A", {5: 1.0, 65: 10.0, 125: 100.0})
    of = widget(["N", "A"], stat="Sum", period=60)

    panel = drawn(of, store)
    (line,) = panel["lines"]

    assert len(line["values"]) == len(panel["times"]) == 30
    assert panel["times"][-1] == 1000 * NOW
    assert line["values"][-1] == 1.0
    assert line["values"][-7] == 10.0
    assert line["values"][-13] == 100.0
    assert set(line["values"]) == {None, 1.0, 10.0, 100.0}


def test_a_chart_of_a_day_ago_has_coarser_points() -> None:
    """Samples of the last three hours are kept in detail, older ones for periods of 5 minutes."""
    store = store_of("A", {5: 1.0} | dict.fromkeys(range(86400, 86400 - 3600, -10), 1.0))
    of = widget(["N", "A"], stat="Sum", period=60)

    shown = TimeRange(NOW - 86400 + 600, NOW - 86400 + 1500, 0.0, "clients", lambda *_: {})
    (line,) = draw(of, Values(store), shown)["lines"]

    assert set(line["values"]) == {30.0}


def test_expressions_can_use_expressions() -> None:
    """A panel whose expression uses a line that does not exist shows an error."""
    store = store_of("A", {5: 3.0})
    metric = ["N", "A", {"id": "a", "visible": False}]

    half = widget(metric, [{"expression": "a / 2", "id": "b", "visible": False}], [{"expression": "b + 1"}], period=60)
    lost = widget(metric, [{"expression": "a / c"}])

    assert drawn(half, store)["lines"][0]["values"][-1] == 2.5
    assert drawn(lost, store)["problem"] == "an expression uses c, which does not exist"


def test_a_number_shows_the_latest_period_or_a_time_range() -> None:
    """With setPeriodToTimeRange, it shows the time range of the page, or the one from its own start."""
    store = store_of("A", {5: 1.0, 1000: 10.0, 4000: 100.0})
    number = {"view": "singleValue", "stat": "Sum", "period": 60}

    latest = drawn(widget(["N", "A"], **number), store)
    of_page = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True), store, minutes=60)
    of_hours = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True, start="-PT3H"), store)
    wrong = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True, start="yesterday"), store)

    assert [panel["lines"][0]["values"] for panel in (latest, of_page, of_hours)] == [[1.0], [11.0], [111.0]]
    assert wrong["problem"] == "yesterday is not a time before now, such as -PT3H"


def test_has_data_detects_empty_panels() -> None:
    """A chart without points and a table without rows have no data."""
    store = store_of("A", {5: 1.0})

    assert has_data(drawn(widget(["N", "A"]), store))
    assert not has_data(drawn(widget(["N", "B"]), store))
    assert has_data(drawn({"type": "text", "properties": {"markdown": "Hello"}}, store))
    assert not has_data(drawn({"type": "log", "properties": {"query": "limit 1"}}, store))
    assert not has_data(drawn({"type": "explorer", "properties": {}}, store))


def test_settled_values_are_cached() -> None:
    """A value that cannot change any more is computed once; a newer one is computed again."""
    store = store_of("A", {5: 1.0, 125: 1.0})
    values = Values(store)
    ends = [NOW - 120, NOW]
    metric = Metric("N", "A", (), "Sum")
    assert values.at(metric, 60, ends, NOW - 60) == [1.0, 1.0]

    for name, before in (("A", 125), ("A", 5)):
        directive = {"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": name}]}
        timestamp = int(1000 * (NOW - before))
        store.add({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, name: 1.0})

    assert values.at(metric, 60, ends, NOW - 60) == [1.0, 2.0]


def test_every_widget_of_the_deployment_is_supported() -> None:
    """Its types of widgets, its statistics and its expressions."""
    problems = [
        panel["problem"]
        for widgets in load(VARIABLES).values()
        for panel in (drawn(dict(widget), MetricStore()) for widget in widgets)
        if "problem" in panel
    ]

    assert problems == []
