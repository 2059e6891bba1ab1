"""The logs of the control plane: `python -m ops cluster-logging` turns them on, and `teardown` off."""

import itertools
import json
from collections.abc import Callable

import pytest

from ops.deploy import kubernetes
from tests.ops.deploy.fixtures import Account, Fault, Response, Run, error_response, replacing

UPDATE = "UpdateClusterConfig"
ALL = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
ALL_ON = (0, "All control-plane logs of olimac are on.\n", "")

ALL_OFF = "All control-plane logs of olimac are off.\n"


def enable_logs(account: Account, *types: str) -> None:
    """Enables only these log types."""
    account.cluster.logging = {
        "clusterLogging": [
            {"types": list(types), "enabled": True},
            {"types": [one for one in ALL if one not in types], "enabled": False},
        ]
    }


def test_logs_that_are_off_are_turned_on(account: Account, run: Run) -> None:
    """The others stay on."""
    enable_logs(account, "audit", "authenticator")

    expected = "Turning on the control-plane logs api, controllerManager, scheduler\n"
    assert run("cluster-logging") == (0, expected, "")
    assert account.cluster.logging == {"clusterLogging": [{"types": ALL, "enabled": True}]}


def test_nothing_changes_if_all_logs_are_on(account: Account, run: Run) -> None:
    """EKS would refuse an update without a change."""
    enable_logs(account, *ALL)

    assert run("cluster-logging") == ALL_ON
    assert UPDATE not in account.proxy.calls


def test_a_second_run_changes_nothing(account: Account, run: Run) -> None:
    """All logs are on after the first run."""
    run("cluster-logging")
    account.proxy.reset()

    assert run("cluster-logging") == ALL_ON
    assert UPDATE not in account.proxy.calls


def test_a_cluster_without_a_logging_configuration_has_no_logs_on(account: Account, run: Run) -> None:
    """The command turns on all five."""
    account.cluster.logging = None

    assert run("cluster-logging") == (0, f"Turning on the control-plane logs {', '.join(ALL)}\n", "")
    assert UPDATE in account.proxy.calls


def test_the_command_waits_for_the_update(account: Account, run: Run) -> None:
    """EKS needs some minutes."""
    account.proxy.inject("DescribeUpdate", [replacing("Successful", "InProgress")] * 3)

    result = run("cluster-logging")

    assert result.status == 0
    assert "Waiting for EKS to turn on the logs" in result.stdout
    assert account.proxy.calls.count("DescribeUpdate") == 4


def test_the_wait_for_the_update_has_a_timeout(account: Account, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, the command fails."""
    monkeypatch.setattr(kubernetes, "_UPDATE_SECONDS", 0.2)
    account.proxy.inject("DescribeUpdate", itertools.repeat(replacing("Successful", "InProgress")))

    result = run("cluster-logging")

    assert result.status == 1
    assert "timed out after 0 s waiting for EKS to turn on the logs" in result.stderr


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_a_failed_update_is_an_error(account: Account, run: Run, status: str) -> None:
    """The message has the status and the reason of EKS."""
    reason = '[{"errorCode": "AccessDenied", "errorMessage": "no log group for you"}]'
    account.proxy.inject("DescribeUpdate", [ending(status, reason)])

    result = run("cluster-logging")

    assert result.status == 1
    assert f"the EKS update ended with status {status}" in result.stderr
    assert "no log group for you" in result.stderr


def ending(status: str, errors: str) -> Fault:
    """EKS describes the update with this status and these errors."""

    def fault(forward: Callable[[], Response]) -> Response:
        response = forward()
        body = json.loads(response.body)
        body["update"] |= {"status": status, "errors": json.loads(errors)}
        return response._replace(body=json.dumps(body).encode())

    return fault


def test_a_concurrent_update_is_an_error(account: Account, run: Run) -> None:
    """EKS runs one update at a time."""
    message = "Cluster already has an update in progress"
    account.proxy.inject(UPDATE, [error_response("ResourceInUseException", message, 409)])

    result = run("cluster-logging")

    assert result.status == 1
    assert result.stderr == f"error: AWS refused UpdateClusterConfig (ResourceInUseException): {message}\n"


@pytest.mark.usefixtures("cluster")
def test_teardown_turns_off_what_is_on(account: Account, run: Run) -> None:
    """EKS would create the log group again after Terraform has deleted it, with a deleted cluster's last lines."""
    enable_logs(account, "audit", "api")

    result = run("teardown")

    assert (result.status, result.stderr) == (0, "")
    assert "\nTurning off the control-plane logs api, audit\n" in result.stdout
    assert account.cluster.logging == {"clusterLogging": [{"types": ["api", "audit"], "enabled": False}]}


@pytest.mark.usefixtures("cluster")
def test_teardown_waits_until_the_logs_are_off(account: Account, run: Run) -> None:
    """Until then, EKS writes."""
    enable_logs(account, *ALL)
    account.proxy.inject("DescribeUpdate", [replacing("Successful", "InProgress")] * 3)

    result = run("teardown")

    assert result.status == 0
    assert "Waiting for EKS to turn off the logs" in result.stdout
    assert account.proxy.calls.count("DescribeUpdate") == 4


@pytest.mark.usefixtures("cluster")
def test_a_second_teardown_changes_no_logs(account: Account, run: Run) -> None:
    """EKS would refuse an update without a change."""
    enable_logs(account, *ALL)
    run("teardown")
    account.proxy.reset()

    assert ALL_OFF in run("teardown").stdout
    assert UPDATE not in account.proxy.calls


@pytest.mark.usefixtures("cluster")
def test_a_dry_run_of_teardown_turns_nothing_off(account: Account, run: Run) -> None:
    """It says what it would do."""
    enable_logs(account, *ALL)

    assert f"\nWould turn off the control-plane logs {', '.join(ALL)}\n" in run("teardown", "--dry-run").stdout
    assert UPDATE not in account.proxy.calls
