"""Who reaches the database, as the rehearsal finds it out: each thing that would let in somebody else is seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.deploy.common import aws
from ops.rehearsal.aws import REGION, StandIns, started
from ops.rehearsal.reach import Network, NotUnderstood

PORT = 5432


@dataclass
class Networks:
    """Two peered VPCs: a private and a public subnet in the one, the database's in the other.

    Attributes:
        ec2: boto3's client.
        private: subnet whose range may reach the database.
        public: subnet with a way to the internet.
        database: subnet of the database.
        group: security group of the database.
        gateway: internet gateway of the first VPC.
        tables: route tables by what they are for.
    """

    ec2: Any
    private: str
    public: str
    database: str
    group: str
    gateway: str
    peering: str
    tables: dict[str, str]

    def reaching(self) -> set[str]:
        """Who reaches the database, of all subnets that there are."""
        network = Network(self.ec2)
        home = network.subnets[self.database]
        found = {one.id for one in network.subnets.values() if network.reaches(one, home, [self.group], PORT)}
        return {name for name in ("private", "public", "database") if getattr(self, name) in found}

    def lead(self, table: str, to: str, by: str) -> None:
        kind = "GatewayId" if by.startswith("igw-") else "VpcPeeringConnectionId"
        self.ec2.create_route(RouteTableId=self.tables[table], DestinationCidrBlock=to, **{kind: by})

    def allow(self, range_: str, port: int = PORT) -> None:
        rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": range_}]}
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])


@pytest.fixture(name="networks")
def make_networks(tmp_path: Path) -> Iterator[Networks]:
    authority = tmp_path / "ca.crt"
    authority.write_text("none")
    with started(StandIns("https://127.0.0.1:1", authority, ("127.0.0.1", PORT), "unused")):
        ec2 = aws("ec2", REGION)
        ours, theirs = (ec2.create_vpc(CidrBlock=f"10.{n}.0.0/16")["Vpc"]["VpcId"] for n in (0, 1))
        subnets, tables = {}, {}
        for name, vpc, range_ in (
            ("private", ours, "10.0.0.0/24"),
            ("public", ours, "10.0.1.0/24"),
            ("database", theirs, "10.1.0.0/24"),
        ):
            subnets[name] = ec2.create_subnet(VpcId=vpc, CidrBlock=range_)["Subnet"]["SubnetId"]
            tables[name] = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
            ec2.associate_route_table(RouteTableId=tables[name], SubnetId=subnets[name])
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=ours)
        made = ec2.create_vpc_peering_connection(VpcId=ours, PeerVpcId=theirs)["VpcPeeringConnection"]
        peering = made["VpcPeeringConnectionId"]
        ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
        group = ec2.create_security_group(GroupName="database", Description="PostgreSQL", VpcId=theirs)["GroupId"]
        networks = Networks(ec2, group=group, gateway=gateway, peering=peering, tables=tables, **subnets)
        networks.lead("public", "0.0.0.0/0", gateway)
        networks.lead("private", "10.1.0.0/16", peering)
        networks.lead("database", "10.0.0.0/24", peering)
        networks.allow("10.0.0.0/24")
        yield networks


def test_as_it_should_be(networks: Networks) -> None:
    """The private subnet reaches it, and nobody else does."""
    network = Network(networks.ec2)

    assert networks.reaching() == {"private"}
    assert network.is_public(network.subnets[networks.public])
    assert not network.is_public(network.subnets[networks.database])


def test_a_rule_for_all_is_seen_where_there_are_routes(networks: Networks) -> None:
    """A security group that is open to everyone lets in whoever there are routes for."""
    networks.allow("0.0.0.0/0")
    assert networks.reaching() == {"private", "database"}

    networks.lead("public", "10.1.0.0/16", networks.peering)
    networks.lead("database", "10.0.1.0/24", networks.peering)
    assert networks.reaching() == {"private", "public", "database"}


def test_routes_alone_let_nobody_in(networks: Networks) -> None:
    """Without a rule, a way there is not enough."""
    networks.lead("public", "10.1.0.0/16", networks.peering)
    networks.lead("database", "10.0.1.0/24", networks.peering)

    assert networks.reaching() == {"private"}


@pytest.mark.parametrize(("table", "to"), [("private", "10.1.0.0/16"), ("database", "10.0.0.0/24")])
def test_a_route_that_is_missing_is_seen(networks: Networks, table: str, to: str) -> None:
    """Without the way there, or back, nobody reaches it."""
    networks.ec2.delete_route(RouteTableId=networks.tables[table], DestinationCidrBlock=to)

    assert networks.reaching() == set()


def test_a_peering_that_is_gone_is_seen(networks: Networks) -> None:
    """Routes that lead into a peering that is not active lead nowhere."""
    networks.ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=networks.peering)

    assert networks.reaching() == set()


def test_a_way_to_the_internet_is_seen(networks: Networks) -> None:
    """An internet gateway in the database's table makes its subnet public."""
    networks.lead("database", "0.0.0.0/0", networks.gateway)
    network = Network(networks.ec2)

    assert network.is_public(network.subnets[networks.database])


def test_another_port_is_another_matter(networks: Networks) -> None:
    """A rule for a port allows that port."""
    networks.allow("0.0.0.0/0", port=22)
    network = Network(networks.ec2)

    assert [str(one) for one in network.allowed([networks.group], 22)] == ["0.0.0.0/0"]
    assert [str(one) for one in network.allowed([networks.group], PORT)] == ["10.0.0.0/24"]


def test_what_is_not_understood_is_no_pass(networks: Networks) -> None:
    """A rule for another security group could let in anybody who has it: that is not passed over."""
    pair = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": networks.group}]}
    networks.ec2.authorize_security_group_ingress(GroupId=networks.group, IpPermissions=[pair])

    with pytest.raises(NotUnderstood, match="UserIdGroupPairs"):
        networks.reaching()


def test_neither_is_an_access_list(networks: Networks) -> None:
    """Nor is a network ACL that someone made."""
    vpc = networks.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    networks.ec2.create_network_acl(VpcId=vpc)

    with pytest.raises(NotUnderstood, match="network ACLs"):
        networks.reaching()
