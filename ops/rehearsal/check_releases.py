"""Checks after the releases that failed: the last good one runs, on the schema that it brought."""

import os

import asyncpg
import pytest

from ops.deploy.common import Outputs
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal.steps import SECOND

NAMESPACE = "clients"


@pytest.fixture(name="kubernetes", scope="module")
def find_kubernetes(outputs: Outputs) -> Kubernetes:
    return Kubernetes(outputs)


def test_the_last_good_release_runs_in_two_pods(kubernetes: Kubernetes) -> None:
    """Two releases failed after it, and neither is left."""
    deployment = kubernetes.get(NAMESPACE, "deployment", "clients-api")
    assert deployment
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert container["image"] == SECOND
    assert deployment["status"]["availableReplicas"] == 2


def test_no_canary_is_left(kubernetes: Kubernetes) -> None:
    """It is removed, whatever came of it."""
    assert kubernetes.get(NAMESPACE, "deployment", "clients-api-canary") is None


def test_only_the_accepted_release_is_kept(kubernetes: Kubernetes) -> None:
    """A release that failed is none to go back to."""
    kept = kubernetes.get(NAMESPACE, "configmap", "last-good-release")
    assert kept
    assert kept["data"]["image"] == SECOND


async def test_the_failed_migration_left_nothing() -> None:
    """It ran in a transaction; the migration before it stays."""
    connection = await asyncpg.connect(os.environ["REHEARSAL_DATABASE"])
    versions = [row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations ORDER BY 1")]
    columns = await connection.fetch("SELECT column_name FROM information_schema.columns WHERE table_name = 'clients'")
    await connection.close()

    assert versions[-1] == "9001"
    assert {row["column_name"] for row in columns} == {"id", "name", "money", "rehearsed"}


def test_no_password_of_the_owner_is_left(kubernetes: Kubernetes) -> None:
    """The failed migration had it, too."""
    assert kubernetes.get(NAMESPACE, "secret", "database-owner") is None
