"""The protection from deletion: `python -m ops protect` turns it on for the cluster, `teardown` off for both."""

import pytest
from botocore.exceptions import ClientError

from ops.deploy import teardown
from ops.deploy.common import aws_client
from tests.ops.deploy.fixtures import Account, Run, replacing

UPDATE = "UpdateClusterConfig"
TURNING_ON = "Turning on the protection of the cluster olimac from deletion\n"
TURNING_OFF = "Turning off the protection of the {} olimac from deletion\n"


def test_a_protected_cluster_cannot_be_deleted(account: Account, run: Run) -> None:
    """EKS refuses it."""
    assert run("protect") == (0, TURNING_ON, "")

    with pytest.raises(ClientError, match="deletion protection"):
        aws_client("eks", "us-east-1").delete_cluster(name="olimac")
    assert account.cluster.status == "ACTIVE"


def test_a_second_run_changes_nothing(account: Account, run: Run) -> None:
    """EKS would refuse an update without a change."""
    run("protect")
    account.proxy.reset()

    assert run("protect") == (0, "The protection of the cluster olimac from deletion is on.\n", "")
    assert UPDATE not in account.proxy.calls


def test_the_command_waits_for_the_update(account: Account, run: Run) -> None:
    """EKS changes one thing at a time, and a later step may change another."""
    account.proxy.inject("DescribeUpdate", [replacing("Successful", "InProgress")] * 3)

    result = run("protect")

    assert result.status == 0
    assert "Waiting for EKS to turn on the protection" in result.stdout
    assert account.proxy.calls.count("DescribeUpdate") == 4


@pytest.mark.usefixtures("cluster")
def test_teardown_turns_both_off(account: Account, run: Run) -> None:
    """Terraform can then delete cluster and database."""
    run("protect")
    account.database.deletion_protection = True

    dry = run("teardown", "--dry-run")
    result = run("teardown")

    assert dry.stdout.endswith("Would turn off the protection of the database olimac from deletion\n")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.endswith(TURNING_OFF.format("cluster") + TURNING_OFF.format("database"))
    assert account.cluster.deletion_protection is False
    assert account.database.deletion_protection is False


@pytest.mark.usefixtures("cluster")
def test_a_teardown_that_fails_keeps_both(account: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only once the load balancer is gone may the cluster go."""
    monkeypatch.setattr(teardown, "_REMOVAL_SECONDS", 0.5)
    run("protect")
    account.database.deletion_protection = True
    account.create_load_balancer("stays")

    assert run("teardown").status == 1
    assert account.cluster.deletion_protection is True
    assert account.database.deletion_protection is True


def test_a_database_without_a_cluster_loses_its_protection(account: Account, run: Run) -> None:
    """A destroy that failed may have deleted the cluster; later, the database is gone, too."""
    account.remove_cluster()
    account.database.deletion_protection = True

    assert run("teardown").stdout.endswith(TURNING_OFF.format("database"))
    aws_client("rds", "us-east-1").delete_db_instance(DBInstanceIdentifier="olimac", SkipFinalSnapshot=True)
    assert run("teardown").status == 0
