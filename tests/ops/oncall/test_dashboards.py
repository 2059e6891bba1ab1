"""Dashboards: what their widgets say, and what they show."""

from pathlib import Path
from typing import Any

import pytest

from ops.cloudwatch.rows import Metric
from ops.oncall.dashboards import InvalidDashboard, lines_of, load, metrics_of
from ops.oncall.metrics import MetricStore
from ops.oncall.panels import Moment, Panel, Values, draw, has_data
from tests.ops.oncall.page import CLOUDWATCH

NOW = 1_795_600_000.0
VARIABLES = {"name": "clients", "region": "local", "account": "000000000000"}


def widget(*metrics: list[Any], **properties: Any) -> dict[str, Any]:
    """A widget with these metrics."""
    return {"type": "metric", "width": 6, "height": 6, "properties": {"metrics": metrics, **properties}}


def told(name: str, values: dict[int, float]) -> MetricStore:
    """A store with values so many seconds before now."""
    store = MetricStore()
    for before, value in sorted(values.items(), reverse=True):
        directive = {"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": name}]}
        timestamp = int(1000 * (NOW - before))
        store.add({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, name: value})
    return store


def drawn(of: dict[str, Any], store: MetricStore, minutes: int = 5, settled: float = 0.0) -> Panel:
    """What a widget shows now."""
    moment = Moment(NOW, minutes * 60, settled, "clients", lambda *_: {"columns": [], "rows": []})
    return draw(of, Values(store), moment)


def test_shorthand_is_written_out() -> None:
    """A dot repeats what is in its place in the row before, and three of them all that comes before the rest."""
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


def test_a_line_says_how_it_is_drawn() -> None:
    """A metric's own options come before the widget's, and CloudWatch's defaults are ours."""
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


def test_variables_are_filled_in_as_terraform_does() -> None:
    """${name} is the deployment's, and $${x} stays ${x}; the service's dashboard comes first."""
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
        '{"widgets": [], "start": "${nobody}"}',
    ],
)
def test_what_is_no_dashboard_is_refused(tmp_path: Path, body: str) -> None:
    """The file's name is in the refusal."""
    (tmp_path / "mine.json").write_text(body)

    with pytest.raises(InvalidDashboard, match=r"mine\.json"):
        load(VARIABLES, tmp_path)


def test_points_stay_where_they_are() -> None:
    """A chart has a point every 10 s, each of a whole period: what was drawn does not change as time goes on."""
    store = told("A", {5: 1.0, 65: 10.0, 125: 100.0})
    of = widget(["N", "A"], stat="Sum", period=60)

    panel = drawn(of, store)
    (line,) = panel["lines"]

    assert len(line["values"]) == len(panel["times"]) == 30
    assert panel["times"][-1] == 1000 * NOW
    assert line["values"][-1] == 1.0
    assert line["values"][-7] == 10.0
    assert line["values"][-13] == 100.0
    assert set(line["values"]) == {None, 1.0, 10.0, 100.0}


def test_expressions_take_each_other() -> None:
    """An expression may name another one; one that names what is not there says so instead of a chart."""
    store = told("A", {5: 3.0})
    metric = ["N", "A", {"id": "a", "visible": False}]

    half = widget(metric, [{"expression": "a / 2", "id": "b", "visible": False}], [{"expression": "b + 1"}], period=60)
    lost = widget(metric, [{"expression": "a / c"}])

    assert drawn(half, store)["lines"][0]["values"][-1] == 2.5
    assert drawn(lost, store)["problem"] == "There is no c for an expression to take"


def test_a_number_is_of_the_latest_period_or_of_its_own_time() -> None:
    """A number shows its metric's latest period; with setPeriodToTimeRange, that of the page, or of its own start."""
    store = told("A", {5: 1.0, 1000: 10.0, 4000: 100.0})
    number = {"view": "singleValue", "stat": "Sum", "period": 60}

    latest = drawn(widget(["N", "A"], **number), store)
    of_page = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True), store, minutes=60)
    of_hours = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True, start="-PT3H"), store)
    wrong = drawn(widget(["N", "A"], **number, setPeriodToTimeRange=True, start="yesterday"), store)

    assert [panel["lines"][0]["values"] for panel in (latest, of_page, of_hours)] == [[1.0], [11.0], [111.0]]
    assert wrong["problem"] == "yesterday is no time before now, such as -PT3H"


def test_a_widget_says_whether_it_has_data() -> None:
    """A chart without a single point has none; neither has a table without rows."""
    store = told("A", {5: 1.0})

    assert has_data(drawn(widget(["N", "A"]), store))
    assert not has_data(drawn(widget(["N", "B"]), store))
    assert has_data(drawn({"type": "text", "properties": {"markdown": "Hello"}}, store))
    assert not has_data(drawn({"type": "log", "properties": {"query": "limit 1"}}, store))
    assert not has_data(drawn({"type": "explorer", "properties": {}}, store))


def test_what_is_settled_is_looked_up_once() -> None:
    """A value of a time of which no more will be told is remembered, a newer one is not."""
    store = told("A", {5: 1.0, 125: 1.0})
    values = Values(store)
    ends = [NOW - 120, NOW]
    metric = Metric("N", "A", (), "Sum")
    assert values.at(metric, 60, ends, NOW - 60) == [1.0, 1.0]

    for name, before in (("A", 125), ("A", 5)):
        directive = {"Namespace": "N", "Dimensions": [[]], "Metrics": [{"Name": name}]}
        timestamp = int(1000 * (NOW - before))
        store.add({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, name: 1.0})

    assert values.at(metric, 60, ends, NOW - 60) == [1.0, 2.0]


def test_every_widget_of_the_deployment_can_be_drawn() -> None:
    """Its dashboards have no widget, statistic or expression that the page does not know."""
    problems = [
        panel["problem"]
        for widgets in load(VARIABLES).values()
        for panel in (drawn(dict(widget), MetricStore()) for widget in widgets)
        if "problem" in panel
    ]

    assert problems == []
