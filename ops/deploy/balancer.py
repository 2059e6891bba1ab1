"""The load balancer that the cluster made for the Service, found by the tags that it carries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ops.deploy.common import CannotProceed, Outputs, aws

NAMESPACE: Final = "clients"
SERVICE: Final = "clients-api"


@dataclass(frozen=True)
class Balancer:
    """A classic load balancer.

    Attributes:
        name: within the account and the region.
        hostname: its own, by which AWS knows it.
    """

    name: str
    hostname: str


def find(outputs: Outputs) -> Balancer | None:
    """The Service's, or None while there is none.

    Raises:
        CannotProceed: several say that they are its.
    """
    wanted = {f"kubernetes.io/cluster/{outputs.name}": "owned", "kubernetes.io/service-name": f"{NAMESPACE}/{SERVICE}"}
    elb = aws("elb", outputs.region)
    try:
        everyones = list(_all(elb))
    except elb.exceptions.AccessPointNotFoundException:  # one went after it was listed
        everyones = list(_all(elb))
    found = [balancer for balancer, tags in everyones if wanted.items() <= tags.items()]
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise CannotProceed(f"{len(found)} load balancers are tagged as the Service's ({names}): delete what is not")
    return found[0] if found else None


def _all(elb: Any) -> Iterator[tuple[Balancer, dict[str, str]]]:
    twenty = {"PageSize": 20}  # of as many, the tags are told at once
    for page in elb.get_paginator("describe_load_balancers").paginate(PaginationConfig=twenty):
        balancers = {
            one["LoadBalancerName"]: Balancer(one["LoadBalancerName"], one["DNSName"])
            for one in page["LoadBalancerDescriptions"]
        }
        if balancers:
            for told in elb.describe_tags(LoadBalancerNames=list(balancers))["TagDescriptions"]:
                yield balancers[told["LoadBalancerName"]], {tag["Key"]: tag["Value"] for tag in told["Tags"]}
