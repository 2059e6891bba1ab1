"""Who can reach what in AWS's networks, found from what there is rather than from what was written."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any


@dataclass(frozen=True)
class Subnet:
    """A subnet.

    Attributes:
        id: AWS's.
        vpc: AWS's id of the VPC that it is in.
        range: its addresses.
    """

    id: str
    vpc: str
    range: IPv4Network


class NotUnderstood(Exception):
    """There is something of which it cannot be said whom it lets in."""


class Network:
    """All VPCs of a region, as EC2 describes them."""

    def __init__(self, ec2: Any) -> None:
        """Asks EC2 for all of it.

        Args:
            ec2: boto3's client.

        Raises:
            NotUnderstood: there is a network ACL other than the default ones, which allow all.
        """
        if others := [
            one["NetworkAclId"] for one in ec2.describe_network_acls()["NetworkAcls"] if not one["IsDefault"]
        ]:
            raise NotUnderstood(f"there are network ACLs: {', '.join(others)}")
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

    def reaches(self, source: Subnet, target: Subnet, groups: list[str], port: int) -> bool:
        """Whether a host of one subnet can connect to the port of one in another, which has the security groups."""
        is_routed = self._leads(source, target) and self._leads(target, source)
        return is_routed and any(allowed.overlaps(source.range) for allowed in self.allowed(groups, port))

    def is_public(self, subnet: Subnet) -> bool:
        """Whether it has a way to the internet, and the internet to it."""
        return any(route.get("GatewayId", "").startswith("igw-") for route in self._routes(subnet))

    def goes_out_by(self, subnet: Subnet) -> str:
        """What leads from it to the internet: an id of a gateway, or nothing."""
        route = self._route(subnet, IPv4Address("192.0.2.1"))  # for documentation: nobody's
        return str(route.get("NatGatewayId") or route.get("GatewayId") or "") if route else ""

    def allowed(self, groups: list[str], port: int) -> list[IPv4Network]:
        """Where connections to the port may come from, as the security groups say.

        Raises:
            NotUnderstood: a rule allows others than IPv4 ranges.
        """
        rules = [rule for group in groups for rule in self._groups[group]["IpPermissions"]]
        for rule in rules:
            if others := [kind for kind in ("UserIdGroupPairs", "Ipv6Ranges", "PrefixListIds") if rule.get(kind)]:
                raise NotUnderstood(f"a rule allows {', '.join(others)}: {rule}")
        opened = [rule for rule in rules if rule["IpProtocol"] == "-1" or rule["FromPort"] <= port <= rule["ToPort"]]
        return [IPv4Network(block["CidrIp"]) for rule in opened for block in rule["IpRanges"]]

    def _leads(self, source: Subnet, target: Subnet) -> bool:
        route = self._route(source, target.range[1])
        if route is None:
            return False
        if source.vpc == target.vpc:
            return bool(route.get("GatewayId") == "local")
        return {source.vpc, target.vpc} == self._peerings.get(route.get("VpcPeeringConnectionId", ""))

    def _route(self, subnet: Subnet, to: IPv4Address) -> dict[str, Any] | None:
        """The most specific one."""
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
