"""The service's public name: a CNAME record that points to the load balancer of the Service."""

from typing import Any, Final

from ops.deploy import load_balancer
from ops.deploy.common import CannotProceed, Outputs, aws_client, report, wait_for

_TTL_SECONDS: Final = 60  # how long clients may keep using a load balancer that was replaced
_BALANCER_SECONDS: Final = 300.0
_SYNC_SECONDS: Final = 300.0

Record = dict[str, Any]


def update_record(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Makes the name a CNAME of the Service's load balancer, and waits until Route 53 is in sync.

    Raises:
        CannotProceed: the cluster created no load balancer in five minutes, or created two, or the name has a record
            of another type.
    """
    timeout = 0 if dry_run else _BALANCER_SECONDS
    balancer = wait_for("the load balancer", lambda: load_balancer.find(outputs), timeout=timeout)
    record = {
        "Name": f"{outputs.hostname}.",
        "Type": "CNAME",
        "TTL": _TTL_SECONDS,
        "ResourceRecords": [{"Value": balancer.hostname}],
    }
    existing = list_records(outputs)
    if record in existing:
        report(f"{outputs.hostname} already points to {balancer.hostname}.")
        return
    if other := [one["Type"] for one in existing if one["Type"] != "CNAME"]:
        types = ", ".join(other)
        raise CannotProceed(f"{outputs.hostname} has records of type {types}, so it cannot have a CNAME record")
    report(f"{'Would point' if dry_run else 'Pointing'} {outputs.hostname} to {balancer.hostname}")
    if not dry_run:
        change_record(outputs, "UPSERT", record)


def list_records(outputs: Outputs) -> list[Record]:
    """Returns all records of the name."""
    name = f"{outputs.hostname}."
    # Route 53 lists in the order of names, so the records of this name come first.
    request = {"HostedZoneId": outputs.zone_id, "StartRecordName": name, "MaxItems": "10"}
    response = aws_client("route53", outputs.region).list_resource_record_sets(**request)
    return [record for record in response["ResourceRecordSets"] if record["Name"] == name]


def change_record(outputs: Outputs, action: str, record: Record) -> None:
    """Changes the record, and waits until all Route 53 servers have the change."""
    route53 = aws_client("route53", outputs.region)
    batch = {"Comment": "clients API", "Changes": [{"Action": action, "ResourceRecordSet": record}]}
    change = route53.change_resource_record_sets(HostedZoneId=outputs.zone_id, ChangeBatch=batch)["ChangeInfo"]["Id"]

    def is_in_sync() -> bool | None:
        return route53.get_change(Id=change)["ChangeInfo"]["Status"] == "INSYNC" or None

    wait_for("Route 53", is_in_sync, timeout=_SYNC_SECONDS)
