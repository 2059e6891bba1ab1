"""The service's public name: a CNAME to the load balancer of its Service."""

from typing import Any, Final

from ops.deploy import balancer
from ops.deploy.common import CannotProceed, Outputs, aws, say, wait_for

_TTL_SECONDS: Final = 60  # how long callers may go on with a balancer that was replaced
_BALANCER_SECONDS: Final = 300.0
_SYNC_SECONDS: Final = 300.0

Record = dict[str, Any]


def point(outputs: Outputs, *, dry_run: bool = False) -> None:
    """Makes the name a CNAME of the Service's load balancer, and waits until all of Route 53 knows.

    Raises:
        CannotProceed: the cluster made no balancer in five minutes, or made two, or the name is of another kind.
    """
    found = wait_for("the load balancer", lambda: balancer.find(outputs), seconds=0 if dry_run else _BALANCER_SECONDS)
    record = {
        "Name": f"{outputs.hostname}.",
        "Type": "CNAME",
        "TTL": _TTL_SECONDS,
        "ResourceRecords": [{"Value": found.hostname}],
    }
    there = records(outputs)
    if record in there:
        say(f"{outputs.hostname} points to {found.hostname} already.")
        return
    if other := [one["Type"] for one in there if one["Type"] != "CNAME"]:
        kinds = ", ".join(other)
        raise CannotProceed(f"{outputs.hostname} has records of type {kinds}, beside which there can be no CNAME")
    say(f"{outputs.hostname} → {found.hostname}{', if this were no dry run' if dry_run else ''}")
    if not dry_run:
        change(outputs, "UPSERT", record)


def records(outputs: Outputs) -> list[Record]:
    """All of the name's records."""
    name = f"{outputs.hostname}."
    asked = {"HostedZoneId": outputs.zone_id, "StartRecordName": name, "MaxItems": "10"}  # in order, the name's first
    answer = aws("route53", outputs.region).list_resource_record_sets(**asked)
    return [record for record in answer["ResourceRecordSets"] if record["Name"] == name]


def change(outputs: Outputs, action: str, record: Record) -> None:
    """Changes the record and waits until all of Route 53 knows."""
    route53 = aws("route53", outputs.region)
    batch = {"Comment": "clients API", "Changes": [{"Action": action, "ResourceRecordSet": record}]}
    made = route53.change_resource_record_sets(HostedZoneId=outputs.zone_id, ChangeBatch=batch)["ChangeInfo"]["Id"]

    def known() -> bool | None:
        return route53.get_change(Id=made)["ChangeInfo"]["Status"] == "INSYNC" or None

    wait_for("Route 53", known, seconds=_SYNC_SECONDS)
