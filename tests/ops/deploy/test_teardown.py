"""python -m ops teardown: removes what Terraform did not create, before Terraform destroys the rest."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.deploy import teardown
from ops.deploy.common import aws_client
from ops.rehearsal import kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.tls import Address
from tests.ops.deploy.fixtures import (
    HOSTNAME,
    NAMESPACE,
    Account,
    MockAws,
    Run,
    error_response,
    names,
    namespaced,
    running_cluster,
)

NO_RECORD = f"{HOSTNAME} points to no load balancer: there is no record to remove.\n"
LOGS_OFF = "All control-plane logs of olimac are off.\n"
CLUSTER_OFF = "The protection of the cluster olimac from deletion is off.\n"
DATABASE_OFF = "The protection of the database olimac from deletion is off.\n"
ALL_OFF = LOGS_OFF + CLUSTER_OFF + DATABASE_OFF


class LoadBalancers:
    """A cloud provider that creates load balancers in the mock AWS, without a listener."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, _: Object, upstream: Callable[[], Address | None]) -> str:
        assert upstream() is None  # there is no pod
        return self._account.create_load_balancer("of-the-service")

    def delete(self, _: Object) -> None:
        aws_client("elb", "us-east-1").delete_load_balancer(LoadBalancerName="of-the-service")
        ec2 = aws_client("ec2", "us-east-1")
        ec2.delete_security_group(GroupName="k8s-elb-of-the-service")


@pytest.fixture(name="balancing_cluster")
def run_balancing_cluster(mock_aws: MockAws, account: Account, tmp_path: Path) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster that creates load balancers, with the Service."""
    controllers = Controllers({}, tmp_path / "pods", LoadBalancers(account))
    service = namespaced("Service", "clients-api", spec={"type": "LoadBalancer", "ports": [{"port": 443}]})
    with running_cluster(mock_aws, account, controllers.running, [NAMESPACE, service]) as cluster:
        yield cluster


def test_record_service_and_load_balancer_are_removed(
    balancing_cluster: kubernetes.Cluster, account: Account, run: Run
) -> None:
    """What `dns` and the cluster created is removed; other records stay."""
    account.create_record("CNAME", "elsewhere.example", "www.olimac.link")
    assert run("dns").status == 0
    assert account.load_balancers() == ["of-the-service"]

    result = run("teardown")

    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Removing the record {HOSTNAME}\nRemoving the Service\n")
    assert account.records() == {("www.olimac.link", "CNAME"): ["elsewhere.example"]}
    assert names(balancing_cluster.objects("services")) == []
    assert (account.load_balancers(), account.security_groups()) == ([], [])


def test_the_record_is_removed_first(balancing_cluster: kubernetes.Cluster, account: Account, run: Run) -> None:
    """Otherwise it could point to a hostname that AWS gives to somebody else. If that fails, nothing is removed."""
    run("dns")
    account.proxy.inject("ChangeResourceRecordSets", [error_response("AccessDenied", "not you", 403)])

    result = run("teardown")

    assert result == (
        1,
        f"Removing the record {HOSTNAME}\n",
        "error: AWS refused ChangeResourceRecordSets (AccessDenied): not you\n",
    )
    assert names(balancing_cluster.objects("services")) == ["clients-api"]
    assert account.load_balancers() == ["of-the-service"]


@pytest.mark.usefixtures("balancing_cluster")
def test_a_second_run_finds_nothing(run: Run) -> None:
    """The command reports so and succeeds."""
    assert run("teardown").status == 0

    assert run("teardown") == (0, f"{NO_RECORD}Removing the Service\n{ALL_OFF}", "")


@pytest.mark.usefixtures("cluster")
def test_an_empty_cluster_is_no_failure(account: Account, run: Run) -> None:
    """Nothing was deployed."""
    before = account.snapshot()

    assert run("teardown") == (0, f"{NO_RECORD}Removing the Service\n{ALL_OFF}", "")
    assert account.snapshot() == before


def test_a_missing_cluster_is_no_failure(account: Account, run: Run) -> None:
    """There is no record, no cluster and no load balancer."""
    account.remove_cluster()

    assert run("teardown") == (0, NO_RECORD + DATABASE_OFF, "")


def test_kubectl_is_not_needed_without_a_cluster(account: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command then only calls AWS."""
    account.create_load_balancer("orphan")
    account.remove_cluster()
    monkeypatch.setenv("PATH", "")

    assert run("teardown").status == 0
    assert account.load_balancers() == []


def test_an_orphaned_load_balancer_is_removed_with_its_security_group(account: Account, run: Run) -> None:
    """The cluster was deleted but not its load balancer; those of other clusters stay."""
    account.create_load_balancer("orphan")
    account.create_load_balancer("others", cluster="other")
    account.create_record("CNAME", "orphan.us-east-1.elb.amazonaws.com")
    account.remove_cluster()

    result = run("teardown")

    assert result.status == 0, result
    assert "The cluster is gone, but its load balancer orphan is not: removing it" in result.stdout
    assert account.records() == {}
    assert (account.load_balancers(), account.security_groups()) == (["others"], ["k8s-elb-others"])


def test_the_command_waits_for_a_security_group_in_use(account: Account, run: Run) -> None:
    """AWS deletes the network interfaces of a load balancer some time after it."""
    account.create_load_balancer("orphan")
    account.remove_cluster()
    account.proxy.inject("DeleteSecurityGroup", [error_response("DependencyViolation")] * 3)

    result = run("teardown")

    assert result.status == 0, result
    assert "Waiting for the removal of the security group" in result.stdout
    assert account.security_groups() == []


def test_a_security_group_that_an_earlier_run_left_is_removed(
    account: Account, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a timeout the load balancer is gone already; the next run finds the group by its tag."""
    monkeypatch.setattr(teardown, "_REMOVAL_SECONDS", 0.2)
    account.create_load_balancer("orphan")
    account.remove_cluster()
    account.proxy.inject("DeleteSecurityGroup", itertools.repeat(error_response("DependencyViolation")))
    first = run("teardown")
    account.proxy.reset()

    second = run("teardown")

    assert first.status == 1
    assert "waiting for the removal of the security group; run this again" in first.stderr
    assert second.status == 0
    assert (account.load_balancers(), account.security_groups()) == ([], [])


def test_a_denied_removal_of_a_security_group_is_an_error(account: Account, run: Run) -> None:
    """The command waits only after errors that are temporary."""
    account.create_load_balancer("orphan")
    account.remove_cluster()
    account.proxy.inject("DeleteSecurityGroup", [error_response("UnauthorizedOperation", "not you", 403)])

    result = run("teardown")

    assert (result.status, result.stderr) == (
        1,
        "error: AWS refused DeleteSecurityGroup (UnauthorizedOperation): not you\n",
    )


@pytest.mark.parametrize(
    "record",
    [
        {"Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": "elsewhere.example"}]},
        {"Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}]},
    ],
    ids=["another name", "an address"],
)
def test_a_record_that_points_elsewhere_stays(account: Account, run: Run, record: dict[str, Any]) -> None:
    """Somebody else created it."""
    account.create_record_set({"Name": HOSTNAME, **record})
    account.remove_cluster()

    assert run("teardown") == (0, NO_RECORD + DATABASE_OFF, "")
    assert list(account.records()) == [(HOSTNAME, record["Type"])]


def test_an_alias_record_stays(account: Account, run: Run) -> None:
    """An alias record has no values."""
    account.create_record("CNAME", "elsewhere.example", "www.olimac.link")
    target = {"HostedZoneId": account.outputs.zone_id, "DNSName": "www.olimac.link", "EvaluateTargetHealth": False}
    account.create_record_set({"Name": HOSTNAME, "Type": "CNAME", "AliasTarget": target})
    account.remove_cluster()

    assert run("teardown") == (0, NO_RECORD + DATABASE_OFF, "")
    assert (HOSTNAME, "CNAME") in account.records()


@pytest.mark.usefixtures("cluster")
def test_the_wait_for_the_removal_has_a_timeout(account: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster has no Service for this load balancer, so it does not remove it."""
    monkeypatch.setattr(teardown, "_REMOVAL_SECONDS", 0.5)
    account.create_load_balancer("stays")

    result = run("teardown")

    assert result.status == 1
    assert "waiting for the removal of the load balancer" in result.stderr
    assert account.load_balancers() == ["stays"]


def test_a_cluster_that_is_being_deleted_is_an_error(account: Account, run: Run) -> None:
    """It is unknown what the cluster still removes itself."""
    account.cluster.status = "DELETING"

    result = run("teardown")

    assert result.status == 1
    assert "the cluster olimac is DELETING" in result.stderr
