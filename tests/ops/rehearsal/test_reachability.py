"""The reachability of the database, as the rehearsal computes it: each rule and route that opens access is found."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from moto.backends import get_backend

from ops.deploy.common import aws_client
from ops.rehearsal import aws
from ops.rehearsal.aws import ACCOUNT, REGION, Endpoints
from ops.rehearsal.reachability import Network, Unsupported

PORT = 5432


@dataclass
class Networks:
    """Two peered VPCs: one with a private and a public subnet, the other with the database's subnet.

    Attributes:
        ec2: a boto3 client.
        private: the subnet that may connect to the database.
        public: the subnet with a route to the internet.
        database: the subnet of the database.
        group: the security group of the database.
        gateway: the internet gateway of the first VPC.
        peering: the peering connection of the VPCs.
        tables: the route tables by the name of their subnet.
    """

    ec2: Any
    private: str
    public: str
    database: str
    group: str
    gateway: str
    peering: str
    tables: dict[str, str]

    def can_connect(self) -> set[str]:
        """Returns the names of the subnets that can connect to the database."""
        network = Network(self.ec2)
        target = network.subnets[self.database]
        found = {one.id for one in network.subnets.values() if network.can_connect(one, target, [self.group], PORT)}
        return {name for name in ("private", "public", "database") if getattr(self, name) in found}

    def add_route(self, table: str, destination: str, target: str) -> None:
        kind = "GatewayId" if target.startswith("igw-") else "VpcPeeringConnectionId"
        self.ec2.create_route(RouteTableId=self.tables[table], DestinationCidrBlock=destination, **{kind: target})

    def allow(self, range_: str, port: int = PORT) -> None:
        rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": range_}]}
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[rule])


@pytest.fixture(name="mock_ec2", scope="module")
def run_mock_ec2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs the mock AWS; these tests use only its EC2."""
    ca = tmp_path_factory.mktemp("aws") / "ca.crt"
    ca.write_text("none")
    with aws.running(Endpoints("https://127.0.0.1:1", ca, ("127.0.0.1", PORT), "unused")):
        yield


@pytest.fixture(name="networks")
def create_networks(mock_ec2: None) -> Networks:
    del mock_ec2
    get_backend("ec2")[ACCOUNT][REGION].reset()
    ec2 = aws_client("ec2", REGION)
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
    created = ec2.create_vpc_peering_connection(VpcId=ours, PeerVpcId=theirs)["VpcPeeringConnection"]
    peering = created["VpcPeeringConnectionId"]
    ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
    group = ec2.create_security_group(GroupName="database", Description="PostgreSQL", VpcId=theirs)["GroupId"]
    networks = Networks(ec2, group=group, gateway=gateway, peering=peering, tables=tables, **subnets)
    networks.add_route("public", "0.0.0.0/0", gateway)
    networks.add_route("private", "10.1.0.0/16", peering)
    networks.add_route("database", "10.0.0.0/24", peering)
    networks.allow("10.0.0.0/24")
    return networks


def test_only_the_private_subnet_can_connect(networks: Networks) -> None:
    """These are the routes and rules as Terraform creates them."""
    network = Network(networks.ec2)

    assert networks.can_connect() == {"private"}
    assert network.is_public(network.subnets[networks.public])
    assert not network.is_public(network.subnets[networks.database])


def test_a_rule_for_all_addresses_opens_access_for_routed_subnets(networks: Networks) -> None:
    """A security group that is open to all addresses gives access to each subnet with routes."""
    networks.allow("0.0.0.0/0")
    assert networks.can_connect() == {"private", "database"}

    networks.add_route("public", "10.1.0.0/16", networks.peering)
    networks.add_route("database", "10.0.1.0/24", networks.peering)
    assert networks.can_connect() == {"private", "public", "database"}


def test_routes_without_a_rule_open_no_access(networks: Networks) -> None:
    """The security group still allows only the private subnet."""
    networks.add_route("public", "10.1.0.0/16", networks.peering)
    networks.add_route("database", "10.0.1.0/24", networks.peering)

    assert networks.can_connect() == {"private"}


@pytest.mark.parametrize(("table", "destination"), [("private", "10.1.0.0/16"), ("database", "10.0.0.0/24")])
def test_a_missing_route_ends_access(networks: Networks, table: str, destination: str) -> None:
    """Both directions need a route."""
    networks.ec2.delete_route(RouteTableId=networks.tables[table], DestinationCidrBlock=destination)

    assert networks.can_connect() == set()


def test_a_deleted_peering_ends_access(networks: Networks) -> None:
    """Routes into a peering that is not active have no effect."""
    networks.ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=networks.peering)

    assert networks.can_connect() == set()


def test_a_route_to_the_internet_makes_a_subnet_public(networks: Networks) -> None:
    """For example a route of the database's subnet to the internet gateway."""
    networks.add_route("database", "0.0.0.0/0", networks.gateway)
    network = Network(networks.ec2)

    assert network.is_public(network.subnets[networks.database])


def test_a_rule_applies_only_to_its_port(networks: Networks) -> None:
    """A rule for port 22 does not open port 5432."""
    networks.allow("0.0.0.0/0", port=22)
    network = Network(networks.ec2)

    assert [str(one) for one in network.allowed_ranges([networks.group], 22)] == ["0.0.0.0/0"]
    assert [str(one) for one in network.allowed_ranges([networks.group], PORT)] == ["10.0.0.0/24"]


def test_a_rule_for_a_security_group_is_refused(networks: Networks) -> None:
    """It could give access to any host with that group, which is not evaluated."""
    pair = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": networks.group}]}
    networks.ec2.authorize_security_group_ingress(GroupId=networks.group, IpPermissions=[pair])

    with pytest.raises(Unsupported, match="UserIdGroupPairs"):
        networks.can_connect()


def test_a_network_acl_is_refused(networks: Networks) -> None:
    """Only the default network ACLs, which allow everything, are supported."""
    vpc = networks.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    networks.ec2.create_network_acl(VpcId=vpc)

    with pytest.raises(Unsupported, match="network ACLs"):
        networks.can_connect()
