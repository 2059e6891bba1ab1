"""python -m ops dns: the service's public name, a CNAME to its load balancer."""

import itertools
from collections.abc import Callable

import pytest

from ops.deploy import dns
from ops.deploy.common import aws
from tests.ops.deploy.cloud import (
    HOSTNAME,
    Answer,
    Cloud,
    Run,
    answer_lost,
    refused,
    saying,
)

CHANGE = "ChangeResourceRecordSets"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_BALANCER_SECONDS", 0.3)
    monkeypatch.setattr(dns, "_SYNC_SECONDS", 0.3)


def test_the_name_becomes_a_cname_of_the_balancer(cloud: Cloud, run: Run) -> None:
    """Made where there was none, and said."""
    hostname = cloud.make_balancer("a1")

    done = run("dns")

    assert (0, f"{HOSTNAME} → {hostname}\n", "") == done
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_a_name_that_is_right_is_left_alone(cloud: Cloud, run: Run) -> None:
    """The second run says so, and asks for no change."""
    hostname = cloud.make_balancer("a1")
    run("dns")
    cloud.way.clear()

    assert run("dns") == (0, f"{HOSTNAME} points to {hostname} already.\n", "")
    assert CHANGE not in cloud.way.asked


def test_a_name_that_points_elsewhere_is_changed(cloud: Cloud, run: Run) -> None:
    """A balancer that was replaced: the record follows."""
    cloud.put("CNAME", "old.us-east-1.elb.amazonaws.com")
    hostname = cloud.make_balancer("a1")

    assert run("dns").status == 0
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_other_names_of_the_zone_are_not_touched(cloud: Cloud, run: Run) -> None:
    """Neither those before the name in Route 53's order nor those after it, nor those below it."""
    others = ["apples.olimac.link", "grapes.olimac.link", "www.olimac.link", f"below.{HOSTNAME}"]
    for name in others:
        cloud.put("CNAME", "elsewhere.example", name)
    hostname = cloud.make_balancer("a1")

    assert run("dns").status == 0
    there = {(name, "CNAME"): ["elsewhere.example"] for name in others}
    assert cloud.records() == {**there, (HOSTNAME, "CNAME"): [hostname]}


def test_an_address_in_the_way_is_refused(cloud: Cloud, run: Run) -> None:
    """Beside an A record there can be no CNAME; whose it is, people have to say."""
    cloud.put("A", "192.0.2.1")
    cloud.make_balancer("a1")

    done = run("dns")

    assert done.status == 1
    assert done.error == f"error: {HOSTNAME} has records of type A, beside which there can be no CNAME\n"
    assert cloud.records() == {(HOSTNAME, "A"): ["192.0.2.1"]}


def test_a_balancer_that_never_comes_is_given_up_on(cloud: Cloud, run: Run) -> None:
    """The wait is bounded, told of, and nothing is changed."""
    done = run("dns")

    assert done.status == 1
    assert done.said.startswith("Waiting for the load balancer (0 s of")
    assert "in vain for the load balancer; run this again" in done.error
    assert cloud.records() == {}


def test_a_balancer_that_comes_late_is_waited_for(cloud: Cloud, run: Run) -> None:
    """It is made while the command waits."""

    def appearing(ask: Callable[[], Answer]) -> Answer:
        cloud.make_balancer("late")
        return ask()

    cloud.way.at("DescribeLoadBalancers", [lambda ask: ask(), appearing])

    assert run("dns").status == 0
    assert cloud.records() == {(HOSTNAME, "CNAME"): ["late.us-east-1.elb.amazonaws.com"]}


def test_two_balancers_of_the_service_are_refused(cloud: Cloud, run: Run) -> None:
    """Both are named, since one of them is to be deleted."""
    cloud.make_balancer("a1")
    cloud.make_balancer("a2")

    done = run("dns")

    assert done.status == 1
    assert done.error == "error: 2 load balancers are tagged as the Service's (a1, a2): delete what is not\n"
    assert cloud.records() == {}


def test_balancers_of_others_are_ignored(cloud: Cloud, run: Run) -> None:
    """Another cluster's of the same Service, and another Service's of the same cluster."""
    cloud.make_balancer("others", cluster="other")
    cloud.make_balancer("neighbours", service="clients/other")
    hostname = cloud.make_balancer("ours")

    assert run("dns").status == 0
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_the_balancer_is_found_among_many(cloud: Cloud, run: Run) -> None:
    """AWS tells the tags of 20 at a time."""
    for number in range(44):
        cloud.make_balancer(f"other-{number:02}", cluster="other")
    hostname = cloud.make_balancer("zz-last")

    assert run("dns").status == 0
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}
    assert cloud.way.asked.count("DescribeTags") == 3


def test_a_balancer_that_goes_between_two_questions_is_no_failure(cloud: Cloud, run: Run) -> None:
    """Somebody's balancer was listed and is gone when its tags are asked for."""
    cloud.make_balancer("a1")
    cloud.way.at("DescribeTags", [refused("LoadBalancerNotFound")])

    assert run("dns").status == 0


def test_route_53_is_waited_for(cloud: Cloud, run: Run) -> None:
    """The command ends once all of Route 53's servers know."""
    cloud.make_balancer("a1")
    cloud.way.at("GetChange", [saying("INSYNC", "PENDING")] * 2)

    done = run("dns")

    assert done.status == 0
    assert "Waiting for Route 53" in done.said
    assert cloud.way.asked.count("GetChange") == 3


def test_a_route_53_that_is_never_in_sync_is_given_up_on(cloud: Cloud, run: Run) -> None:
    """The record is made; that it is not everywhere is said."""
    hostname = cloud.make_balancer("a1")
    cloud.way.at("GetChange", itertools.repeat(saying("INSYNC", "PENDING")))

    done = run("dns")

    assert done.status == 1
    assert "in vain for Route 53" in done.error
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_a_change_whose_answer_is_lost_is_made_again(cloud: Cloud, run: Run) -> None:
    """Setting a record twice is as good as once."""
    hostname = cloud.make_balancer("a1")
    cloud.way.at(CHANGE, [answer_lost])

    assert run("dns").status == 0
    assert cloud.records() == {(HOSTNAME, "CNAME"): [hostname]}
    assert cloud.way.asked.count(CHANGE) == 2


def test_a_zone_that_is_gone_is_said(cloud: Cloud, run: Run) -> None:
    """In AWS' words."""
    cloud.make_balancer("a1")
    aws("route53", "us-east-1").delete_hosted_zone(Id=cloud.outputs.zone_id)

    done = run("dns")

    assert done.status == 1
    assert done.error.startswith("error: AWS refused ListResourceRecordSets (NoSuchHostedZone)")
