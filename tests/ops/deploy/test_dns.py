"""python -m ops dns: makes the service's public name a CNAME of its load balancer."""

import itertools
from collections.abc import Callable

import pytest

from ops.deploy import dns
from ops.deploy.common import aws_client
from tests.ops.deploy.fixtures import HOSTNAME, Account, Response, Run, error_response, replacing, response_lost

CHANGE = "ChangeResourceRecordSets"


def test_the_name_becomes_a_cname_of_the_load_balancer(account: Account, run: Run) -> None:
    """A missing record is created."""
    hostname = account.create_load_balancer("a1")

    assert run("dns") == (0, f"Pointing {HOSTNAME} to {hostname}\n", "")
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_a_correct_record_is_not_changed(account: Account, run: Run) -> None:
    """The second run reports so."""
    hostname = account.create_load_balancer("a1")
    run("dns")
    account.proxy.reset()

    assert run("dns") == (0, f"{HOSTNAME} already points to {hostname}.\n", "")
    assert CHANGE not in account.proxy.calls


def test_a_cname_of_another_load_balancer_is_changed(account: Account, run: Run) -> None:
    """After a load balancer was replaced, the record points to the new one."""
    account.create_record("CNAME", "old.us-east-1.elb.amazonaws.com")
    hostname = account.create_load_balancer("a1")

    assert run("dns").status == 0
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_other_names_of_the_zone_are_not_changed(account: Account, run: Run) -> None:
    """Neither those before the name in Route 53's order nor those after it, nor its subdomains."""
    others = ["apples.olimac.link", "grapes.olimac.link", "www.olimac.link", f"below.{HOSTNAME}"]
    for name in others:
        account.create_record("CNAME", "elsewhere.example", name)
    hostname = account.create_load_balancer("a1")

    assert run("dns").status == 0
    unchanged = {(name, "CNAME"): ["elsewhere.example"] for name in others}
    assert account.records() == {**unchanged, (HOSTNAME, "CNAME"): [hostname]}


def test_an_address_record_of_the_name_is_an_error(account: Account, run: Run) -> None:
    """A name with an A record cannot have a CNAME; only its owner can decide what to do."""
    account.create_record("A", "192.0.2.1")
    account.create_load_balancer("a1")

    result = run("dns")

    assert result.status == 1
    assert result.stderr == f"error: {HOSTNAME} has records of type A, so it cannot have a CNAME record\n"
    assert account.records() == {(HOSTNAME, "A"): ["192.0.2.1"]}


def test_the_wait_for_the_load_balancer_has_a_timeout(
    account: Account, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command reports that it waits, then fails, and changes nothing."""
    monkeypatch.setattr(dns, "_BALANCER_SECONDS", 0.3)

    result = run("dns")

    assert result.status == 1
    assert result.stdout.startswith("Waiting for the load balancer (0 s of at most")
    assert "timed out after 0 s waiting for the load balancer; run this again" in result.stderr
    assert account.records() == {}


def test_the_command_waits_for_the_load_balancer(account: Account, run: Run) -> None:
    """It is created while the command waits."""

    def appearing(forward: Callable[[], Response]) -> Response:
        account.create_load_balancer("late")
        return forward()

    account.proxy.inject("DescribeLoadBalancers", [lambda forward: forward(), appearing])

    assert run("dns").status == 0
    assert account.records() == {(HOSTNAME, "CNAME"): ["late.us-east-1.elb.amazonaws.com"]}


def test_two_load_balancers_of_the_service_are_an_error(account: Account, run: Run) -> None:
    """The message names both, since an operator has to delete one."""
    account.create_load_balancer("a1")
    account.create_load_balancer("a2")

    result = run("dns")

    assert result.status == 1
    assert result.stderr == ("error: 2 load balancers have the Service's tags (a1, a2): delete the wrong ones\n")
    assert account.records() == {}


def test_other_load_balancers_are_ignored(account: Account, run: Run) -> None:
    """One of the same Service in another cluster, and one of another Service in this cluster."""
    account.create_load_balancer("others", cluster="other")
    account.create_load_balancer("neighbours", service="clients/other")
    hostname = account.create_load_balancer("ours")

    assert run("dns").status == 0
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_the_load_balancer_is_found_among_many(account: Account, run: Run) -> None:
    """AWS returns the tags of at most 20 load balancers per call."""
    for number in range(44):
        account.create_load_balancer(f"other-{number:02}", cluster="other")
    hostname = account.create_load_balancer("zz-last")

    assert run("dns").status == 0
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}
    assert account.proxy.calls.count("DescribeTags") == 3


def test_a_load_balancer_that_is_deleted_between_two_calls_is_no_failure(account: Account, run: Run) -> None:
    """Some load balancer was listed, but does not exist any more when the command asks for its tags."""
    account.create_load_balancer("a1")
    account.proxy.inject("DescribeTags", [error_response("LoadBalancerNotFound")])

    assert run("dns").status == 0


def test_the_command_waits_for_route_53(account: Account, run: Run) -> None:
    """It ends when all Route 53 servers have the change."""
    account.create_load_balancer("a1")
    account.proxy.inject("GetChange", [replacing("INSYNC", "PENDING")] * 2)

    result = run("dns")

    assert result.status == 0
    assert "Waiting for Route 53" in result.stdout
    assert account.proxy.calls.count("GetChange") == 3


def test_the_wait_for_route_53_has_a_timeout(account: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record was changed; the command reports that it may not be everywhere yet."""
    monkeypatch.setattr(dns, "_SYNC_SECONDS", 0.3)
    hostname = account.create_load_balancer("a1")
    account.proxy.inject("GetChange", itertools.repeat(replacing("INSYNC", "PENDING")))

    result = run("dns")

    assert result.status == 1
    assert "timed out after 0 s waiting for Route 53" in result.stderr
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}


def test_a_change_whose_response_is_lost_is_repeated(account: Account, run: Run) -> None:
    """To set a record twice has the same effect as once."""
    hostname = account.create_load_balancer("a1")
    account.proxy.inject(CHANGE, [response_lost])

    assert run("dns").status == 0
    assert account.records() == {(HOSTNAME, "CNAME"): [hostname]}
    assert account.proxy.calls.count(CHANGE) == 2


def test_a_missing_zone_is_an_error(account: Account, run: Run) -> None:
    """The message is that of AWS."""
    account.create_load_balancer("a1")
    aws_client("route53", "us-east-1").delete_hosted_zone(Id=account.outputs.zone_id)

    result = run("dns")

    assert result.status == 1
    assert result.stderr.startswith("error: AWS refused ListResourceRecordSets (NoSuchHostedZone)")
