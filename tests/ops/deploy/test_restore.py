"""python -m ops restore: the database is restored beside the old one, checked, and the service moves to it."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest

from ops.deploy import common, database, restore
from ops.deploy.common import aws_client
from ops.rehearsal import kubernetes
from ops.rehearsal.aws import ACCOUNT, REGION
from ops.rehearsal.check_restore import SETTINGS
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.restore import RestoredDatabases
from ops.rehearsal.steps import IMAGE, ROOT
from svc.postgres import maintenance, recovery
from svc.postgres.embedded import EmbeddedPostgres
from tests.ops.deploy.fixtures import (
    Account,
    MockAws,
    NoLoadBalancers,
    Result,
    Run,
    error_response,
    names,
    prepare_database,
    replacing,
    running_cluster,
    running_database,
)
from tests.ops.deploy.requests import Callers, deploy
from tests.ops.deploy.test_database import secret

pytestmark = pytest.mark.slow

NEW = "olimac-2"
LOG_GROUPS = "/aws/rds/instance/olimac"
Command = Callable[..., Result]


class RunsOnlyJobs(Controllers):
    """Runs Jobs as processes, but only reports Deployments as available."""

    async def _roll_out(self, store: Store, deployment: Object, *, is_deleted: bool) -> None:
        if not is_deleted:
            available = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
            generation = deployment["metadata"]["generation"]
            store.set_status(kind_of("Deployment"), deployment, {**available, "observedGeneration": generation})


@pytest.fixture(name="key", scope="module")
def create_key(mock_aws: MockAws) -> str:
    """A key for the logs and the owner's password, as Terraform creates it."""
    mock_aws.proxy.reset()
    arn: str = aws_client("kms", REGION).create_key()["KeyMetadata"]["Arn"]
    return arn


@pytest.fixture(autouse=True)
def deployed(mock_aws: MockAws, account: Account, key: str) -> None:
    """Gives the account's database all that Terraform gives it, and its log groups."""
    rds, ec2, logs = (aws_client(service, REGION) for service in ("rds", "ec2", "logs"))
    rds.delete_db_instance(DBInstanceIdentifier="olimac", SkipFinalSnapshot=True)
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"][:2]]
    rds.create_db_subnet_group(DBSubnetGroupName="olimac", DBSubnetGroupDescription="ours", SubnetIds=subnets)
    rds.create_db_parameter_group(DBParameterGroupName="olimac-1", DBParameterGroupFamily="postgres17", Description="-")
    by_name = [{"Name": "group-name", "Values": ["olimac-database"]}]
    groups = ec2.describe_security_groups(Filters=by_name)["SecurityGroups"]  # of an earlier test
    group = groups[0] if groups else ec2.create_security_group(GroupName="olimac-database", Description="PostgreSQL")
    rds.create_db_instance(
        DBInstanceIdentifier="olimac",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        EngineVersion="17",
        DBName="clients",
        Port=mock_aws.database[1],
        MasterUsername="postgres",
        ManageMasterUserPassword=True,
        MasterUserSecretKmsKeyId=key,
        EnableIAMDatabaseAuthentication=True,
        DBSubnetGroupName="olimac",
        VpcSecurityGroupIds=[group["GroupId"]],
        PubliclyAccessible=False,
        AllocatedStorage=20,
        MaxAllocatedStorage=100,
        StorageType="gp3",
        StorageEncrypted=True,
        DBParameterGroupName="olimac-1",
        CACertificateIdentifier="rds-ca-rsa2048-g1",
        EngineLifecycleSupport="open-source-rds-extended-support-disabled",
        BackupRetentionPeriod=7,
        CopyTagsToSnapshot=True,
        DeletionProtection=True,
        EnableCloudwatchLogsExports=["postgresql", "upgrade"],
        EnablePerformanceInsights=True,
        PerformanceInsightsKMSKeyId=key,
        PerformanceInsightsRetentionPeriod=7,
        MonitoringInterval=60,
        MonitoringRoleArn=f"arn:aws:iam::{ACCOUNT}:role/olimac-database-monitoring",
        Tags=[{"Key": "Project", "Value": "olimac"}],
    )
    for earlier in logs.describe_log_groups(logGroupNamePrefix=LOG_GROUPS)["logGroups"]:
        logs.delete_log_group(logGroupName=earlier["logGroupName"])
    for kind in ("postgresql", "upgrade"):
        logs.create_log_group(logGroupName=f"{LOG_GROUPS}/{kind}", kmsKeyId=key)
        logs.put_retention_policy(logGroupName=f"{LOG_GROUPS}/{kind}", retentionInDays=30)
    account.proxy.reset()


def _databases() -> list[str]:
    return [one["DBInstanceIdentifier"] for one in aws_client("rds", REGION).describe_db_instances()["DBInstances"]]


def create_other_database(identifier: str, project: str) -> None:
    """Creates an instance that was not restored, of the deployment `project`."""
    aws_client("rds", REGION).create_db_instance(
        DBInstanceIdentifier=identifier,
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        MasterUsername="postgres",
        Tags=[{"Key": "Project", "Value": project}],
    )


def describe(identifier: str) -> dict[str, Any]:
    (found,) = aws_client("rds", REGION).describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    described: dict[str, Any] = found
    return described


@pytest.fixture(name="server")
def run_server(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it, behind a TLS proxy at the address that RDS returns."""
    with running_database(mock_aws) as server:
        yield server


@pytest.fixture(name="restored")
def run_restored(server: EmbeddedPostgres, mock_aws: MockAws) -> Iterator[RestoredDatabases]:
    """Lets RDS restore databases, with their data."""
    with tempfile.TemporaryDirectory(prefix="restored-") as folder:
        databases = RestoredDatabases(
            Path(folder, "restored"), mock_aws.ca, server, mock_aws.database, mock_aws.owner_password
        )
        with databases.running():
            yield databases


@pytest.fixture(name="controllers")
def make_controllers(tmp_path: Path) -> Controllers:
    return Controllers({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())


@pytest.fixture(name="cluster")
def run_cluster(
    mock_aws: MockAws,
    account: Account,
    controllers: Controllers,
    restored: RestoredDatabases,
    production_objects: list[Object],
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the service on its database, and its real pods."""
    with running_cluster(mock_aws, account, controllers.running) as cluster:
        prepare_database(mock_aws, account, restored.first)
        deploy(account, production_objects, {"DRAIN_SECONDS": "3"})
        yield cluster


@pytest.fixture(name="job_cluster")
def run_job_cluster(
    mock_aws: MockAws,
    account: Account,
    restored: RestoredDatabases,
    production_objects: list[Object],
    tmp_path: Path,
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the service on its database; it runs Jobs as processes, and no pods of the service."""
    controllers = RunsOnlyJobs({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running, production_objects) as cluster:
        prepare_database(mock_aws, account, restored.first)
        yield cluster


@pytest.fixture(name="command")
def make_command(run: Run, mock_aws: MockAws, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command with the image and the database's CA certificates."""
    monkeypatch.setattr(common, "poll_seconds", 0.4)  # polls start kubectl, which slows the Jobs down
    return lambda *arguments: run(*arguments, "--image", IMAGE, "--authority", str(mock_aws.ca.certificate))


def client_names(url: str) -> set[str]:
    """Returns the names of all clients in the database."""

    async def fetch() -> set[str]:
        connection = await asyncpg.connect(url)
        try:
            return {row["name"] for row in await connection.fetch("SELECT name FROM clients")}
        finally:
            await connection.close()

    return asyncio.run(fetch())


# --- The service moves


@pytest.mark.deployment
def test_the_service_moves_without_losing_a_request(
    server: EmbeddedPostgres,
    restored: RestoredDatabases,
    cluster: kubernetes.Cluster,
    controllers: Controllers,
    account: Account,
    command: Command,
    key: str,
) -> None:
    """Gets are served, adds are served or refused; what is missing was added between restored time and freeze."""
    before = secret(cluster)
    with Callers(controllers).calling() as callers:
        callers.wait_for(3, 201)
        earlier = set(callers.added())
        result = command("restore", NEW, "--yes")
        callers.wait_for(3, 201)

    assert (result.status, result.stderr) == (0, "")
    assert callers.statuses("add") == {201, 503}
    assert callers.statuses("get") <= {200, 503}  # 503 where a session ended meanwhile
    assert sum(one.status == 503 for one in callers.sent if one.what == "get") <= 4
    old, new = client_names(server.dsn(database="clients")), client_names(restored.dsn(NEW, "clients"))
    added = callers.added()
    first_refused = next(one.at for one in callers.sent if one.what == "add" and one.status == 503)
    assert earlier <= new
    assert {client for client, at in added.items() if at > first_refused} <= new
    assert set(added) <= old | new
    assert describe(NEW)["Endpoint"]["Address"] == secret(cluster)["DB_HOST"] != before["DB_HOST"]
    assert secret(cluster) == {**before, "DB_HOST": secret(cluster)["DB_HOST"]}
    assert "olimac-2 holds" in result.stdout
    assert "olimac holds" in result.stdout
    outputs = json.loads(account.outputs_file.read_text())
    assert outputs["database_identifier"]["value"] == NEW
    assert names(cluster.objects("secrets")) == ["database"]
    assert_as_the_old_one(key)


def assert_as_the_old_one(key: str) -> None:
    """It has the same settings, a password that AWS manages, and log groups with a key and a retention time."""
    old, new = describe("olimac"), describe(NEW)
    old["TagList"].append({"Key": "RestoredFrom", "Value": "latest"})
    assert {name: new.get(name) for name in SETTINGS} == {name: old.get(name) for name in SETTINGS}
    assert new["MasterUserSecret"]["KmsKeyId"] == key
    assert new["MasterUserSecret"]["SecretArn"] != old["MasterUserSecret"]["SecretArn"]
    groups = aws_client("logs", REGION).describe_log_groups(logGroupNamePrefix=f"{LOG_GROUPS}-2/")["logGroups"]
    assert [(one["logGroupName"].rpartition("/")[2], one["retentionInDays"], one["kmsKeyId"]) for one in groups] == [
        ("postgresql", 30, key),
        ("upgrade", 30, key),
    ]


@pytest.mark.deployment
def test_neither_database_takes_an_add_while_the_service_moves(
    job_cluster: kubernetes.Cluster, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one would acknowledge an add that is lost, and so would the new one if the service had to go back."""
    outcomes: list[str] = []

    def insert_before(owner: ModuleType, name: str) -> None:
        real = getattr(owner, name)

        def insert_and_call(*arguments: object) -> None:
            outcomes.append(_insert_as_service(job_cluster))
            real(*arguments)

        monkeypatch.setattr(owner, name, insert_and_call)

    insert_before(database, "move")
    insert_before(restore, "wait_for_old_pods")

    assert command("restore", NEW, "--yes").status == 0
    assert outcomes == ["ReadOnlySQLTransactionError"] * 2
    assert _insert_as_service(job_cluster) == ""


@pytest.mark.deployment
@pytest.mark.usefixtures("cluster")
def test_a_database_that_is_lost_is_replaced(
    server: EmbeddedPostgres,
    restored: RestoredDatabases,
    controllers: Controllers,
    account: Account,
    command: Command,
) -> None:
    """The old one answers no more: nothing is compared or frozen, no pod has to be ready, and adds are served again."""
    server.kill()
    account.database.status = "failed"

    result = command("restore", NEW, "--yes")

    assert (result.status, result.stderr) == (0, "")
    assert "olimac is failed, so it is not compared." in result.stdout
    assert "read-only" not in result.stdout
    with Callers(controllers).calling() as callers:
        callers.wait_for(2, 201)
    assert callers.statuses("add") == {201}
    assert set(callers.added()) <= client_names(restored.dsn(NEW, "clients"))
    server.start()
    assert not set(callers.added()) & client_names(server.dsn(database="clients"))


@pytest.mark.deployment
def test_after_a_failure_the_service_can_go_back_or_on(
    server: EmbeddedPostgres,
    restored: RestoredDatabases,
    job_cluster: kubernetes.Cluster,
    account: Account,
    command: Command,
) -> None:
    """A run that fails leaves both frozen. `database` makes the old one writable; a second run restores nothing."""
    restore._restore(account.outputs, describe("olimac"), NEW, restore.Source(), zone="")
    for url in (server.dsn(database="clients"), restored.dsn(NEW, "clients")):
        asyncio.run(maintenance.run(url, recovery.freeze))
    assert _insert_as_service(job_cluster) == "ReadOnlySQLTransactionError"

    assert command("database").status == 0
    assert _insert_as_service(job_cluster) == ""
    account.proxy.reset()

    result = command("restore", NEW, "--yes")

    assert result.status == 0
    assert secret(job_cluster)["DB_HOST"] == describe(NEW)["Endpoint"]["Address"]
    assert "olimac-2 exists: continuing" in result.stdout
    assert "RestoreDBInstanceToPointInTime" not in account.proxy.calls
    assert _insert_as_service(job_cluster) == ""


def _insert_as_service(cluster: kubernetes.Cluster) -> str:
    """Adds a client with the service's Secret; returns the error's name, empty for success."""
    found = secret(cluster)

    async def insert() -> str:
        connection = await asyncpg.connect(
            host=found["DB_HOST"],
            port=int(found["DB_PORT"]),
            user=found["DB_USERNAME"],
            password=found["DB_PASSWORD"],
            database=found["DB_NAME"],
            ssl="require",
        )
        try:
            await connection.execute("INSERT INTO clients (name, money) VALUES ('Ann', 1)")
        except asyncpg.PostgresError as error:
            return type(error).__name__
        finally:
            await connection.close()
        return ""

    return asyncio.run(insert())


# --- The service stays


@pytest.mark.deployment
def test_a_database_that_the_cluster_cannot_reach_is_an_error(
    job_cluster: kubernetes.Cluster, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its security group, the new database cannot be reached: the service stays where it is."""
    before, settings = secret(job_cluster), restore._settings
    monkeypatch.setattr(restore, "_settings", lambda old: settings(old) | {"VpcSecurityGroupIds": ["sg-of-others"]})

    result = command("restore", NEW, "--yes")

    assert result.status == 1
    assert "error: the Job maintain failed; see its log above." in result.stderr
    assert secret(job_cluster) == before


@pytest.mark.deployment
def test_the_service_moves_only_after_a_yes(
    server: EmbeddedPostgres,
    restored: RestoredDatabases,
    job_cluster: kubernetes.Cluster,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without --yes, the command says what both hold, here the new one what a snapshot has, and asks."""
    before = secret(job_cluster)
    rds = aws_client("rds", REGION)
    rds.create_db_snapshot(DBInstanceIdentifier="olimac", DBSnapshotIdentifier="before")
    asyncio.run(_execute(server.dsn(database="clients"), "INSERT INTO clients (name, money) VALUES ('Later', 1)"))
    monkeypatch.setattr("builtins.input", lambda question: "no" if "olimac-2" in question else "yes")

    result = command("restore", NEW, "--snapshot", "before")

    assert result.status == 1
    assert "Restoring snapshot before into olimac-2" in result.stdout
    assert "olimac-2 holds 4 clients, the newest has the id 4; its schema is 0002" in result.stdout
    assert "olimac holds 5 clients, the newest has the id 5; its schema is 0002" in result.stdout
    assert client_names(restored.dsn(NEW, "clients")) == {"Andres", "Camilo", "Laura", "Felipe"}
    assert result.stderr.startswith("error: nothing uses olimac-2; run this again, or make remove-database")
    assert secret(job_cluster) == before


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("name", ["restored", "olimac", "Olimac-2", "olimac-", "olimac-2--3", "olimac2"])
def test_a_wrong_name_is_an_error(command: Command, account: Account, name: str) -> None:
    """The name has the deployment's as its prefix, and is not the one of the present database."""
    before = account.snapshot()

    assert command("restore", name, "--yes").status == 1
    assert account.snapshot() == before


def test_an_instance_of_another_origin_is_an_error(command: Command, account: Account) -> None:
    """It may hold anything: the service must not move to it."""
    create_other_database(NEW, "olimac")
    before = account.snapshot()

    result = command("restore", NEW, "--yes")

    assert result.stderr == "error: olimac-2 exists and was not restored from latest: choose another name\n"
    assert account.snapshot() == before


def test_a_missing_old_database_is_an_error(command: Command, account: Account) -> None:
    """The message says how to get an empty one, which a snapshot then replaces."""
    account.database.deletion_protection = False
    aws_client("rds", REGION).delete_db_instance(DBInstanceIdentifier="olimac", SkipFinalSnapshot=True)

    result = command("restore", NEW, "--yes")

    assert result.status == 1
    assert "apply Terraform, which creates an empty one, then restore a snapshot" in result.stderr


@pytest.mark.parametrize("status", ["failed", "incompatible-restore", "storage-full"])
def test_a_failed_restore_is_an_error(command: Command, account: Account, status: str, restored: object) -> None:
    """The command ends at once."""
    assert restored
    account.proxy.inject(
        "DescribeDBInstances",
        [lambda forward: forward(), lambda forward: forward(), replacing(">available<", f">{status}<")],
    )

    result = command("restore", NEW, "--yes")

    assert result.status == 1
    assert result.stderr == f"error: the new database olimac-2 has the status {status}\n"


def test_a_refused_restore_is_an_error(command: Command, account: Account) -> None:
    """The message is that of AWS."""
    account.proxy.inject(
        "RestoreDBInstanceToPointInTime", itertools.repeat(error_response("InvalidRestoreFault", "no"))
    )

    result = command("restore", NEW, "--yes")

    assert result.stderr == "error: AWS refused RestoreDBInstanceToPointInTime (InvalidRestoreFault): no\n"


@pytest.mark.parametrize("time", ["2026-11-29T16:05:00", "yesterday"])
def test_a_time_needs_a_time_zone(command: Command, time: str) -> None:
    """A time without one would be read as that of the laptop."""
    assert command("restore", NEW, "--time", time).status == 2


def test_the_point_in_time_and_the_zone_are_passed_on(
    command: Command, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a zone of its own, the new database has no standby, which would be in the other one."""
    calls: list[dict[str, Any]] = []

    class Rds:
        """Records the call, and ends the command."""

        def __init__(self, real: Any) -> None:
            self.exceptions, self.describe_db_instances = real.exceptions, real.describe_db_instances

        def restore_db_instance_to_point_in_time(self, **given: Any) -> None:
            calls.append(given)
            raise common.CannotProceed("recorded")

    real = common.aws_client
    monkeypatch.setattr(
        restore, "aws_client", lambda name, region: Rds(real(name, region)) if name == "rds" else real(name, region)
    )
    account.database.multi_az = True
    command("restore", NEW, "--time", "2026-11-29T18:05:00+02:00", "--zone", "us-east-1b", "--yes")

    (call,) = calls
    assert call["RestoreTime"].isoformat() == "2026-11-29T18:05:00+02:00"
    assert "UseLatestRestorableTime" not in call
    assert (call["AvailabilityZone"], call["MultiAZ"]) == ("us-east-1b", False)
    assert {"Key": "RestoredFrom", "Value": "2026-11-29T16:05:00+00:00"} in call["Tags"]


# --- remove-database


def test_a_database_that_the_service_left_is_removed(run: Run, account: Account) -> None:
    """A final snapshot stays, its log groups go, and a second run finds nothing."""
    create_other_database(NEW, "olimac")
    restore.write_outputs(account.outputs_file, NEW)
    rds, logs = aws_client("rds", REGION), aws_client("logs", REGION)
    logs.create_log_group(logGroupName=f"{LOG_GROUPS}-2/postgresql")

    result = run("remove-database", "olimac")

    assert (result.status, result.stderr) == (0, "")
    assert _databases() == [NEW]
    snapshots = rds.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    assert [one["DBSnapshotIdentifier"].rpartition("-")[0] for one in snapshots] == ["olimac-final"]
    groups = logs.describe_log_groups(logGroupNamePrefix=LOG_GROUPS)["logGroups"]
    assert [one["logGroupName"] for one in groups] == [f"{LOG_GROUPS}-2/postgresql"]
    assert run("remove-database", "olimac") == (0, "There is no database olimac.\n", "")


def test_a_failed_database_is_removed_without_a_snapshot(run: Run, account: Account) -> None:
    """RDS can take none of it; its automated backups stay."""
    create_other_database(NEW, "olimac")
    account.proxy.inject("DescribeDBInstances", [replacing(">available<", ">failed<")])

    assert run("remove-database", NEW).status == 0
    assert _databases() == ["olimac"]
    assert not aws_client("rds", REGION).describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("olimac", "olimac is the service's database"), ("others", "others does not belong to olimac")],
)
def test_another_database_is_not_removed(run: Run, name: str, reason: str) -> None:
    """Neither the one that the service uses, nor one of another deployment."""
    result = run("remove-database", name)

    assert result.status == 1
    assert reason in result.stderr
    assert _databases() == ["olimac"]


def test_the_database_of_another_deployment_is_not_removed(run: Run) -> None:
    """Its name may begin as those of this deployment."""
    create_other_database("olimac-staging", "olimac-staging")

    result = run("remove-database", "olimac-staging")

    assert (result.status, result.stderr) == (1, "error: olimac-staging does not belong to olimac\n")
    assert _databases() == ["olimac", "olimac-staging"]
