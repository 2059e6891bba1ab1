"""A timeline computes when callers were served and how long they waited."""

import pytest

from ops.drills.timeline import FAILED, REFUSED, SERVED, Request, Timeline


def test_a_timeline_computes_its_figures() -> None:
    """An example of each figure."""
    timeline = Timeline(
        [
            Request(0.0, 0.1, "200"),
            Request(1.0, 0.3, "201"),
            Request(1.0, 2.0, "503"),
            Request(2.0, 1.5, "ServerDisconnectedError"),
            Request(3.0, 1.0, "504"),
            Request(4.5, 0.5, "200"),
        ]
    )

    assert [timeline.count(kind) for kind in (SERVED, REFUSED, FAILED)] == [3, 2, 1]
    assert timeline.count(REFUSED, 0, 3) == 1
    assert timeline.not_served() == 3
    assert timeline.outcomes() == {"200": 2, "201": 1, "503": 1, "504": 1, "ServerDisconnectedError": 1}
    assert timeline.first_served_after(2) == 3
    assert timeline.first_served_after(6) == float("inf")
    assert timeline.last_not_served_after(2) == 2
    assert timeline.last_not_served_after(4) == 0
    assert timeline.longest_wait() == 2
    assert timeline.longest_outage() == pytest.approx(5 - 1.3)
    assert timeline.percentile(50, 0, 5) == 1
    assert timeline.percentile(100, 0, 5) == 2
    assert timeline.percentile(50, 9, 10) == 0
    assert [len(each) for each in timeline.bins(1)] == [1, 1, 0, 2, 1, 1]


@pytest.mark.parametrize(
    ("requests", "seconds"),
    [
        ([], 0),
        ([Request(0, 0.1, "200"), Request(9, 0.2, "200")], 0.2),
        ([Request(0, 0.1, "503"), Request(9, 0.2, "503")], 9.2),
    ],
    ids=["no requests", "served", "refused"],
)
def test_an_outage_starts_when_a_request_waits(requests: list[Request], seconds: float) -> None:
    """A period without requests is no outage, unless the request before it was not served."""
    assert Timeline(requests).longest_outage() == pytest.approx(seconds)


def test_a_mark_is_recorded_and_reported() -> None:
    """The hook is called with the time and the text of each mark."""
    reported: list[tuple[float, str]] = []
    timeline = Timeline(on_mark=lambda at, text: reported.append((at, text)))
    at = timeline.mark("done")

    assert reported == timeline.marks == [(at, "done")]
