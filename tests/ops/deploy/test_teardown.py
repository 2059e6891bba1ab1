"""python -m ops teardown: what Terraform did not make goes before Terraform destroys the rest."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.deploy import teardown
from ops.deploy.common import aws
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.tls import Address
from tests.ops.deploy.cloud import (
    HOSTNAME,
    Cloud,
    Ground,
    Run,
    names,
    refused,
    standing_cluster,
)

NOTHING = f"{HOSTNAME} leads to no load balancer: nothing to remove.\n"


class Balancers:
    """What the cluster's cloud controller makes for a Service, without what listens."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def make(self, _: Object, behind: Callable[[], Address | None]) -> str:
        assert behind() is None  # there is no pod
        return self._cloud.make_balancer("of-the-service")

    def remove(self, _: Object) -> None:
        aws("elb", "us-east-1").delete_load_balancer(LoadBalancerName="of-the-service")
        ec2 = aws("ec2", "us-east-1")
        ec2.delete_security_group(GroupName="k8s-elb-of-the-service")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "_GONE_SECONDS", 5)


@pytest.fixture(name="balancing")
def make_balancing_cluster(ground: Ground, cloud: Cloud, tmp_path: Path) -> Iterator[kubernetes.Cluster]:
    """A cluster that makes load balancers, and has the Service."""
    controllers = Controllers("no image", tmp_path / "pods", Balancers(cloud))
    with standing_cluster(ground, cloud, controllers.acting) as cluster:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "clients-api", "namespace": "clients"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 443}]},
        }
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clients"}}
        for one in (namespace, service):
            Kubernetes(cloud.outputs).apply(one)
        yield cluster


def test_record_service_and_balancer_go(balancing: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """What `dns` and the cluster made is gone; others' records are there."""
    cloud.put("CNAME", "elsewhere.example", "www.olimac.link")
    assert run("dns").status == 0
    assert cloud.balancers() == ["of-the-service"]

    done = run("teardown")

    assert (done.status, done.error) == (0, "")
    assert done.said.startswith(f"Removing {HOSTNAME}\nRemoving the Service\n")
    assert cloud.records() == {("www.olimac.link", "CNAME"): ["elsewhere.example"]}
    assert names(balancing.objects("services")) == []
    assert (cloud.balancers(), cloud.security_groups()) == ([], [])


def test_the_record_goes_first(balancing: kubernetes.Cluster, cloud: Cloud, run: Run) -> None:
    """Or the name would lead to a balancer's name that anybody may get; where it cannot go, all stays."""
    run("dns")
    cloud.way.at("ChangeResourceRecordSets", [refused("AccessDenied", "not you", 403)])

    done = run("teardown")

    assert done == (
        1,
        f"Removing {HOSTNAME}\n",
        "error: AWS refused ChangeResourceRecordSets (AccessDenied): not you\n",
    )
    assert names(balancing.objects("services")) == ["clients-api"]
    assert cloud.balancers() == ["of-the-service"]


@pytest.mark.usefixtures("balancing")
def test_a_second_run_finds_nothing(run: Run) -> None:
    """It says so, and all is well."""
    assert run("teardown").status == 0

    assert run("teardown") == (0, f"{NOTHING}Removing the Service\n", "")


@pytest.mark.usefixtures("cluster")
def test_an_empty_cluster_is_no_failure(cloud: Cloud, run: Run) -> None:
    """Nothing was ever deployed."""
    before = cloud.everything()

    assert run("teardown") == (0, f"{NOTHING}Removing the Service\n", "")
    assert cloud.everything() == before


def test_nothing_at_all_is_no_failure(cloud: Cloud, run: Run) -> None:
    """No record, no cluster, no balancer."""
    cloud.remove_cluster()

    assert run("teardown") == (0, NOTHING, "")


def test_without_a_cluster_it_takes_no_kubectl(cloud: Cloud, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to speak to."""
    cloud.make_balancer("orphan")
    cloud.remove_cluster()
    monkeypatch.setenv("PATH", "")

    assert run("teardown").status == 0
    assert cloud.balancers() == []


def test_an_orphan_goes_with_its_security_group(cloud: Cloud, run: Run) -> None:
    """The cluster is gone and has left its balancer; other clusters' are not touched."""
    cloud.make_balancer("orphan")
    cloud.make_balancer("others", cluster="other")
    cloud.put("CNAME", "orphan.us-east-1.elb.amazonaws.com")
    cloud.remove_cluster()

    done = run("teardown")

    assert done.status == 0, done
    assert "There is no cluster to remove its load balancer orphan: removing it" in done.said
    assert cloud.records() == {}
    assert (cloud.balancers(), cloud.security_groups()) == (["others"], ["k8s-elb-others"])


def test_a_security_group_in_use_is_waited_for(cloud: Cloud, run: Run) -> None:
    """The balancer's network interfaces go some time after it."""
    cloud.make_balancer("orphan")
    cloud.remove_cluster()
    cloud.way.at("DeleteSecurityGroup", [refused("DependencyViolation")] * 3)

    done = run("teardown")

    assert done.status == 0, done
    assert "Waiting for the balancer's security group to go" in done.said
    assert cloud.security_groups() == []


def test_a_security_group_that_an_earlier_run_left_goes(
    cloud: Cloud, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waited in vain has removed the balancer already; the next one finds the group by its tag."""
    monkeypatch.setattr(teardown, "_GONE_SECONDS", 0.2)
    cloud.make_balancer("orphan")
    cloud.remove_cluster()
    cloud.way.at("DeleteSecurityGroup", itertools.repeat(refused("DependencyViolation")))
    first = run("teardown")
    cloud.way.clear()

    second = run("teardown")

    assert first.status == 1
    assert "in vain for the balancer's security group to go; run this again" in first.error
    assert second.status == 0
    assert (cloud.balancers(), cloud.security_groups()) == ([], [])


def test_a_security_group_that_may_not_be_removed_is_said(cloud: Cloud, run: Run) -> None:
    """Only what passes by itself is waited for."""
    cloud.make_balancer("orphan")
    cloud.remove_cluster()
    cloud.way.at("DeleteSecurityGroup", [refused("UnauthorizedOperation", "not you", 403)])

    done = run("teardown")

    assert (done.status, done.error) == (1, "error: AWS refused DeleteSecurityGroup (UnauthorizedOperation): not you\n")


@pytest.mark.parametrize(
    "record",
    [
        {"Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": "elsewhere.example"}]},
        {"Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}]},
    ],
    ids=["a name of others", "an address"],
)
def test_a_record_that_leads_elsewhere_stays(cloud: Cloud, run: Run, record: dict[str, Any]) -> None:
    """Somebody else made it."""
    cloud.put_record({"Name": HOSTNAME, **record})
    cloud.remove_cluster()

    assert run("teardown") == (0, NOTHING, "")
    assert list(cloud.records()) == [(HOSTNAME, record["Type"])]


def test_an_alias_that_leads_elsewhere_stays(cloud: Cloud, run: Run) -> None:
    """Such a record has no values of its own."""
    cloud.put("CNAME", "elsewhere.example", "www.olimac.link")
    target = {"HostedZoneId": cloud.outputs.zone_id, "DNSName": "www.olimac.link", "EvaluateTargetHealth": False}
    cloud.put_record({"Name": HOSTNAME, "Type": "CNAME", "AliasTarget": target})
    cloud.remove_cluster()

    assert run("teardown") == (0, NOTHING, "")
    assert (HOSTNAME, "CNAME") in cloud.records()


@pytest.mark.usefixtures("cluster")
def test_a_balancer_that_does_not_go_is_given_up_on(cloud: Cloud, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster has no Service that it would be of, so nobody removes it."""
    monkeypatch.setattr(teardown, "_GONE_SECONDS", 0.5)
    cloud.make_balancer("stays")

    done = run("teardown")

    assert done.status == 1
    assert "in vain for the load balancer to go" in done.error
    assert cloud.balancers() == ["stays"]


def test_a_cluster_that_is_going_is_said(cloud: Cloud, run: Run) -> None:
    """While EKS deletes it, nobody can tell what it still removes itself."""
    cloud.cluster.status = "DELETING"

    done = run("teardown")

    assert done.status == 1
    assert "the cluster olimac is DELETING" in done.error
