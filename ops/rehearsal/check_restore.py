"""Checks after the restore and a change of the password: all have the new database, which is as the old one was."""

import base64
import os
import ssl
from typing import Any

import aiohttp

from ops.deploy.common import Outputs, aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal.steps import DATABASE, RESTORED

# What RDS describes of the old database, and must describe of the new one.
SETTINGS = (
    *("DBInstanceClass", "Engine", "EngineVersion", "DBName", "MasterUsername", "MultiAZ", "PubliclyAccessible"),
    *("StorageType", "StorageEncrypted", "AllocatedStorage", "MaxAllocatedStorage", "CACertificateIdentifier"),
    *("AutoMinorVersionUpgrade", "BackupRetentionPeriod", "CopyTagsToSnapshot", "DeletionProtection"),
    *("IAMDatabaseAuthenticationEnabled", "EnabledCloudwatchLogsExports", "EngineLifecycleSupport"),
    *("MonitoringInterval", "MonitoringRoleArn", "PerformanceInsightsEnabled", "PerformanceInsightsKMSKeyId"),
    *("PerformanceInsightsRetentionPeriod", "VpcSecurityGroups", "DBParameterGroups", "DBSubnetGroup", "TagList"),
)


def describe(outputs: Outputs, identifier: str) -> dict[str, Any]:
    """The database, as RDS describes it."""
    rds = aws_client("rds", outputs.region)
    (found,) = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    described: dict[str, Any] = {**found, "TagList": sorted(found["TagList"], key=lambda tag: str(tag["Key"]))}
    return described


def test_terraform_manages_the_new_database(state: dict[str, Any], outputs: Outputs) -> None:
    """Its state and its outputs have it, and not the old one."""
    (managed,) = [one for one in state["resources"] if one["type"] == "aws_db_instance"]

    assert [one["attributes"]["identifier"] for one in managed["instances"]] == [RESTORED]
    assert outputs.database_identifier == RESTORED


def test_the_new_database_is_as_the_old_one(outputs: Outputs) -> None:
    """It has the same settings, and a password of its own that AWS manages."""
    old, new = describe(outputs, DATABASE), describe(outputs, RESTORED)

    assert {name: new.get(name) for name in SETTINGS} == {name: old.get(name) for name in SETTINGS}
    assert new["MasterUserSecret"]["SecretArn"] != old["MasterUserSecret"]["SecretArn"]
    assert new["MasterUserSecret"]["KmsKeyId"] == old["MasterUserSecret"]["KmsKeyId"]


def test_the_alarms_and_dashboards_read_the_new_database(outputs: Outputs) -> None:
    """No alarm and no panel reads the old one."""
    cloudwatch = aws_client("cloudwatch", outputs.region)
    pages = cloudwatch.get_paginator("describe_alarms").paginate()
    queries = [query for page in pages for alarm in page["MetricAlarms"] for query in alarm["Metrics"]]
    dimensions = [
        one for query in queries if "MetricStat" in query for one in query["MetricStat"]["Metric"]["Dimensions"]
    ]
    panels = cloudwatch.get_dashboard(DashboardName=f"{outputs.name}-platform")["DashboardBody"]

    read = {one["Value"] for one in dimensions if one["Name"] == "DBInstanceIdentifier"}
    assert read == {RESTORED}
    assert f'"DBInstanceIdentifier","{RESTORED}"' in "".join(panels.split())
    assert f'"DBInstanceIdentifier","{DATABASE}"' not in "".join(panels.split())


async def test_the_service_runs_on_the_new_database(outputs: Outputs) -> None:
    """Its Secret has the new address and the other role, and the public name serves the clients of the old database."""
    secret = Kubernetes(outputs).get("clients", "secret", "database")
    assert secret
    tls = ssl.create_default_context(cafile=os.environ["REHEARSAL_AUTHORITY"])
    url = f"https://{os.environ['REHEARSAL_PUBLIC']}/get/1"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=tls, server_hostname=outputs.hostname) as response,
    ):
        assert await response.json() == {"id": 1, "name": "Andres", "money": "200.00"}
    data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert data["DB_HOST"] == describe(outputs, RESTORED)["Endpoint"]["Address"]
    assert data["DB_USERNAME"] == "clients_service_b"
