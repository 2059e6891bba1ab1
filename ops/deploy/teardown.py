"""Removes the DNS record and the load balancer, which Terraform did not create and which would block its destroy.

It also turns off the control plane's logs, because of what EKS would leave behind, and the protection of cluster and
database from deletion.
"""

from contextlib import suppress
from typing import Final

from botocore.exceptions import ClientError

from ops.deploy import cluster_logging, dns, load_balancer, protection
from ops.deploy.common import Outputs, aws_client, report, wait_for
from ops.deploy.kubernetes import Kubernetes, NoCluster

_REMOVAL_SECONDS: Final = 300.0


def run(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Removes the record, then the load balancer, and turns off logs and protection; skips what is already gone.

    The record goes first, so that it never points to a hostname that AWS may give to somebody else. The logs are turned
    off after what the cluster does, since until then they have it; the protection last, when nothing else can fail.
    """
    _remove_record(outputs, dry_run=dry_run)
    _remove_load_balancer(outputs, dry_run=dry_run)
    with suppress(NoCluster):
        cluster_logging.turn_off(outputs, dry_run=dry_run)
    protection.turn_off(outputs, dry_run=dry_run)


def _remove_record(outputs: Outputs, *, dry_run: bool) -> None:
    ours = [record for record in dns.list_records(outputs) if _points_to_load_balancer(record)]
    if not ours:
        report(f"{outputs.hostname} points to no load balancer: there is no record to remove.")
    for record in ours:
        report(f"{'Would remove' if dry_run else 'Removing'} the record {outputs.hostname}")
        if not dry_run:
            dns.change_record(outputs, "DELETE", record)


def _points_to_load_balancer(record: dns.Record) -> bool:
    # Checks the form of the name only: the load balancer itself may be gone. Any other record is not ours to remove.
    values = [one["Value"].rstrip(".") for one in record.get("ResourceRecords", [])]  # an alias has none
    return record["Type"] == "CNAME" and any(value.endswith(".elb.amazonaws.com") for value in values)


def _remove_load_balancer(outputs: Outputs, *, dry_run: bool) -> None:
    balancer = load_balancer.find(outputs)
    try:
        cluster = Kubernetes(outputs)
    except NoCluster:
        cluster = None
    if dry_run:
        report(
            f"Would remove the load balancer {balancer.name}" if balancer else "There is no load balancer to remove."
        )
        return
    if cluster:
        # The cluster then deletes its load balancer. Even without one, the Service must go: it would get one later.
        report("Removing the Service")
        cluster.delete(load_balancer.NAMESPACE, "service", load_balancer.SERVICE, timeout=int(_REMOVAL_SECONDS))
    elif balancer:
        report(f"The cluster is gone, but its load balancer {balancer.name} is not: removing it")
        aws_client("elb", outputs.region).delete_load_balancer(LoadBalancerName=balancer.name)
    wait_for(
        "the removal of the load balancer",
        lambda: load_balancer.find(outputs) is None or None,
        timeout=_REMOVAL_SECONDS,
    )
    if cluster is None:
        _remove_security_groups(outputs)


def _remove_security_groups(outputs: Outputs) -> None:
    """Removes the security groups that the cluster created for load balancers and can no longer remove itself.

    The load balancer of such a group may be gone already, removed by an earlier run.
    """
    ec2 = aws_client("ec2", outputs.region)
    ours = [
        {"Name": "group-name", "Values": ["k8s-elb-*"]},  # as the cluster names them
        {"Name": f"tag:kubernetes.io/cluster/{outputs.name}", "Values": ["owned"]},
    ]
    for group in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]:

        def is_removed(group: str = group["GroupId"]) -> bool | None:
            try:
                ec2.delete_security_group(GroupId=group)
            except ClientError as error:
                if error.response["Error"]["Code"] == "DependencyViolation":
                    return None  # the load balancer's network interfaces exist for another minute
                raise
            return True

        report(f"Removing the security group {group['GroupName']}")
        wait_for("the removal of the security group", is_removed, timeout=_REMOVAL_SECONDS)
