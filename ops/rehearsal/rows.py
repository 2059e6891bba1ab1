"""What AWS has after terraform apply: the original system row by row, asked of AWS rather than read in the source."""

import json
from typing import Any

import pytest

from ops.deploy.common import Outputs, aws
from ops.rehearsal.reach import Network, Subnet


def tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def listed(one_or_more: str | list[str]) -> list[str]:
    """A policy writes one action without brackets."""
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more


def is_a_look(action: str) -> bool:
    return action.partition(":")[2].startswith(("Describe", "Get"))


@pytest.fixture(name="subnets", scope="module")
def find_subnets(ec2: Any, network: Network, outputs: Outputs) -> dict[str, list[Subnet]]:
    """Subnets by what their tags say that they are for."""
    found: dict[str, list[Subnet]] = {"public": [], "private": [], "database": []}
    for described in ec2.describe_subnets()["Subnets"]:
        for kind, subnets in found.items():
            if tags(described).get("Name", "").startswith(f"{outputs.name}-{kind}-"):
                subnets.append(network.subnets[described["SubnetId"]])
    return found


def zones(ec2: Any, subnets: list[Subnet]) -> set[str]:
    described = ec2.describe_subnets(SubnetIds=[subnet.id for subnet in subnets])["Subnets"]
    return {one["AvailabilityZone"] for one in described}


def test_two_public_subnets_in_two_zones(ec2: Any, network: Network, subnets: dict[str, list[Subnet]]) -> None:
    """Row: two public subnets, us-east-1a and us-east-1b, whose table leads to the internet gateway."""
    assert zones(ec2, subnets["public"]) == {"us-east-1a", "us-east-1b"}
    assert all(network.is_public(subnet) for subnet in subnets["public"])


def test_two_private_subnets_in_two_zones(ec2: Any, network: Network, subnets: dict[str, list[Subnet]]) -> None:
    """Row: two private subnets, in the same zones, which the internet has no way to."""
    assert zones(ec2, subnets["private"]) == {"us-east-1a", "us-east-1b"}
    assert not any(network.is_public(subnet) for subnet in subnets["private"])


def test_an_internet_gateway(ec2: Any, cluster: dict[str, Any], network: Network) -> None:
    """Row: one internet gateway, at the cluster's VPC; the database's has none."""
    ours = network.subnets[cluster["resourcesVpcConfig"]["subnetIds"][0]].vpc
    attached = [one["Attachments"] for one in ec2.describe_internet_gateways()["InternetGateways"]]

    assert [attachment["VpcId"] for attachments in attached for attachment in attachments] == [ours]


def test_private_subnets_go_out_by_nat(ec2: Any, network: Network, subnets: dict[str, list[Subnet]]) -> None:
    """Row: NAT, one gateway in the public subnet of each zone, and each private subnet's table leads to its zone's."""
    gateways = {one["NatGatewayId"]: one["SubnetId"] for one in ec2.describe_nat_gateways()["NatGateways"]}
    used = [network.subnets[gateways[network.goes_out_by(subnet)]] for subnet in subnets["private"]]

    assert {subnet.id for subnet in used} == {subnet.id for subnet in subnets["public"]}
    assert [zones(ec2, [subnet]) for subnet in used] == [zones(ec2, [subnet]) for subnet in subnets["private"]]


def test_each_subnet_has_a_table_of_its_kind(ec2: Any, outputs: Outputs) -> None:
    """Row: route tables, one for both public subnets, one for each private, one for the database's."""
    tables = {tags(one).get("Name"): len(one["Associations"]) for one in ec2.describe_route_tables()["RouteTables"]}

    assert {name: count for name, count in tables.items() if name} == {
        f"{outputs.name}-public": 2,
        f"{outputs.name}-private-us-east-1a": 1,
        f"{outputs.name}-private-us-east-1b": 1,
        f"{outputs.name}-database": 2,
    }


def test_balancers_and_the_autoscaler_find_their_tags(
    ec2: Any, subnets: dict[str, list[Subnet]], outputs: Outputs
) -> None:
    """Row: the tags by which load balancers find their subnets."""
    for kind, role in (("public", "elb"), ("private", "internal-elb")):
        described = ec2.describe_subnets(SubnetIds=[subnet.id for subnet in subnets[kind]])["Subnets"]
        wanted = {f"kubernetes.io/cluster/{outputs.name}": "shared", f"kubernetes.io/role/{role}": "1"}
        assert all(wanted.items() <= tags(one).items() for one in described)


def test_a_cluster_of_two_to_five_private_nodes(outputs: Outputs, subnets: dict[str, list[Subnet]]) -> None:
    """Row: EKS with a node group of 2 nodes that scales to 5, in the private subnets."""
    eks = aws("eks", outputs.region)
    (name,) = eks.list_nodegroups(clusterName=outputs.name)["nodegroups"]
    group = eks.describe_nodegroup(clusterName=outputs.name, nodegroupName=name)["nodegroup"]

    assert group["scalingConfig"] == {"minSize": 2, "maxSize": 5, "desiredSize": 2}
    assert set(group["subnets"]) == {subnet.id for subnet in subnets["private"]}


def test_the_five_control_plane_logs_are_on(cluster: dict[str, Any], outputs: Outputs) -> None:
    """Row: control-plane logs, all five types, in a group that keeps them for a bounded time."""
    (setup,) = [one for one in cluster["logging"]["clusterLogging"] if one["enabled"]]
    (group,) = aws("logs", outputs.region).describe_log_groups(logGroupNamePrefix=f"/aws/eks/{outputs.name}/cluster")[
        "logGroups"
    ]

    assert set(setup["types"]) == {"api", "audit", "authenticator", "controllerManager", "scheduler"}
    assert group["retentionInDays"] == 30


def test_the_autoscaler_may_scale_this_clusters_groups_alone(outputs: Outputs) -> None:
    """Row: the autoscaler, whose permission to change ends at the tag of this cluster."""
    iam = aws("iam", outputs.region)
    name = f"{outputs.name}-cluster-autoscaler"
    document = iam.get_role_policy(RoleName=name, PolicyName="cluster-autoscaler")["PolicyDocument"]
    changing = [one for one in document["Statement"] if not all(is_a_look(action) for action in listed(one["Action"]))]

    assert [one["Condition"] for one in changing] == [
        {"StringEquals": {f"aws:ResourceTag/k8s.io/cluster-autoscaler/{outputs.name}": "owned"}}
    ]
    assert not iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]


def test_each_pods_role_is_bound_to_one_service_account(outputs: Outputs) -> None:
    """Row: roles for pods; the service's own role may do nothing."""
    eks, iam = aws("eks", outputs.region), aws("iam", outputs.region)
    associations = eks.list_pod_identity_associations(clusterName=outputs.name)["associations"]

    assert {f"{one['namespace']}/{one['serviceAccount']}" for one in associations} == {
        "clients/clients-api",
        "kube-system/cluster-autoscaler",
        "telemetry/collector",
        "telemetry/container-insights",
        "telemetry/fluent-bit",
    }
    assert not iam.list_role_policies(RoleName=f"{outputs.name}-clients-api")["PolicyNames"]


def test_a_database_in_its_own_vpc(database: dict[str, Any], network: Network, cluster: dict[str, Any]) -> None:
    """Row: RDS in a VPC of its own, in two zones, whose range does not overlap the cluster's."""
    theirs = [network.subnets[one["SubnetIdentifier"]] for one in database["DBSubnetGroup"]["Subnets"]]
    ours = [network.subnets[one] for one in cluster["resourcesVpcConfig"]["subnetIds"]]

    assert len(theirs) == 2
    assert {subnet.vpc for subnet in theirs}.isdisjoint(subnet.vpc for subnet in ours)
    assert not any(one.range.overlaps(other.range) for one in theirs for other in ours)


def test_only_the_private_subnets_reach_the_database(
    database: dict[str, Any], network: Network, subnets: dict[str, list[Subnet]]
) -> None:
    """Of all subnets of the account, the two private ones can connect to it, from each of their addresses."""
    groups = [one["VpcSecurityGroupId"] for one in database["VpcSecurityGroups"]]
    port = database["DbInstancePort"] or database["Endpoint"]["Port"]
    homes = [network.subnets[one["SubnetIdentifier"]] for one in database["DBSubnetGroup"]["Subnets"]]
    private = {subnet.id for subnet in subnets["private"]}

    for home in homes:
        reaching = {one.id for one in network.subnets.values() if network.reaches(one, home, groups, port)}
        assert reaching == private
    assert sorted(network.allowed(groups, port)) == sorted(subnet.range for subnet in subnets["private"])


def test_the_internet_does_not_reach_the_database(database: dict[str, Any], network: Network) -> None:
    """It has no public address, its subnets no way to an internet gateway, its group no open port but its own."""
    groups = [one["VpcSecurityGroupId"] for one in database["VpcSecurityGroups"]]

    assert not database["PubliclyAccessible"]
    assert not any(
        network.is_public(network.subnets[one["SubnetIdentifier"]]) for one in database["DBSubnetGroup"]["Subnets"]
    )
    assert not any(network.allowed(groups, port) for port in (22, 80, 443, 5431, 5433, 6432))


def test_the_database_is_encrypted_kept_and_speaks_tls_alone(database: dict[str, Any], outputs: Outputs) -> None:
    """Encrypted storage, rds.force_ssl, a week of backups, deletion protection, logs to CloudWatch."""
    rds = aws("rds", outputs.region)
    (group,) = database["DBParameterGroups"]
    pages = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group["DBParameterGroupName"])
    parameters = {one["ParameterName"]: one.get("ParameterValue") for page in pages for one in page["Parameters"]}

    assert parameters["rds.force_ssl"] == "1"
    assert (database["StorageEncrypted"], database["DeletionProtection"]) == (True, True)
    assert database["BackupRetentionPeriod"] == 7
    assert set(database["EnabledCloudwatchLogsExports"]) == {"postgresql", "upgrade"}


def test_no_secret_is_in_the_state(state: dict[str, Any], database: dict[str, Any], outputs: Outputs) -> None:
    """The owner's password is in Secrets Manager, and nowhere in what Terraform keeps."""
    secret = aws("secretsmanager", outputs.region).get_secret_value(SecretId=database["MasterUserSecret"]["SecretArn"])
    password = json.loads(secret["SecretString"])["password"]

    assert len(password) > 20
    assert password not in json.dumps(state)


def test_log_groups_keep_what_they_have_for_a_bounded_time(outputs: Outputs) -> None:
    """Row: log groups, each with retention and a key."""
    pages = aws("logs", outputs.region).get_paginator("describe_log_groups").paginate()
    groups = [group for page in pages for group in page["logGroups"]]

    assert len(groups) == 11
    assert all(group["retentionInDays"] == 30 and group["kmsKeyId"] for group in groups)
