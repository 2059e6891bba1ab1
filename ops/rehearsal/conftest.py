"""Fixtures of the checks: Terraform's outputs, and what the mock AWS describes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ops.deploy.common import Outputs, aws_client, read_outputs
from ops.rehearsal.reachability import Network


@pytest.fixture(scope="session")
def outputs() -> Outputs:
    """The outputs of Terraform."""
    return read_outputs(Path(os.environ["OUTPUTS"]))


@pytest.fixture(scope="session")
def ec2(outputs: Outputs) -> Any:
    return aws_client("ec2", outputs.region)


@pytest.fixture(scope="session")
def network(ec2: Any) -> Network:
    return Network(ec2)


@pytest.fixture(scope="session")
def cluster(outputs: Outputs) -> dict[str, Any]:
    """The cluster, as EKS describes it."""
    described: dict[str, Any] = aws_client("eks", outputs.region).describe_cluster(name=outputs.name)["cluster"]
    return described


@pytest.fixture(scope="session")
def database(outputs: Outputs) -> dict[str, Any]:
    """The database, as RDS describes it."""
    rds = aws_client("rds", outputs.region)
    (described,) = rds.describe_db_instances(DBInstanceIdentifier=outputs.database_identifier)["DBInstances"]
    found: dict[str, Any] = described
    return found


@pytest.fixture(scope="session")
def state(outputs: Outputs) -> dict[str, Any]:
    """Terraform's state, as stored in S3."""
    s3 = aws_client("s3", outputs.region)
    (bucket,) = [one["Name"] for one in s3.list_buckets()["Buckets"] if "balancer-logs" not in one["Name"]]
    stored = s3.get_object(Bucket=bucket, Key="clients-api/terraform.tfstate")["Body"].read()
    content: dict[str, Any] = json.loads(stored)
    return content
