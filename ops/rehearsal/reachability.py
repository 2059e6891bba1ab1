"""Which subnet can connect to which, computed from the routes and rules that exist in AWS, not from their source."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any


@dataclass(frozen=True)
class Subnet:
    """A subnet.

    Attributes:
        id: of the subnet.
        vpc: the id of its VPC.
        range: its addresses.
    """

    id: str
    vpc: str
    range: IPv4Network


class Unsupported(Exception):
    """There is a rule that this module cannot evaluate, so it cannot tell who gets access."""


class Network:
    """All VPCs of a region, as EC2 describes them."""

    def __init__(self, ec2: Any) -> None:
        """Reads all networks from EC2.

        Args:
            ec2: a boto3 client.

        Raises:
            Unsupported: there is a network ACL other than the default ones, which allow everything.
        """
        if others := [
            one["NetworkAclId"] for one in ec2.describe_network_acls()["NetworkAcls"] if not one["IsDefault"]
        ]:
            raise Unsupported(f"there are network ACLs, which are not evaluated: {', '.join(others)}")
        self.subnets = {
            one["SubnetId"]: Subnet(one["SubnetId"], one["VpcId"], IPv4Network(one["CidrBlock"]))
            for one in ec2.describe_subnets()["Subnets"]
        }
        self._tables: list[dict[str, Any]] = ec2.describe_route_tables()["RouteTables"]
        self._groups = {one["GroupId"]: one for one in ec2.describe_security_groups()["SecurityGroups"]}
        self._peerings = {
            one["VpcPeeringConnectionId"]: {one[side]["VpcId"] for side in ("RequesterVpcInfo", "AccepterVpcInfo")}
            for one in ec2.describe_vpc_peering_connections()["VpcPeeringConnections"]
            if one["Status"]["Code"] == "active"
        }

    def can_connect(self, source: Subnet, target: Subnet, groups: list[str], port: int) -> bool:
        """Whether a host of `source` can connect to this port of a host of `target` with these security groups."""
        is_routed = self._is_routed(source, target) and self._is_routed(target, source)
        return is_routed and any(allowed.overlaps(source.range) for allowed in self.allowed_ranges(groups, port))

    def is_public(self, subnet: Subnet) -> bool:
        """Whether it has a route to an internet gateway, so that the internet can reach it and it the internet."""
        return any(route.get("GatewayId", "").startswith("igw-") for route in self._routes(subnet))

    def egress_gateway(self, subnet: Subnet) -> str:
        """Returns the id of the gateway of its route to the internet, or an empty string."""
        route = self._route(subnet, IPv4Address("192.0.2.1"))  # of TEST-NET-1: an address outside of all our ranges
        return str(route.get("NatGatewayId") or route.get("GatewayId") or "") if route else ""

    def allowed_ranges(self, groups: list[str], port: int) -> list[IPv4Network]:
        """Returns the ranges from which the security groups allow connections to the port.

        Raises:
            Unsupported: a rule allows something other than IPv4 ranges.
        """
        rules = [rule for group in groups for rule in self._groups[group]["IpPermissions"]]
        for rule in rules:
            if others := [kind for kind in ("UserIdGroupPairs", "Ipv6Ranges", "PrefixListIds") if rule.get(kind)]:
                raise Unsupported(f"a rule allows {', '.join(others)}, which are not evaluated: {rule}")
        matching = [rule for rule in rules if rule["IpProtocol"] == "-1" or rule["FromPort"] <= port <= rule["ToPort"]]
        return [IPv4Network(block["CidrIp"]) for rule in matching for block in rule["IpRanges"]]

    def _is_routed(self, source: Subnet, target: Subnet) -> bool:
        route = self._route(source, target.range[1])
        if route is None:
            return False
        if source.vpc == target.vpc:
            return bool(route.get("GatewayId") == "local")
        return {source.vpc, target.vpc} == self._peerings.get(route.get("VpcPeeringConnectionId", ""))

    def _route(self, subnet: Subnet, to: IPv4Address) -> dict[str, Any] | None:
        """Returns the most specific route to the address."""
        routes = [route for route in self._routes(subnet) if to in IPv4Network(route["DestinationCidrBlock"])]
        return max(routes, key=lambda route: IPv4Network(route["DestinationCidrBlock"]).prefixlen, default=None)

    def _routes(self, subnet: Subnet) -> list[dict[str, Any]]:
        own = [table for table in self._tables if self._is_of(table, "SubnetId", subnet.id)]
        main = [t for t in self._tables if t["VpcId"] == subnet.vpc and self._is_of(t, "Main", value=True)]
        routes = (own or main)[0]["Routes"]
        return [route for route in routes if "DestinationCidrBlock" in route and route.get("State") != "blackhole"]

    @staticmethod
    def _is_of(table: dict[str, Any], key: str, value: object) -> bool:
        return any(association.get(key) == value for association in table["Associations"])
