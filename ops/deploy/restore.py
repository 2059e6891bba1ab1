"""Restores the database beside the old one, checks the new one, and moves the service to it.

RDS always restores into a new instance, and gives it defaults for what the call does not name: no security group of
ours, no parameter group, no managed password. So this names all that the old instance has. Terraform takes the new
instance over afterwards (`make restore`), and the old one stays until `make remove-database`.
"""

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ops.deploy import database, protection
from ops.deploy.common import CannotProceed, Outputs, aws_client, report, wait_for
from ops.deploy.database import Instance, JobFailed, Jobs
from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import wait_for_old_pods

_RESTORE_SECONDS: Final = 7200.0  # RDS creates a volume from the backup, and replays up to a day of changes
_REMOVAL_SECONDS: Final = 1800.0
_SOURCE_TAG: Final = "RestoredFrom"
_LOG_GROUPS: Final = "/aws/rds/instance/{}/"
_WITHOUT_FINAL_SNAPSHOT: Final = ("failed", "incompatible-network", "incompatible-restore")  # RDS can take none then

_Described = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """What is restored.

    Attributes:
        snapshot: the name of a snapshot; empty to restore the present database to a point in time.
        time: that point, with its time zone; None for the latest possible one.
    """

    snapshot: str = ""
    time: datetime | None = None

    def __str__(self) -> str:
        """As the tag of the new instance has it."""
        if self.snapshot:
            return f"snapshot {self.snapshot}"
        return self.time.astimezone(UTC).isoformat() if self.time else "latest"


@dataclass(frozen=True)
class Move:
    """How the service moves.

    Attributes:
        image: the service's image by digest, which the Jobs run too.
        ca_bundle: a URL or a file of the database's CA certificates.
        is_confirmed: whether to move without asking.
    """

    image: str
    ca_bundle: str
    is_confirmed: bool = False


def run(outputs: Outputs, identifier: str, source: Source, zone: str, move: Move, *, dry_run: bool = False) -> None:
    """Restores into the instance `identifier`, checks it, and moves the service to it. A later run continues.

    Where the old database still answers, it becomes read-only first, and the new one stays read-only until all pods
    have moved: so no add is acknowledged by a database that the service leaves.

    Args:
        outputs: of Terraform; they name the old instance.
        identifier: of the new instance.
        source: the snapshot or the point in time.
        zone: the availability zone of the new instance; empty to let RDS choose.
        move: how the service moves.
        dry_run: only check what exists, and print what would change.

    Raises:
        CannotProceed: with the reason.
    """
    if not re.fullmatch(rf"{outputs.name}(-[a-z0-9]+)+", identifier):
        raise CannotProceed(f"the new database must be named {outputs.name}-…, in lower case, but not {identifier}")
    if identifier == outputs.database_identifier:
        report(f"The service runs on {identifier} already.")  # an earlier run failed after the move, in Terraform
        return
    bundle = database.read_ca_bundle(move.ca_bundle)
    old = _describe(outputs, outputs.database_identifier)
    if old is None:
        reason = f"the database {outputs.database_identifier} does not exist, whose settings the new one gets"
        raise CannotProceed(f"{reason}: apply Terraform, which creates an empty one, then restore a snapshot")
    if dry_run:
        report(f"Would restore {source} into {identifier}, and move the service from {outputs.database_identifier}")
        return
    _restore(outputs, old, identifier, source, zone)
    new = database.find(replace(outputs, database_identifier=identifier))
    cluster = Kubernetes(outputs)
    jobs = Jobs(cluster, outputs, move.image, bundle)
    service = database.service_credentials(cluster, new)
    report(f"{identifier} holds {_inspect(jobs, new, service)}")
    answering = _find_answering(jobs, old, service)
    if not (move.is_confirmed or _confirms(f"Move the service to {identifier}? Only yes does: ")):
        raise CannotProceed(f"nothing uses {identifier}; run this again, or make remove-database DATABASE={identifier}")
    jobs.migrate(new, service)
    if answering:
        jobs.maintain(answering, service, "freeze")
        jobs.maintain(new, service, "freeze")
        database.move(cluster, service)
        wait_for_old_pods(cluster)
        jobs.maintain(new, service, "thaw")
    else:
        database.move(cluster, service)
    report(f"The service runs on {identifier}. The old database {outputs.database_identifier} stays.")


def _confirms(question: str) -> bool:
    try:
        return input(question) == "yes"
    except EOFError:  # nobody can answer
        return False


def write_outputs(file: Path, identifier: str) -> None:
    """Makes the instance the database of Terraform's outputs, until Terraform writes them again."""
    content = json.loads(file.read_text())
    content["database_identifier"]["value"] = identifier
    file.write_text(json.dumps(content, indent=2))


def remove(outputs: Outputs, identifier: str, *, dry_run: bool = False) -> None:
    """Deletes an instance that the service has left, with its logs. Its backups and a final snapshot stay.

    Raises:
        CannotProceed: it is the service's database, or none of this deployment.
    """
    if identifier == outputs.database_identifier:
        raise CannotProceed(f"{identifier} is the service's database: make destroy would remove it")
    if identifier != outputs.name and not identifier.startswith(f"{outputs.name}-"):
        raise CannotProceed(f"{identifier} does not belong to {outputs.name}")
    described = _describe(outputs, identifier)
    if described is None:
        report(f"There is no database {identifier}.")
    elif _tags(described).get("Project") != outputs.name:  # another deployment's name may begin as this one's
        raise CannotProceed(f"{identifier} does not belong to {outputs.name}")
    elif dry_run:
        report(f"Would delete the database {identifier}")
        return
    else:
        _delete(outputs, described)
    logs = aws_client("logs", outputs.region)
    for group in logs.describe_log_groups(logGroupNamePrefix=_LOG_GROUPS.format(identifier))["logGroups"]:
        report(f"{'Would delete' if dry_run else 'Deleting'} the log group {group['logGroupName']}")
        if not dry_run:
            logs.delete_log_group(logGroupName=group["logGroupName"])


def _delete(outputs: Outputs, described: _Described) -> None:
    rds, identifier = aws_client("rds", outputs.region), described["DBInstanceIdentifier"]
    final: _Described = {"FinalDBSnapshotIdentifier": f"{identifier}-final-{datetime.now(UTC):%Y%m%d%H%M%S}"}
    if described["DBInstanceStatus"] in _WITHOUT_FINAL_SNAPSHOT:
        final = {"SkipFinalSnapshot": True}
    report(f"Deleting the database {identifier}, {' '.join(map(str, final.values()))}")
    protection.turn_off_of_database(outputs, identifier)
    rds.delete_db_instance(DBInstanceIdentifier=identifier, DeleteAutomatedBackups=False, **final)
    wait_for(
        f"the deletion of {identifier}",
        lambda: _describe(outputs, identifier) is None or None,
        timeout=_REMOVAL_SECONDS,
    )


# --- The new instance


def _restore(outputs: Outputs, old: _Described, identifier: str, source: Source, zone: str) -> None:
    """Creates the instance unless an earlier run did, and waits until it is complete."""
    existing = _describe(outputs, identifier)
    if existing is None:
        _create_log_groups(outputs, old, identifier)
        report(f"Restoring {source} into {identifier}")
        _call_restore(outputs, old, identifier, source, zone)
    elif _tags(existing).get(_SOURCE_TAG) != str(source):
        raise CannotProceed(f"{identifier} exists and was not restored from {source}: choose another name")
    else:
        report(f"{identifier} exists: continuing")
    _wait_until_available(outputs, identifier)
    aws_client("rds", outputs.region).modify_db_instance(
        DBInstanceIdentifier=identifier, ApplyImmediately=True, **_settings_after_creation(old)
    )
    _wait_until_available(outputs, identifier)


def _call_restore(outputs: Outputs, old: _Described, identifier: str, source: Source, zone: str) -> None:
    rds = aws_client("rds", outputs.region)
    settings = _settings(old)
    settings["Tags"] = [*old["TagList"], {"Key": _SOURCE_TAG, "Value": str(source)}]
    if zone:
        settings |= {"AvailabilityZone": zone, "MultiAZ": False}  # a standby would choose the other zone, which is lost
    if source.snapshot:
        rds.restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier=identifier, DBSnapshotIdentifier=source.snapshot, **settings
        )
        return
    point = {"RestoreTime": source.time} if source.time else {"UseLatestRestorableTime": True}
    rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier=old["DBInstanceIdentifier"],
        TargetDBInstanceIdentifier=identifier,
        **point,
        **settings,
    )


def _settings(old: _Described) -> _Described:
    """Returns the parameters of a restore with which the new instance is as the old one."""
    if "MasterUserSecret" not in old:
        raise CannotProceed(f"AWS does not manage the password of {old['DBInstanceIdentifier']}: apply Terraform")
    return {
        "DBInstanceClass": old["DBInstanceClass"],
        "DBSubnetGroupName": old["DBSubnetGroup"]["DBSubnetGroupName"],
        "VpcSecurityGroupIds": [group["VpcSecurityGroupId"] for group in old["VpcSecurityGroups"]],
        "DBParameterGroupName": old["DBParameterGroups"][0]["DBParameterGroupName"],
        "PubliclyAccessible": old["PubliclyAccessible"],
        "MultiAZ": old["MultiAZ"],
        "StorageType": old["StorageType"],
        "Port": old["Endpoint"]["Port"] if "Endpoint" in old else old["DbInstancePort"],
        "CACertificateIdentifier": old["CACertificateIdentifier"],
        "EngineLifecycleSupport": old["EngineLifecycleSupport"],
        "AutoMinorVersionUpgrade": old["AutoMinorVersionUpgrade"],
        "BackupRetentionPeriod": old["BackupRetentionPeriod"],
        "CopyTagsToSnapshot": old["CopyTagsToSnapshot"],
        "DeletionProtection": old["DeletionProtection"],
        "EnableIAMDatabaseAuthentication": old["IAMDatabaseAuthenticationEnabled"],
        "EnableCloudwatchLogsExports": old["EnabledCloudwatchLogsExports"],
        "ManageMasterUserPassword": True,
        "MasterUserSecretKmsKeyId": old["MasterUserSecret"]["KmsKeyId"],
    }


def _settings_after_creation(old: _Described) -> _Described:
    """Returns the settings that a restore does not take, for ModifyDBInstance."""
    settings = {"MaxAllocatedStorage": old["MaxAllocatedStorage"]} if "MaxAllocatedStorage" in old else {}
    if old.get("MonitoringInterval"):
        settings |= {"MonitoringInterval": old["MonitoringInterval"], "MonitoringRoleArn": old["MonitoringRoleArn"]}
    if old.get("PerformanceInsightsEnabled"):
        settings |= {
            "EnablePerformanceInsights": True,
            "PerformanceInsightsKMSKeyId": old["PerformanceInsightsKMSKeyId"],
            "PerformanceInsightsRetentionPeriod": old["PerformanceInsightsRetentionPeriod"],
        }
    return settings


def _create_log_groups(outputs: Outputs, old: _Described, identifier: str) -> None:
    """Creates the new instance's log groups as the old one's; RDS itself would create them without key and time."""
    logs = aws_client("logs", outputs.region)
    prefix = _LOG_GROUPS.format(old["DBInstanceIdentifier"])
    for group in logs.describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]:
        name = _LOG_GROUPS.format(identifier) + group["logGroupName"].removeprefix(prefix)
        key = {"kmsKeyId": group["kmsKeyId"]} if "kmsKeyId" in group else {}
        tags = {tag["Key"]: tag["Value"] for tag in old["TagList"]}
        try:
            logs.create_log_group(logGroupName=name, tags=tags, **key)
        except logs.exceptions.ResourceAlreadyExistsException:
            report(f"The log group {name} exists.")
        if days := group.get("retentionInDays"):
            logs.put_retention_policy(logGroupName=name, retentionInDays=days)


def _wait_until_available(outputs: Outputs, identifier: str) -> None:
    def is_available() -> bool | None:
        described = _describe(outputs, identifier) or {}
        status, secret = described.get("DBInstanceStatus", "missing"), described.get("MasterUserSecret", {})
        if status.startswith(database.UNRECOVERABLE_STATUSES) or status == "missing":
            raise CannotProceed(f"the new database {identifier} has the status {status}")
        return (status in database.USABLE_STATUSES and secret.get("SecretStatus") == "active") or None

    wait_for(f"the new database {identifier} to become available", is_available, timeout=_RESTORE_SECONDS)


def _describe(outputs: Outputs, identifier: str) -> _Described | None:
    rds = aws_client("rds", outputs.region)
    try:
        described: _Described = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
    except rds.exceptions.DBInstanceNotFoundFault:
        return None
    return described


def _tags(described: _Described) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("TagList", [])}


# --- The check


def _find_answering(jobs: Jobs, old: _Described, service: dict[str, str]) -> Instance | None:
    """Returns the old instance if it answers the cluster, and reports what it holds."""
    identifier, status = old["DBInstanceIdentifier"], old["DBInstanceStatus"]
    if status not in database.USABLE_STATUSES:
        report(f"{identifier} is {status}, so it is not compared.")
        return None
    answering = database.find(jobs.outputs)
    try:
        report(f"{identifier} holds {_inspect(jobs, answering, service)}")
    except JobFailed:
        report(f"{identifier} does not answer the cluster, so it is not compared.")
        return None
    return answering


def _inspect(jobs: Jobs, instance: Instance, service: dict[str, str]) -> str:
    """Returns the schema's version, the number of clients, the newest client's id and the newest key's time."""
    found = re.search(r"\{.*\}", jobs.maintain(instance, service, "inspect"))
    if not found:
        raise CannotProceed("the Job's log cannot be read; run this again")
    content = json.loads(found[0])
    newest = f", the newest idempotency key is of {content['newest_key']}" if content["newest_key"] else ""
    return (
        f"{content['clients']} clients, the newest has the id {content['newest_client']}{newest}; "
        f"its schema is {content['schema']}"
    )
