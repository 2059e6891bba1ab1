"""Finds the load balancer that the cluster created for the Service, by its tags."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ops.deploy.common import CannotProceed, Outputs, aws_client

NAMESPACE: Final = "clients"
SERVICE: Final = "clients-api"

_TAGS_PAGE_SIZE: Final = 20  # DescribeTags takes at most 20 load balancers


@dataclass(frozen=True)
class LoadBalancer:
    """A classic load balancer.

    Attributes:
        name: unique within the account and the region.
        hostname: the DNS name that AWS gave it.
    """

    name: str
    hostname: str


def find(outputs: Outputs) -> LoadBalancer | None:
    """Returns the Service's load balancer, or None if there is none.

    Raises:
        CannotProceed: several load balancers have the Service's tags.
    """
    expected = {
        f"kubernetes.io/cluster/{outputs.name}": "owned",
        "kubernetes.io/service-name": f"{NAMESPACE}/{SERVICE}",
    }
    elb = aws_client("elb", outputs.region)
    try:
        tagged = list(_with_tags(elb))
    except elb.exceptions.AccessPointNotFoundException:  # one was deleted between the two calls
        tagged = list(_with_tags(elb))
    found = [balancer for balancer, tags in tagged if expected.items() <= tags.items()]
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise CannotProceed(f"{len(found)} load balancers have the Service's tags ({names}): delete the wrong ones")
    return found[0] if found else None


def _with_tags(elb: Any) -> Iterator[tuple[LoadBalancer, dict[str, str]]]:
    paginator = elb.get_paginator("describe_load_balancers")
    for page in paginator.paginate(PaginationConfig={"PageSize": _TAGS_PAGE_SIZE}):
        balancers = {
            one["LoadBalancerName"]: LoadBalancer(one["LoadBalancerName"], one["DNSName"])
            for one in page["LoadBalancerDescriptions"]
        }
        if balancers:
            for described in elb.describe_tags(LoadBalancerNames=list(balancers))["TagDescriptions"]:
                tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
                yield balancers[described["LoadBalancerName"]], tags
