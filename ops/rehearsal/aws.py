"""A mock AWS on loopback: moto's server, and what it lacks that this project's Terraform and scripts ask for.

What is added, and why:

* EKS: add-ons, access entries, pod identity associations and updates, of which moto has no calls; what it forgets of
  clusters and node groups, or makes up; the endpoint and the CA of the cluster that stands on this machine.
* RDS: what moto forgets of a database and of its parameters; the endpoint of the database that stands on this machine,
  and its owner's name and password in the secret, for which moto has made-up ones.
* CloudWatch: composite alarms, which moto tells of and cannot make; saved queries of Logs Insights, of which it has no
  calls.
* EC2: a launch template's own tags, which moto counts among those of what it launches.
* S3: bucket policies are kept but not enforced: moto heeds no conditions, and the one against plain HTTP would lock
  everybody out.
"""

import base64
import contextlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import mock

# Before moto is loaded, which reads it then.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.eks import urls
from moto.eks.exceptions import ResourceInUseException, ResourceNotFoundException
from moto.eks.responses import EKSResponse
from moto.iam.access_control import PermissionResult
from moto.logs.responses import LogsResponse
from moto.rds.models import DBInstance, DBParameterGroup, MasterUserSecret
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer

from ops.deploy.common import aws as client
from ops.rehearsal.tls import Address

ACCOUNT: Final = "123456789012"  # moto's
REGION: Final = "us-east-1"

_Thing: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class StandIns:
    """What stands on this machine for what AWS would run.

    Attributes:
        cluster: the URL of its API.
        cluster_authority: the CA that signed its certificate, PEM.
        database: where it listens.
        database_password: of its owner.
    """

    cluster: str
    cluster_authority: Path
    database: Address
    database_password: str


@contextlib.contextmanager
def started(stand_ins: StandIns) -> Iterator[dict[str, str]]:
    """Listens on loopback meanwhile, and gives the environment in which AWS's clients find it.

    This process has that environment too, since what stands in for AWS asks AWS.
    """
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it would tell of each request
    with _extended(stand_ins):
        server.start()
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",  # nosec B105 # of a mock, which takes any
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        try:
            with mock.patch.dict(os.environ, environment):
                yield environment
        finally:
            server.stop()


def _extended(stand_ins: StandIns) -> contextlib.ExitStack:
    """Moto with what it lacks, until the context is left."""

    class Eks(_Eks):
        """Which knows what stands on this machine."""

    Eks.stand_ins = stand_ins
    paths = {
        f"{{0}}/clusters/(?P<name>[^/]+)/{path}": Eks.dispatch
        for kind in ("addons", "access-entries", "pod-identity-associations", "updates")
        for path in (f"{kind}$", f"{kind}/(?P<rest>.+)$")
    }
    paths |= dict.fromkeys(urls.url_paths, Eks.dispatch)

    make_database = DBInstance.__init__
    set_parameters = DBParameterGroup.update_parameters
    make_version = LaunchTemplateVersion.__init__

    def database(made: DBInstance, *args: Any, **given: Any) -> None:
        make_database(made, *args, **given)
        for told, asked in _FORGOTTEN.items():
            setattr(made, told, given.get(asked))

    def parameters(group: DBParameterGroup, new: Iterable[_Thing]) -> None:
        set_parameters(group, [{**one, "Source": "user"} for one in new])

    def version(made: LaunchTemplateVersion, template: LaunchTemplate, number: int, data: _Thing, words: str) -> None:
        tags = [one for one in data.get("TagSpecifications", []) if one["ResourceType"] != "launch-template"]
        make_version(made, template, number, {**data, "TagSpecifications": tags}, words)

    def credentials(secret: MasterUserSecret) -> str:
        return json.dumps({"username": secret.resource.master_username, "password": stand_ins.database_password})

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.dict(urls.url_paths, paths))
    for owner, name, value in (
        (DBInstance, "__init__", database),
        (DBParameterGroup, "update_parameters", parameters),
        (LaunchTemplateVersion, "__init__", version),
        (DBInstance, "address", stand_ins.database[0]),
        (DBInstance, "endpoint", {"Address": stand_ins.database[0], "Port": stand_ins.database[1]}),
        (MasterUserSecret, "_generate_secret_string", credentials),
        (FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL),
    ):
        stack.enter_context(mock.patch.object(owner, name, value))
    for responses, operation, answer in (
        (CloudWatchResponse, "put_composite_alarm", CloudWatchResponse.put_metric_alarm),
        (LogsResponse, "put_query_definition", _Logs.put_query_definition),
        (LogsResponse, "describe_query_definitions", _Logs.describe_query_definitions),
        (LogsResponse, "delete_query_definition", _Logs.delete_query_definition),
    ):
        stack.enter_context(mock.patch.object(responses, operation, answer, create=True))
    return stack


# Of a database, as RDS tells it and as it is asked for it: moto neither keeps nor tells these.
_FORGOTTEN: Final = {
    "database_insights_mode": "database_insights_mode",
    "engine_lifecycle_support": "engine_lifecycle_support",
    "performance_insights_enabled": "enable_performance_insights",
    "performance_insights_kms_key_id": "performance_insights_kms_key_id",
    "performance_insights_retention_period": "performance_insights_retention_period",
}


class _Logs(LogsResponse):
    """CloudWatch Logs, with saved queries."""

    def put_query_definition(self) -> str:
        given = {name: self._get_param(name) for name in ("name", "queryString", "logGroupNames")}
        key = self._get_param("queryDefinitionId") or str(uuid.uuid4())
        _Logs._kept(self)[key] = {**given, "queryDefinitionId": key}
        return json.dumps({"queryDefinitionId": key})

    def describe_query_definitions(self) -> str:
        prefix = self._get_param("queryDefinitionNamePrefix", "")
        found = [one for one in _Logs._kept(self).values() if one["name"].startswith(prefix)]
        return json.dumps({"queryDefinitions": found})

    def delete_query_definition(self) -> str:
        found = _Logs._kept(self).pop(self._get_param("queryDefinitionId"), None)
        return json.dumps({"success": found is not None})

    def _kept(self) -> dict[str, _Thing]:
        kept: dict[str, _Thing] = vars(self.logs_backend).setdefault("_query_definitions", {})
        return kept


class _Eks(EKSResponse):
    """EKS, with what belongs to a cluster kept at the cluster: by kind, then by what the API calls it."""

    stand_ins: StandIns

    def create_cluster(self) -> ActionResult:
        made = super().create_cluster()
        cluster: Any = made.result["cluster"]  # type: ignore[index]
        cluster.endpoint = self.stand_ins.cluster
        authority = self.stand_ins.cluster_authority.read_bytes()
        cluster.certificate_authority = {"data": base64.b64encode(authority).decode()}
        cluster.access_config = self._get_param("accessConfig")
        cluster.upgrade_policy = self._get_param("upgradePolicy")
        return made

    def create_nodegroup(self) -> ActionResult:
        made = super().create_nodegroup()
        group: Any = made.result["nodegroup"]  # type: ignore[index]
        group.remote_access = self._get_param("remoteAccess")
        group.update_config = self._get_param("updateConfig")
        group.version = self.eks_backend.describe_cluster(self._name()).version
        return made

    def update_cluster_config(self) -> ActionResult:
        super().update_cluster_config()
        return _update("LoggingUpdate" if self._get_param("logging") else "VpcConfigUpdate")

    def describe_update(self) -> ActionResult:
        return _update("Any", self._get_param("updateId"))

    # --- Add-ons

    def create_addon(self) -> ActionResult:
        name = self._get_param("addonName")
        addon = {
            **self._given("addonName", "configurationValues", "serviceAccountRoleArn", "tags"),
            "addonVersion": self._get_param("addonVersion", "v1.0.0-eksbuild.1"),
            "addonArn": self._arn(f"addon/{{cluster}}/{name}/{uuid.uuid4()}"),
            "status": "ACTIVE",
            "health": {"issues": []},
        }
        return ActionResult({"addon": self._make("addons", name, addon)})

    def describe_addon(self) -> ActionResult:
        return ActionResult({"addon": self._find("addons", self._get_param("addonName"))})

    def list_addons(self) -> ActionResult:
        return ActionResult({"addons": list(self._all("addons"))})

    def update_addon(self) -> ActionResult:
        self._find("addons", self._get_param("addonName")).update(self._given("configurationValues", "addonVersion"))
        return _update("AddonUpdate")

    def delete_addon(self) -> ActionResult:
        return ActionResult({"addon": self._remove("addons", self._get_param("addonName"))})

    # --- Access entries

    def create_access_entry(self) -> ActionResult:
        principal = self._get_param("principalArn")
        entry = {
            **self._given("principalArn", "tags"),
            "kubernetesGroups": self._get_param("kubernetesGroups", []),
            "username": self._get_param("username", principal),
            "type": self._get_param("type", "STANDARD"),
            "accessEntryArn": self._arn(f"access-entry/{{cluster}}/{principal}"),
        }
        return ActionResult({"accessEntry": self._make("entries", principal, entry)})

    def describe_access_entry(self) -> ActionResult:
        return ActionResult({"accessEntry": self._find("entries", self._get_param("principalArn"))})

    def list_access_entries(self) -> ActionResult:
        return ActionResult({"accessEntries": list(self._all("entries"))})

    def delete_access_entry(self) -> ActionResult:
        self._remove("entries", self._get_param("principalArn"))
        return ActionResult({})

    def associate_access_policy(self) -> ActionResult:
        policy = {**self._given("policyArn", "accessScope"), "associatedAt": datetime.now(UTC)}
        self._policies()[policy["policyArn"]] = policy
        return ActionResult({**self._principal(), "associatedAccessPolicy": policy})

    def list_associated_access_policies(self) -> ActionResult:
        return ActionResult({**self._principal(), "associatedAccessPolicies": list(self._policies().values())})

    def disassociate_access_policy(self) -> ActionResult:
        self._policies().pop(self._get_param("policyArn"), None)
        return ActionResult({})

    def _policies(self) -> dict[str, _Thing]:
        policies: dict[str, _Thing] = self._find("entries", self._get_param("principalArn")).setdefault("_policies", {})
        return policies

    def _principal(self) -> _Thing:
        return {"clusterName": self._name(), "principalArn": self._get_param("principalArn")}

    # --- Pod identity associations

    def create_pod_identity_association(self) -> ActionResult:
        given = self._given("namespace", "serviceAccount", "roleArn", "tags")
        account = (given["namespace"], given["serviceAccount"])
        if account in [(one["namespace"], one["serviceAccount"]) for one in self._all("associations").values()]:
            raise _is_there(f"an association of {'/'.join(account)}")
        key = f"a-{uuid.uuid4().hex[:17]}"
        arn = self._arn(f"podidentityassociation/{{cluster}}/{key}")
        made = {**given, "associationId": key, "associationArn": arn}
        return ActionResult({"association": self._make("associations", key, made)})

    def describe_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self._find("associations", self._get_param("associationId"))})

    def list_pod_identity_associations(self) -> ActionResult:
        return ActionResult({"associations": list(self._all("associations").values())})

    def delete_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self._remove("associations", self._get_param("associationId"))})

    # --- What they share

    def _name(self) -> str:
        name: str = self._get_param("clusterName") or self._get_param("name")
        return name

    def _all(self, kind: str) -> dict[str, _Thing]:
        cluster = self.eks_backend.describe_cluster(self._name())
        things: dict[str, _Thing] = vars(cluster).setdefault(f"_{kind}", {})
        return things

    def _make(self, kind: str, key: str, thing: _Thing) -> _Thing:
        if key in self._all(kind):
            raise _is_there(key)
        now = datetime.now(UTC)
        self._all(kind)[key] = {"clusterName": self._name(), "createdAt": now, "modifiedAt": now, **thing}
        return self._all(kind)[key]

    def _find(self, kind: str, key: str) -> _Thing:
        if key not in self._all(kind):
            raise ResourceNotFoundException(clusterName=self._name(), message=f"There is no {key} among the {kind}")
        return self._all(kind)[key]

    def _remove(self, kind: str, key: str) -> _Thing:
        self._find(kind, key)
        return self._all(kind).pop(key)

    def _given(self, *names: str) -> _Thing:
        given = {name: self._get_param(name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _arn(self, rest: str) -> str:
        return f"arn:aws:eks:{self.region}:{self.current_account}:{rest.format(cluster=self._name())}"


def _update(kind: str, update_id: str = "") -> ActionResult:
    update = {"id": update_id or str(uuid.uuid4()), "status": "Successful", "type": kind, "params": [], "errors": []}
    return ActionResult({"update": {**update, "createdAt": datetime.now(UTC)}})


def _is_there(what: str) -> ResourceInUseException:
    return ResourceInUseException(
        clusterName=None, nodegroupName=None, addonName=None, message=f"There is {what} already"
    )


# --- What there is


def inventory() -> set[str]:
    """All that is in AWS and has a name, of the kinds that this project or its cluster makes."""
    return {f"{kind}: {name}" for kind, names in _KINDS.items() for name in names()}


def _paged(service: str, operation: str, key: str, name: str = "") -> Callable[[], list[str]]:
    def names() -> list[str]:
        pages = client(service, REGION).get_paginator(operation).paginate()
        return [str(one[name] if name else one) for page in pages for one in page[key]]

    return names


def _filtered(service: str, operation: str, key: str, name: str, **given: Any) -> Callable[[], list[str]]:
    return lambda: [str(one[name]) for one in getattr(client(service, REGION), operation)(**given)[key]]


def _keys() -> list[str]:
    kms = client("kms", REGION)
    described = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    return [key["KeyId"] for key in described if key["KeyManager"] == "CUSTOMER" and key["KeyState"] == "Enabled"]


def _records() -> list[str]:
    route53 = client("route53", REGION)
    zones = [zone["Id"] for zone in route53.list_hosted_zones()["HostedZones"]]
    listed = [route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] for zone in zones]
    return [f"{one['Name']} {one['Type']}" for records in listed for one in records if one["Type"] not in ("NS", "SOA")]


def _peerings() -> list[str]:
    listed = client("ec2", REGION).describe_vpc_peering_connections()["VpcPeeringConnections"]
    return [one["VpcPeeringConnectionId"] for one in listed if one["Status"]["Code"] == "active"]


_ALIVE: Final = [{"Name": "state", "Values": ["pending", "available"]}]

_KINDS: Final[dict[str, Callable[[], list[str]]]] = {
    "alarm": _paged("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    "bucket": _filtered("s3", "list_buckets", "Buckets", "Name"),
    "composite alarm": _paged("cloudwatch", "describe_alarms", "CompositeAlarms", "AlarmName"),
    "cluster": _paged("eks", "list_clusters", "clusters"),
    "dashboard": _paged("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    "database": _paged("rds", "describe_db_instances", "DBInstances", "DBInstanceIdentifier"),
    "database parameter group": _paged(
        "rds", "describe_db_parameter_groups", "DBParameterGroups", "DBParameterGroupName"
    ),
    "database snapshot": _paged("rds", "describe_db_snapshots", "DBSnapshots", "DBSnapshotIdentifier"),
    "database subnet group": _paged("rds", "describe_db_subnet_groups", "DBSubnetGroups", "DBSubnetGroupName"),
    "elastic address": _filtered("ec2", "describe_addresses", "Addresses", "AllocationId"),
    "flow log": _paged("ec2", "describe_flow_logs", "FlowLogs", "FlowLogId"),
    "internet gateway": _paged("ec2", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "key": _keys,
    "key alias": _paged("kms", "list_aliases", "Aliases", "AliasName"),
    "launch template": _paged("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "load balancer": _paged("elb", "describe_load_balancers", "LoadBalancerDescriptions", "LoadBalancerName"),
    "log group": _paged("logs", "describe_log_groups", "logGroups", "logGroupName"),
    "NAT gateway": _filtered("ec2", "describe_nat_gateways", "NatGateways", "NatGatewayId", Filter=_ALIVE),
    "OIDC provider": _filtered("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn"),
    "peering": _peerings,
    "record": _records,
    "query": _filtered("logs", "describe_query_definitions", "queryDefinitions", "name"),
    "role": _paged("iam", "list_roles", "Roles", "RoleName"),
    "route table": _paged("ec2", "describe_route_tables", "RouteTables", "RouteTableId"),
    "secret": _paged("secretsmanager", "list_secrets", "SecretList", "Name"),
    "security group": _paged("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
    "subnet": _paged("ec2", "describe_subnets", "Subnets", "SubnetId"),
    "topic": _paged("sns", "list_topics", "Topics", "TopicArn"),
    "VPC": _paged("ec2", "describe_vpcs", "Vpcs", "VpcId"),
}
