"""What Terraform did not make, and would stumble over: the record, and the load balancer with its security group."""

from typing import Final

from botocore.exceptions import ClientError

from ops.deploy import balancer, dns
from ops.deploy.common import Outputs, aws, say, wait_for
from ops.deploy.kubernetes import Kubernetes, NoCluster

_GONE_SECONDS: Final = 300.0


def run(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Removes both, the record first, so that it never leads to what is not ours; what is gone is passed over."""
    _remove_record(outputs, dry_run=dry_run)
    _remove_balancer(outputs, dry_run=dry_run)


def _remove_record(outputs: Outputs, *, dry_run: bool) -> None:
    ours = [record for record in dns.records(outputs) if _leads_to_a_balancer(record)]
    if not ours:
        say(f"{outputs.hostname} leads to no load balancer: nothing to remove.")
    for record in ours:
        say(f"Removing {outputs.hostname}{', if this were no dry run' if dry_run else ''}")
        if not dry_run:
            dns.change(outputs, "DELETE", record)


def _leads_to_a_balancer(record: dns.Record) -> bool:
    # By its form, since the balancer itself may be gone: whatever else someone put there is not ours to remove.
    values = [one["Value"].rstrip(".") for one in record.get("ResourceRecords", [])]  # none of an alias
    return record["Type"] == "CNAME" and any(value.endswith(".elb.amazonaws.com") for value in values)


def _remove_balancer(outputs: Outputs, *, dry_run: bool) -> None:
    found = balancer.find(outputs)
    try:
        cluster = Kubernetes(outputs)
    except NoCluster:
        cluster = None
    if dry_run:
        say(f"Would remove {found.name if found else 'no load balancer, since there is none'}")
        return
    if cluster:
        # The cluster removes what it made; asked for even where there is no balancer, or it would make one later.
        say("Removing the Service")
        cluster.delete(balancer.NAMESPACE, "service", balancer.SERVICE, seconds=int(_GONE_SECONDS))
    elif found:
        say(f"There is no cluster to remove its load balancer {found.name}: removing it")
        aws("elb", outputs.region).delete_load_balancer(LoadBalancerName=found.name)
    wait_for("the load balancer to go", lambda: balancer.find(outputs) is None or None, seconds=_GONE_SECONDS)
    if cluster is None:
        _remove_security_groups(outputs)


def _remove_security_groups(outputs: Outputs) -> None:
    """Removes those of balancers that no cluster is there for; of one, maybe, that an earlier run has removed."""
    ec2 = aws("ec2", outputs.region)
    ours = [
        {"Name": "group-name", "Values": ["k8s-elb-*"]},  # as the cluster names them
        {"Name": f"tag:kubernetes.io/cluster/{outputs.name}", "Values": ["owned"]},
    ]
    for group in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]:

        def removed(group: str = group["GroupId"]) -> bool | None:
            try:
                ec2.delete_security_group(GroupId=group)
            except ClientError as error:
                if error.response["Error"]["Code"] == "DependencyViolation":
                    return None  # the balancer's interfaces take a minute to go
                raise
            return True

        say(f"Removing the security group {group['GroupName']}")
        wait_for("the balancer's security group to go", removed, seconds=_GONE_SECONDS)
