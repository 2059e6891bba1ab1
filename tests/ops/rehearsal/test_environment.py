"""The environment of the rehearsal: the mock AWS leaves to the next deployment what AWS would, and nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from ops.deploy.common import aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import environment
from ops.rehearsal.aws import ACCOUNT, REGION
from ops.rehearsal.environment import DATABASE, NAME, Environment
from tests.ops.deploy.fixtures import NAMESPACE, OUTPUTS, namespaced, require_kubectl

pytestmark = pytest.mark.slow

LOG_GROUP = f"/aws/eks/{NAME}/cluster"


@pytest.fixture(name="running", scope="module")
def run_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with environment.running(tmp_path_factory.mktemp("rehearsal") / "environment", "1.33", {}) as running:
        yield running


@pytest.fixture(name="eks")
def find_eks(running: Environment) -> Any:
    return aws_client("eks", running.variables["AWS_REGION"])


def create_cluster(eks: Any, version: str, *, has_logs: bool = False) -> None:
    eks.create_cluster(
        name=NAME,
        version=version,
        roleArn=f"arn:aws:iam::{ACCOUNT}:role/cluster",
        resourcesVpcConfig={},
        logging={"clusterLogging": [{"types": ["api"], "enabled": has_logs}]},
    )


def test_the_cluster_is_what_eks_made_of_it(eks: Any) -> None:
    """It has the version of EKS, also after an upgrade, and the next cluster of the same name has no objects of it."""
    require_kubectl()
    create_cluster(eks, "1.34")
    cluster = Kubernetes(OUTPUTS)

    def version() -> str:
        found: str = json.loads(cluster.run("version", "--output=json"))["serverVersion"]["gitVersion"]
        return found

    before = version()
    eks.update_cluster_version(name=NAME, version="1.35")
    cluster.apply(NAMESPACE, namespaced("ConfigMap", "kept", data={}))
    assert (before, version()) == ("v1.34.0", "v1.35.0")
    assert cluster.get("clients", "configmap", "kept")

    eks.delete_cluster(name=NAME)
    create_cluster(eks, "1.34")
    assert version() == "v1.34.0"
    assert cluster.get("clients", "configmap", "kept") is None
    eks.delete_cluster(name=NAME)


@pytest.mark.parametrize("has_logs", [True, False])
def test_a_cluster_with_logs_writes_the_last_ones_after_its_end(eks: Any, has_logs: bool) -> None:
    """Once: the group that Terraform deletes after the cluster is there again, and blocks the next deployment."""
    logs = aws_client("logs", REGION)
    create_cluster(eks, "1.35", has_logs=has_logs)
    logs.create_log_group(logGroupName=LOG_GROUP)
    eks.delete_cluster(name=NAME)
    logs.delete_log_group(logGroupName=LOG_GROUP)

    if has_logs:
        with pytest.raises(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=LOG_GROUP)
        logs.delete_log_group(logGroupName=LOG_GROUP)
    logs.create_log_group(logGroupName=LOG_GROUP)
    logs.delete_log_group(logGroupName=LOG_GROUP)


async def test_the_next_database_of_the_same_name_is_empty(running: Environment) -> None:
    """Its data goes with the instance, and its final snapshot stays: AWS refuses a second one of that name."""
    rds = aws_client("rds", REGION)
    settings = {
        "DBInstanceClass": "db.t4g.micro",
        "Engine": "postgres",
        "DBName": DATABASE,
        "MasterUsername": "postgres",
    }
    final = {"DBInstanceIdentifier": NAME, "FinalDBSnapshotIdentifier": f"{NAME}-final-1"}
    rds.create_db_instance(DBInstanceIdentifier=NAME, AllocatedStorage=20, ManageMasterUserPassword=True, **settings)
    connection = await asyncpg.connect(running.database_dsn)
    await connection.execute(
        "CREATE TABLE clients (); CREATE ROLE clients_service; GRANT ALL ON clients TO clients_service"
    )
    rds.delete_db_instance(**final)  # although somebody is connected
    connection.terminate()

    rds.create_db_instance(DBInstanceIdentifier=NAME, AllocatedStorage=20, ManageMasterUserPassword=True, **settings)
    connection = await asyncpg.connect(running.database_dsn)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE ROLE clients_service")
    with pytest.raises(rds.exceptions.DBSnapshotAlreadyExistsFault):
        rds.delete_db_instance(**final)
    await connection.close()
