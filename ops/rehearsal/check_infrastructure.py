"""Checks after terraform apply: AWS has everything that the original system had, requirement by requirement."""

import json
from typing import Any

import pytest

from ops.deploy.common import Outputs, aws_client
from ops.rehearsal.reachability import Network, Subnet


def tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def as_list(one_or_more: str | list[str]) -> list[str]:
    """A policy may have a single action without a list."""
    return [one_or_more] if isinstance(one_or_more, str) else one_or_more


def only_reads(action: str) -> bool:
    return action.partition(":")[2].startswith(("Describe", "Get"))


@pytest.fixture(name="subnets", scope="module")
def find_subnets(ec2: Any, network: Network, outputs: Outputs) -> dict[str, list[Subnet]]:
    """The subnets by kind, which their Name tag gives."""
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
    """Requirement: two public subnets, in us-east-1a and us-east-1b, with a route to the internet gateway."""
    assert zones(ec2, subnets["public"]) == {"us-east-1a", "us-east-1b"}
    assert all(network.is_public(subnet) for subnet in subnets["public"])


def test_two_private_subnets_in_two_zones(ec2: Any, network: Network, subnets: dict[str, list[Subnet]]) -> None:
    """Requirement: two private subnets, in the same zones, that the internet cannot reach."""
    assert zones(ec2, subnets["private"]) == {"us-east-1a", "us-east-1b"}
    assert not any(network.is_public(subnet) for subnet in subnets["private"])


def test_only_the_clusters_vpc_has_an_internet_gateway(ec2: Any, cluster: dict[str, Any], network: Network) -> None:
    """Requirement: one internet gateway, attached to the cluster's VPC; the database's VPC has none."""
    ours = network.subnets[cluster["resourcesVpcConfig"]["subnetIds"][0]].vpc
    attached = [one["Attachments"] for one in ec2.describe_internet_gateways()["InternetGateways"]]

    assert [attachment["VpcId"] for attachments in attached for attachment in attachments] == [ours]


def test_private_subnets_reach_the_internet_through_nat(
    ec2: Any, network: Network, subnets: dict[str, list[Subnet]]
) -> None:
    """Requirement: one NAT gateway in the public subnet of each zone, which the private subnet of that zone uses."""
    gateways = {one["NatGatewayId"]: one["SubnetId"] for one in ec2.describe_nat_gateways()["NatGateways"]}
    used = [network.subnets[gateways[network.egress_gateway(subnet)]] for subnet in subnets["private"]]

    assert {subnet.id for subnet in used} == {subnet.id for subnet in subnets["public"]}
    assert [zones(ec2, [subnet]) for subnet in used] == [zones(ec2, [subnet]) for subnet in subnets["private"]]


def test_each_kind_of_subnet_has_its_route_tables(ec2: Any, outputs: Outputs) -> None:
    """Requirement: one route table for the public subnets, one for each private one, one for the database's."""
    tables = {tags(one).get("Name"): len(one["Associations"]) for one in ec2.describe_route_tables()["RouteTables"]}

    assert {name: count for name, count in tables.items() if name} == {
        f"{outputs.name}-public": 2,
        f"{outputs.name}-private-us-east-1a": 1,
        f"{outputs.name}-private-us-east-1b": 1,
        f"{outputs.name}-database": 2,
    }


def test_subnets_have_the_tags_for_load_balancers(ec2: Any, subnets: dict[str, list[Subnet]], outputs: Outputs) -> None:
    """Requirement: the tags by which the cluster finds subnets for its load balancers."""
    for kind, role in (("public", "elb"), ("private", "internal-elb")):
        described = ec2.describe_subnets(SubnetIds=[subnet.id for subnet in subnets[kind]])["Subnets"]
        expected = {f"kubernetes.io/cluster/{outputs.name}": "shared", f"kubernetes.io/role/{role}": "1"}
        assert all(expected.items() <= tags(one).items() for one in described)


def test_a_cluster_of_two_to_five_private_nodes(outputs: Outputs, subnets: dict[str, list[Subnet]]) -> None:
    """Requirement: an EKS node group of 2 nodes that scales to 5, in the private subnets."""
    eks = aws_client("eks", outputs.region)
    (name,) = eks.list_nodegroups(clusterName=outputs.name)["nodegroups"]
    group = eks.describe_nodegroup(clusterName=outputs.name, nodegroupName=name)["nodegroup"]

    assert group["scalingConfig"] == {"minSize": 2, "maxSize": 5, "desiredSize": 2}
    assert (group["version"], group["releaseVersion"][:5]) == (
        outputs.kubernetes_version,
        f"{outputs.kubernetes_version}.",
    )
    assert set(group["subnets"]) == {subnet.id for subnet in subnets["private"]}


def test_the_five_control_plane_logs_are_on(cluster: dict[str, Any], outputs: Outputs) -> None:
    """Requirement: all five types of control-plane logs, in a log group with a retention time."""
    (setup,) = [one for one in cluster["logging"]["clusterLogging"] if one["enabled"]]
    (group,) = aws_client("logs", outputs.region).describe_log_groups(
        logGroupNamePrefix=f"/aws/eks/{outputs.name}/cluster"
    )["logGroups"]

    assert set(setup["types"]) == {"api", "audit", "authenticator", "controllerManager", "scheduler"}
    assert group["retentionInDays"] == 30


def test_the_autoscaler_may_scale_only_this_clusters_groups(outputs: Outputs) -> None:
    """Requirement: the autoscaler may change only groups with the tag of this cluster."""
    iam = aws_client("iam", outputs.region)
    name = f"{outputs.name}-cluster-autoscaler"
    document = iam.get_role_policy(RoleName=name, PolicyName="cluster-autoscaler")["PolicyDocument"]
    changing = [
        one for one in document["Statement"] if not all(only_reads(action) for action in as_list(one["Action"]))
    ]

    assert [one["Condition"] for one in changing] == [
        {"StringEquals": {f"aws:ResourceTag/k8s.io/cluster-autoscaler/{outputs.name}": "owned"}}
    ]
    assert not iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]


def test_each_pods_role_is_bound_to_one_service_account(outputs: Outputs) -> None:
    """Requirement: one role for each service account; the service's own role has no permissions."""
    eks, iam = aws_client("eks", outputs.region), aws_client("iam", outputs.region)
    associations = eks.list_pod_identity_associations(clusterName=outputs.name)["associations"]

    assert {f"{one['namespace']}/{one['serviceAccount']}" for one in associations} == {
        "clients/clients-api",
        "kube-system/cluster-autoscaler",
        "telemetry/collector",
        "telemetry/container-insights",
        "telemetry/fluent-bit",
    }
    assert not iam.list_role_policies(RoleName=f"{outputs.name}-clients-api")["PolicyNames"]


def test_the_cluster_is_protected_from_deletion(cluster: dict[str, Any]) -> None:
    """Until teardown, EKS refuses to delete it."""
    assert cluster["deletionProtection"] is True


def test_a_database_in_its_own_vpc(database: dict[str, Any], network: Network, cluster: dict[str, Any]) -> None:
    """Requirement: RDS in its own VPC, in two zones, with a range that does not overlap the cluster's."""
    theirs = [network.subnets[one["SubnetIdentifier"]] for one in database["DBSubnetGroup"]["Subnets"]]
    ours = [network.subnets[one] for one in cluster["resourcesVpcConfig"]["subnetIds"]]

    assert len(theirs) == 2
    assert {subnet.vpc for subnet in theirs}.isdisjoint(subnet.vpc for subnet in ours)
    assert not any(one.range.overlaps(other.range) for one in theirs for other in ours)


def test_only_the_private_subnets_can_connect_to_the_database(
    database: dict[str, Any], network: Network, subnets: dict[str, list[Subnet]]
) -> None:
    """Of all subnets of the account, only the two private ones can connect, from any of their addresses."""
    groups = [one["VpcSecurityGroupId"] for one in database["VpcSecurityGroups"]]
    port = database["DbInstancePort"] or database["Endpoint"]["Port"]
    database_subnets = [network.subnets[one["SubnetIdentifier"]] for one in database["DBSubnetGroup"]["Subnets"]]
    private = {subnet.id for subnet in subnets["private"]}

    for database_subnet in database_subnets:
        sources = [one for one in network.subnets.values() if network.can_connect(one, database_subnet, groups, port)]
        assert {source.id for source in sources} == private
    assert sorted(network.allowed_ranges(groups, port)) == sorted(subnet.range for subnet in subnets["private"])


def test_the_internet_cannot_reach_the_database(database: dict[str, Any], network: Network) -> None:
    """The database has no public address, no route to an internet gateway, and no other open port."""
    groups = [one["VpcSecurityGroupId"] for one in database["VpcSecurityGroups"]]

    assert not database["PubliclyAccessible"]
    assert not any(
        network.is_public(network.subnets[one["SubnetIdentifier"]]) for one in database["DBSubnetGroup"]["Subnets"]
    )
    assert not any(network.allowed_ranges(groups, port) for port in (22, 80, 443, 5431, 5433, 6432))


def test_the_database_is_encrypted_backed_up_and_requires_tls(database: dict[str, Any], outputs: Outputs) -> None:
    """Encrypted storage, rds.force_ssl, a week of backups, deletion protection, logs to CloudWatch."""
    rds = aws_client("rds", outputs.region)
    (group,) = database["DBParameterGroups"]
    pages = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group["DBParameterGroupName"])
    parameters = {one["ParameterName"]: one.get("ParameterValue") for page in pages for one in page["Parameters"]}

    assert parameters["rds.force_ssl"] == "1"
    assert (database["StorageEncrypted"], database["DeletionProtection"]) == (True, True)
    assert database["BackupRetentionPeriod"] == 7
    assert set(database["EnabledCloudwatchLogsExports"]) == {"postgresql", "upgrade"}


def test_an_alarm_reads_the_check_of_the_public_name(outputs: Outputs) -> None:
    """Route 53 checks the public name over HTTPS, and an alarm has the check's id, which only AWS knows."""
    (check,) = aws_client("route53", outputs.region).list_health_checks()["HealthChecks"]
    (alarm,) = aws_client("cloudwatch", "us-east-1").describe_alarms(
        AlarmNames=[f"{outputs.name}-unreachable-measured"]
    )["MetricAlarms"]
    (query,) = alarm["Metrics"]

    assert check["HealthCheckConfig"]["FullyQualifiedDomainName"] == outputs.hostname
    assert query["MetricStat"]["Metric"]["Dimensions"] == [{"Name": "HealthCheckId", "Value": check["Id"]}]


def test_the_state_is_encrypted_by_its_buckets_key(outputs: Outputs) -> None:
    """The bucket's encryption holds; a request that names S3's own key would replace it."""
    s3 = aws_client("s3", outputs.region)
    (bucket,) = [one["Name"] for one in s3.list_buckets()["Buckets"] if "balancer-logs" not in one["Name"]]

    stored = s3.head_object(Bucket=bucket, Key="clients-api/terraform.tfstate")
    assert stored["ServerSideEncryption"] == "aws:kms"


def test_a_notice_of_the_end_of_support_is_scheduled(outputs: Outputs) -> None:
    """Each week, to the topic for tickets, by a role of its own."""
    schedule = aws_client("scheduler", outputs.region).get_schedule(Name=f"{outputs.name}-end-of-support")

    assert schedule["ScheduleExpression"] == "rate(7 days)"
    assert schedule["Target"]["Arn"].endswith(f":{outputs.name}-alarms-ticket")
    assert outputs.kubernetes_version in schedule["Target"]["Input"]


def test_no_secret_is_in_the_state(state: dict[str, Any], database: dict[str, Any], outputs: Outputs) -> None:
    """The owner's password is in Secrets Manager, and not in Terraform's state."""
    secret = aws_client("secretsmanager", outputs.region).get_secret_value(
        SecretId=database["MasterUserSecret"]["SecretArn"]
    )
    password = json.loads(secret["SecretString"])["password"]

    assert len(password) > 20
    assert password not in json.dumps(state)


def test_log_groups_have_a_retention_time_and_a_key(outputs: Outputs) -> None:
    """Requirement: each log group has a retention time and an encryption key; those that are seldom read cost half."""
    pages = aws_client("logs", outputs.region).get_paginator("describe_log_groups").paginate()
    groups = [group for page in pages for group in page["logGroups"]]

    assert len(groups) == 12
    assert all(group["retentionInDays"] == 30 and group["kmsKeyId"] for group in groups)
    seldom_read = {group["logGroupName"] for group in groups if group["logGroupClass"] == "INFREQUENT_ACCESS"}
    assert {name.rpartition("/")[2] for name in seldom_read} == {
        *("dataplane", "host"),
        *(f"{outputs.name}-{network}" for network in ("cluster", "database")),
    }
