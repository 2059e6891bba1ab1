"""A mock AWS on loopback: moto's server, with additions for this project's Terraform and scripts.

The additions, and the reasons:

* EKS: add-ons, access entries, pod identity associations, updates and versions, and the protection from deletion, which
  moto does not implement; attributes of clusters and node groups that moto does not store or invents; the endpoint and
  the CA of the cluster.
* Systems Manager: AWS's public parameters with the releases of the nodes' AMI.
* AWS Budgets: subscribers and tags, which moto does not implement.
* RDS: attributes of a database and of its parameters that moto does not store; the endpoint of the local database, and
  its owner's name and password in the secret, which moto would invent.
* CloudWatch: composite alarms with their suppressors, which moto can describe but not create; saved queries of Logs
  Insights, which moto does not implement; the classes of log groups, which moto does not store; the log group of a
  cluster, which EKS creates again if it has lines of a deleted cluster left.
* EC2: the tags of a launch template itself, which moto adds to the tags of what it launches.
* S3: bucket policies are stored but not enforced. Moto ignores conditions, so the policy against plain HTTP would deny
  every request.
"""

import base64
import contextlib
import json
import logging
import os
import re
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import mock

# Before the imports of moto, which reads it at import.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

from moto.budgets.responses import BudgetsResponse
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.eks import urls
from moto.eks.exceptions import InvalidParameterException, ResourceInUseException, ResourceNotFoundException
from moto.eks.responses import EKSResponse
from moto.iam.access_control import PermissionResult
from moto.logs.models import LogGroup, logs_backends
from moto.logs.responses import LogsResponse
from moto.rds.models import DBInstance, DBParameterGroup, MasterUserSecret
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer
from moto.ssm.models import Parameter, SimpleSystemManagerBackend

from ops.deploy.common import aws_client
from ops.rehearsal.tls import Address

ACCOUNT: Final = "123456789012"  # moto's
REGION: Final = "us-east-1"

_Resource: TypeAlias = dict[str, Any]

# Kubernetes versions, with the last day of their standard support.
_SUPPORTED: Final = {"1.34": "2026-12-02", "1.35": "2027-03-27", "1.36": "2027-08-02"}


@dataclass(frozen=True)
class ClusterHooks:
    """Called when EKS changes the cluster; by default, nothing happens.

    Attributes:
        set_version: gives it this version of Kubernetes.
        replace_nodes: gives it new nodes for the present ones.
        clear: removes all of its objects.
    """

    set_version: Callable[[str], None] = lambda _: None
    replace_nodes: Callable[[], None] = lambda: None
    clear: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Endpoints:
    """The cluster and the database on this machine, which the mock returns instead of real ones.

    Attributes:
        cluster_url: of the cluster's API.
        cluster_ca: the certificate of the CA that signed the API's certificate, PEM.
        database: the address where the database listens.
        database_password: of its owner.
        hooks: what EKS does to the cluster.
    """

    cluster_url: str
    cluster_ca: Path
    database: Address
    database_password: str
    hooks: ClusterHooks = ClusterHooks()


@contextlib.contextmanager
def running(endpoints: Endpoints) -> Iterator[dict[str, str]]:
    """Runs the mock on loopback, empty at first, and gives the environment variables with which AWS clients use it.

    They are set in this process too, since the mock itself calls AWS.
    """
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log each request
    with _additions(endpoints):
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # The mock keeps what it has in this process, also what an earlier one created.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()  # noqa: S310
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",  # nosec B105 # the mock accepts any
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        try:
            with mock.patch.dict(os.environ, environment):
                yield environment
        finally:
            server.stop()


def _additions(endpoints: Endpoints) -> contextlib.ExitStack:
    """Patches moto until the context is left."""

    class Eks(_Eks):
        """EKS with these endpoints."""

    Eks.endpoints = endpoints
    paths = {
        f"{{0}}/clusters/(?P<name>[^/]+)/{path}": Eks.dispatch
        for kind in ("addons", "access-entries", "pod-identity-associations", "updates")
        for path in (f"{kind}$", f"{kind}/(?P<rest>.+)$")
    }
    paths |= dict.fromkeys(urls.url_paths, Eks.dispatch)
    versions = "{0}/clusters/(?P<name>[^/]+)/node-groups/(?P<nodegroupName>[^/]+)/update-version$"
    paths |= dict.fromkeys(("{0}/addons/supported-versions$", "{0}/cluster-versions$", versions), Eks.dispatch)

    init_database = DBInstance.__init__
    set_parameters = DBParameterGroup.update_parameters
    init_version = LaunchTemplateVersion.__init__
    describe_log_group = LogGroup.to_describe_dict
    get_parameter = SimpleSystemManagerBackend.get_parameter

    def database(created: DBInstance, *args: Any, **given: Any) -> None:
        init_database(created, *args, **{"ca_certificate_identifier": _DATABASE_CA, **given})
        for attribute, parameter in _NOT_STORED.items():
            setattr(created, attribute, given.get(parameter))

    def parameters(group: DBParameterGroup, new: Iterable[_Resource]) -> None:
        set_parameters(group, [{**one, "Source": "user"} for one in new])

    def version(
        created: LaunchTemplateVersion, template: LaunchTemplate, number: int, data: _Resource, description: str
    ) -> None:
        tags = [one for one in data.get("TagSpecifications", []) if one["ResourceType"] != "launch-template"]
        init_version(created, template, number, {**data, "TagSpecifications": tags}, description)

    def log_group(group: LogGroup) -> _Resource:
        return {**describe_log_group(group), "logGroupClass": getattr(group, "log_group_class", "STANDARD")}

    def credentials(secret: MasterUserSecret) -> str:
        return json.dumps({"username": secret.resource.master_username, "password": endpoints.database_password})

    def parameter(backend: SimpleSystemManagerBackend, name: str) -> Parameter | None:
        if not (found := _NODE_RELEASE.fullmatch(name)):
            return get_parameter(backend, name)
        value = f"{found['version']}.4-20261120"
        return Parameter(ACCOUNT, name, value, "String", None, None, None, datetime.now(UTC), 1, "text")

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.dict(urls.url_paths, paths))
    for owner, name, value in (
        (DBInstance, "__init__", database),
        (DBParameterGroup, "update_parameters", parameters),
        (LaunchTemplateVersion, "__init__", version),
        (DBInstance, "address", endpoints.database[0]),
        (DBInstance, "endpoint", {"Address": endpoints.database[0], "Port": endpoints.database[1]}),
        (MasterUserSecret, "_generate_secret_string", credentials),
        (LogGroup, "to_describe_dict", log_group),
        (SimpleSystemManagerBackend, "get_parameter", parameter),
        (FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL),
    ):
        stack.enter_context(mock.patch.object(owner, name, value))
    for responses, operation, handler in (
        (CloudWatchResponse, "put_composite_alarm", _CloudWatch.put_composite_alarm),
        (BudgetsResponse, "create_budget", _Budgets.create_budget),
        (BudgetsResponse, "describe_subscribers_for_notification", _Budgets.describe_subscribers_for_notification),
        (BudgetsResponse, "list_tags_for_resource", _Budgets.list_tags_for_resource),
        (LogsResponse, "create_log_group", _Logs.create_log_group),
        (LogsResponse, "delete_log_group", _Logs.delete_log_group),
        (LogsResponse, "put_query_definition", _Logs.put_query_definition),
        (LogsResponse, "describe_query_definitions", _Logs.describe_query_definitions),
        (LogsResponse, "delete_query_definition", _Logs.delete_query_definition),
    ):
        stack.enter_context(mock.patch.object(responses, operation, handler, create=True))
    return stack


# Attributes of a database that moto does not store, with the parameter of CreateDBInstance for each.
_NOT_STORED: Final = {
    "database_insights_mode": "database_insights_mode",
    "engine_lifecycle_support": "engine_lifecycle_support",
    "performance_insights_enabled": "enable_performance_insights",
    "performance_insights_kms_key_id": "performance_insights_kms_key_id",
    "performance_insights_retention_period": "performance_insights_retention_period",
}


_DATABASE_CA: Final = "rds-ca-rsa2048-g1"  # AWS's default; with moto's own, Terraform would modify each new instance

_NODE_RELEASE: Final = re.compile(
    r"/aws/service/eks/optimized-ami/(?P<version>1\.\d+)/amazon-linux-2023/(x86_64|arm64)/standard"
    "/recommended/release_version"
)

_CREATE_BUDGET: Final[Callable[[BudgetsResponse], str]] = BudgetsResponse.create_budget
_CREATE_LOG_GROUP: Final = LogsResponse.create_log_group
_DELETE_LOG_GROUP: Final = LogsResponse.delete_log_group


class _Budgets(BudgetsResponse):  # type: ignore[misc]  # moto's types are not read
    """AWS Budgets, with subscribers and tags."""

    def describe_subscribers_for_notification(self) -> str:
        budget = self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]
        (found,) = [one for one in budget.notifications if one.details == self._get_param("Notification")]
        return json.dumps({"Subscribers": found.subscribers})

    def create_budget(self) -> str:
        _Budgets._tags(self)[self._get_param("Budget")["BudgetName"]] = self._get_param("ResourceTags", [])
        return _CREATE_BUDGET(self)

    def list_tags_for_resource(self) -> str:
        name = self._get_param("ResourceARN").rpartition("/")[2]
        return json.dumps({"ResourceTags": _Budgets._tags(self).get(name, [])})

    def _tags(self) -> dict[str, list[_Resource]]:
        tags: dict[str, list[_Resource]] = self.backend.__dict__.setdefault("_tags", {})
        return tags


class _CloudWatch(CloudWatchResponse):  # type: ignore[misc]  # moto's types are not read
    """CloudWatch, with composite alarms."""

    def put_composite_alarm(self) -> ActionResult:
        created = self.put_metric_alarm()
        (alarm,) = self.cloudwatch_backend.get_alarms_by_alarm_names([self._get_param("AlarmName")])
        alarm.actions_suppressor = self._get_param("ActionsSuppressor")
        alarm.actions_suppressor_wait_period = self._get_param("ActionsSuppressorWaitPeriod")
        alarm.actions_suppressor_extension_period = self._get_param("ActionsSuppressorExtensionPeriod")
        return created


class _Logs(LogsResponse):  # type: ignore[misc]  # moto's types are not read
    """CloudWatch Logs, with classes of log groups and with saved queries."""

    def create_log_group(self) -> str:
        created: str = _CREATE_LOG_GROUP(self)
        group: Any = self.logs_backend.groups[self._get_param("logGroupName")]
        group.log_group_class = self._get_param("logGroupClass", "STANDARD")
        return created

    def delete_log_group(self) -> str:
        deleted: str = _DELETE_LOG_GROUP(self)
        name, late = self._get_param("logGroupName"), vars(self.logs_backend).get(_LAST_LINES, set())
        if name in late:
            late.remove(name)
            self.logs_backend.create_log_group(name, {})
        return deleted

    def put_query_definition(self) -> str:
        given = {name: self._get_param(name) for name in ("name", "queryString", "logGroupNames")}
        key = self._get_param("queryDefinitionId") or str(uuid.uuid4())
        _Logs._definitions(self)[key] = {**given, "queryDefinitionId": key}
        return json.dumps({"queryDefinitionId": key})

    def describe_query_definitions(self) -> str:
        prefix = self._get_param("queryDefinitionNamePrefix", "")
        found = [one for one in _Logs._definitions(self).values() if one["name"].startswith(prefix)]
        return json.dumps({"queryDefinitions": found})

    def delete_query_definition(self) -> str:
        found = _Logs._definitions(self).pop(self._get_param("queryDefinitionId"), None)
        return json.dumps({"success": found is not None})

    def _definitions(self) -> dict[str, _Resource]:
        definitions: dict[str, _Resource] = self.logs_backend.__dict__.setdefault("_query_definitions", {})
        return definitions


_LAST_LINES: Final = "_last_lines"  # the log groups for which EKS still has lines of clusters that are gone


class _Eks(EKSResponse):  # type: ignore[misc]  # as above
    """EKS. A cluster's resources are stored at the cluster, by kind, then by the name or id that the API uses."""

    endpoints: Endpoints

    def create_cluster(self) -> ActionResult:
        created = super().create_cluster()
        cluster: Any = created.result["cluster"]
        cluster.endpoint = self.endpoints.cluster_url
        ca = self.endpoints.cluster_ca.read_bytes()
        cluster.certificate_authority = {"data": base64.b64encode(ca).decode()}
        cluster.access_config = self._get_param("accessConfig")
        cluster.upgrade_policy = self._get_param("upgradePolicy")
        cluster.deletion_protection = self._get_param("deletionProtection", False)
        self.endpoints.hooks.set_version(cluster.version)
        return created

    def create_nodegroup(self) -> ActionResult:
        created = super().create_nodegroup()
        group: Any = created.result["nodegroup"]
        group.remote_access = self._get_param("remoteAccess")
        group.update_config = self._get_param("updateConfig")
        return created

    def delete_cluster(self) -> ActionResult:
        if self.eks_backend.describe_cluster(self._name()).deletion_protection:
            raise _invalid("Cannot delete a cluster that has deletion protection enabled")
        setups = self.eks_backend.describe_cluster(self._name()).logging["clusterLogging"]
        if any(setup["enabled"] for setup in setups):
            logs = vars(logs_backends[self.current_account][self.region])
            logs.setdefault(_LAST_LINES, set()).add(f"/aws/eks/{self._name()}/cluster")
        self.endpoints.hooks.clear()
        return super().delete_cluster()

    def update_cluster_config(self) -> ActionResult:
        super().update_cluster_config()
        if (is_protected := self._get_param("deletionProtection")) is not None:
            self.eks_backend.describe_cluster(self._name()).deletion_protection = is_protected
            return _update("DeletionProtectionUpdate")
        return _update("LoggingUpdate" if self._get_param("logging") else "VpcConfigUpdate")

    def update_cluster_version(self) -> ActionResult:
        cluster, version = self.eks_backend.describe_cluster(self._name()), self._get_param("version")
        if _minor(version) != _minor(cluster.version) + 1:
            raise _invalid(f"Unsupported Kubernetes minor version update from {cluster.version} to {version}")
        cluster.version = version
        self.endpoints.hooks.set_version(version)
        return _update("VersionUpdate")

    def update_nodegroup_version(self) -> ActionResult:
        group = self.eks_backend.describe_nodegroup(self._name(), self._get_param("nodegroupName"))
        version = self._get_param("version") or group.version
        if _minor(version) > _minor(self.eks_backend.describe_cluster(self._name()).version):
            raise _invalid(f"Nodegroup Kubernetes version {version} is newer than the control plane's")
        group.version, group.release_version = version, self._get_param("releaseVersion") or group.release_version
        if template := self._get_param("launchTemplate"):
            group.launch_template = template
        self.endpoints.hooks.replace_nodes()
        return _update("VersionUpdate")

    def describe_cluster_versions(self) -> ActionResult:
        described = [
            {
                "clusterVersion": version,
                "clusterType": "eks",
                "versionStatus": "STANDARD_SUPPORT",
                "endOfStandardSupportDate": datetime.fromisoformat(end).replace(tzinfo=UTC),
            }
            for version, end in _SUPPORTED.items()
        ]
        return ActionResult({"clusterVersions": described})

    def describe_update(self) -> ActionResult:
        return _update("Any", self._get_param("updateId"))

    # --- Add-ons

    def describe_addon_versions(self) -> ActionResult:
        cluster = self._get_param("kubernetesVersion")
        version = {
            "addonVersion": f"v{cluster}.0-eksbuild.1",
            "compatibilities": [{"clusterVersion": cluster, "defaultVersion": True}],
        }
        return ActionResult({"addons": [{"addonName": self._get_param("addonName"), "addonVersions": [version]}]})

    def create_addon(self) -> ActionResult:
        name = self._get_param("addonName")
        addon = {
            **self._given("addonName", "configurationValues", "serviceAccountRoleArn", "tags"),
            "addonVersion": self._get_param("addonVersion", "v1.0.0-eksbuild.1"),
            "addonArn": self._arn(f"addon/{{cluster}}/{name}/{uuid.uuid4()}"),
            "status": "ACTIVE",
            "health": {"issues": []},
        }
        return ActionResult({"addon": self._create("addons", name, addon)})

    def describe_addon(self) -> ActionResult:
        return ActionResult({"addon": self._find("addons", self._get_param("addonName"))})

    def list_addons(self) -> ActionResult:
        return ActionResult({"addons": list(self._all("addons"))})

    def update_addon(self) -> ActionResult:
        self._find("addons", self._get_param("addonName")).update(self._given("configurationValues", "addonVersion"))
        return _update("AddonUpdate")

    def delete_addon(self) -> ActionResult:
        return ActionResult({"addon": self._delete("addons", self._get_param("addonName"))})

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
        return ActionResult({"accessEntry": self._create("entries", principal, entry)})

    def describe_access_entry(self) -> ActionResult:
        return ActionResult({"accessEntry": self._find("entries", self._get_param("principalArn"))})

    def list_access_entries(self) -> ActionResult:
        return ActionResult({"accessEntries": list(self._all("entries"))})

    def delete_access_entry(self) -> ActionResult:
        self._delete("entries", self._get_param("principalArn"))
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

    def _policies(self) -> dict[str, _Resource]:
        policies: dict[str, _Resource] = self._find("entries", self._get_param("principalArn")).setdefault(
            "_policies", {}
        )
        return policies

    def _principal(self) -> _Resource:
        return {"clusterName": self._name(), "principalArn": self._get_param("principalArn")}

    # --- Pod identity associations

    def create_pod_identity_association(self) -> ActionResult:
        given = self._given("namespace", "serviceAccount", "roleArn", "tags")
        account = (given["namespace"], given["serviceAccount"])
        if account in [(one["namespace"], one["serviceAccount"]) for one in self._all("associations").values()]:
            raise _exists(f"an association of {'/'.join(account)}")
        key = f"a-{uuid.uuid4().hex[:17]}"
        arn = self._arn(f"podidentityassociation/{{cluster}}/{key}")
        created = {**given, "associationId": key, "associationArn": arn}
        return ActionResult({"association": self._create("associations", key, created)})

    def describe_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self._find("associations", self._get_param("associationId"))})

    def list_pod_identity_associations(self) -> ActionResult:
        return ActionResult({"associations": list(self._all("associations").values())})

    def delete_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self._delete("associations", self._get_param("associationId"))})

    # --- Shared

    def _name(self) -> str:
        name: str = self._get_param("clusterName") or self._get_param("name")
        return name

    def _all(self, kind: str) -> dict[str, _Resource]:
        cluster = self.eks_backend.describe_cluster(self._name())
        resources: dict[str, _Resource] = vars(cluster).setdefault(f"_{kind}", {})
        return resources

    def _create(self, kind: str, key: str, resource: _Resource) -> _Resource:
        if key in self._all(kind):
            raise _exists(key)
        now = datetime.now(UTC)
        self._all(kind)[key] = {"clusterName": self._name(), "createdAt": now, "modifiedAt": now, **resource}
        return self._all(kind)[key]

    def _find(self, kind: str, key: str) -> _Resource:
        if key not in self._all(kind):
            raise ResourceNotFoundException(clusterName=self._name(), message=f"There is no {key} in the {kind}")
        return self._all(kind)[key]

    def _delete(self, kind: str, key: str) -> _Resource:
        self._find(kind, key)
        return self._all(kind).pop(key)

    def _given(self, *names: str) -> _Resource:
        given = {name: self._get_param(name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _arn(self, rest: str) -> str:
        return f"arn:aws:eks:{self.region}:{self.current_account}:{rest.format(cluster=self._name())}"


def _update(kind: str, update_id: str = "") -> ActionResult:
    update = {"id": update_id or str(uuid.uuid4()), "status": "Successful", "type": kind, "params": [], "errors": []}
    return ActionResult({"update": {**update, "createdAt": datetime.now(UTC)}})


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def _invalid(message: str) -> InvalidParameterException:
    return InvalidParameterException(clusterName=None, nodegroupName=None, addonName=None, message=message)


def _exists(what: str) -> ResourceInUseException:
    return ResourceInUseException(
        clusterName=None, nodegroupName=None, addonName=None, message=f"There already is {what}"
    )


# --- Inventory


def inventory() -> set[str]:
    """Returns all resources in AWS of the kinds that this project or its cluster creates, by name or id."""
    return {f"{kind}: {name}" for kind, names in _KINDS.items() for name in names()}


def _paged(service: str, operation: str, key: str, name: str = "") -> Callable[[], list[str]]:
    def names() -> list[str]:
        pages = aws_client(service, REGION).get_paginator(operation).paginate()
        return [str(one[name] if name else one) for page in pages for one in page[key]]

    return names


def _filtered(service: str, operation: str, key: str, name: str, **given: Any) -> Callable[[], list[str]]:
    return lambda: [str(one[name]) for one in getattr(aws_client(service, REGION), operation)(**given)[key]]


def _keys() -> list[str]:
    kms = aws_client("kms", REGION)
    described = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    return [key["KeyId"] for key in described if key["KeyManager"] == "CUSTOMER" and key["KeyState"] == "Enabled"]


def _records() -> list[str]:
    route53 = aws_client("route53", REGION)
    zones = [zone["Id"] for zone in route53.list_hosted_zones()["HostedZones"]]
    listed = [route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] for zone in zones]
    return [f"{one['Name']} {one['Type']}" for records in listed for one in records if one["Type"] not in ("NS", "SOA")]


def _peerings() -> list[str]:
    listed = aws_client("ec2", REGION).describe_vpc_peering_connections()["VpcPeeringConnections"]
    return [one["VpcPeeringConnectionId"] for one in listed if one["Status"]["Code"] == "active"]


_NOT_DELETED: Final = [{"Name": "state", "Values": ["pending", "available"]}]

_KINDS: Final[dict[str, Callable[[], list[str]]]] = {
    "budget": _filtered("budgets", "describe_budgets", "Budgets", "BudgetName", AccountId=ACCOUNT),
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
    "health check": _paged("route53", "list_health_checks", "HealthChecks", "Id"),
    "internet gateway": _paged("ec2", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "key": _keys,
    "key alias": _paged("kms", "list_aliases", "Aliases", "AliasName"),
    "launch template": _paged("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "load balancer": _paged("elb", "describe_load_balancers", "LoadBalancerDescriptions", "LoadBalancerName"),
    "log group": _paged("logs", "describe_log_groups", "logGroups", "logGroupName"),
    "NAT gateway": _filtered("ec2", "describe_nat_gateways", "NatGateways", "NatGatewayId", Filter=_NOT_DELETED),
    "OIDC provider": _filtered("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn"),
    "peering": _peerings,
    "record": _records,
    "query": _filtered("logs", "describe_query_definitions", "queryDefinitions", "name"),
    "policy": _filtered("iam", "list_policies", "Policies", "PolicyName", Scope="Local"),
    "role": _paged("iam", "list_roles", "Roles", "RoleName"),
    "route table": _paged("ec2", "describe_route_tables", "RouteTables", "RouteTableId"),
    "schedule": _paged("scheduler", "list_schedules", "Schedules", "Name"),
    "secret": _paged("secretsmanager", "list_secrets", "SecretList", "Name"),
    "security group": _paged("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
    "subnet": _paged("ec2", "describe_subnets", "Subnets", "SubnetId"),
    "topic": _paged("sns", "list_topics", "Topics", "TopicArn"),
    "VPC": _paged("ec2", "describe_vpcs", "Vpcs", "VpcId"),
}
