"""python -m ops cluster-logging: the control plane's logs are on."""

import itertools
import json
from collections.abc import Callable

import pytest

from ops.deploy import cluster_logging
from tests.ops.deploy.cloud import (
    Answer,
    Cloud,
    Run,
    Turn,
    refused,
    saying,
)

UPDATE = "UpdateClusterConfig"
ALL = ["api", "audit", "authenticator", "controllerManager", "scheduler"]


def turned(cloud: Cloud, *on: str) -> None:
    """Has these logs on, and no others."""
    cloud.cluster.logging = {
        "clusterLogging": [
            {"types": list(on), "enabled": True},
            {"types": [one for one in ALL if one not in on], "enabled": False},
        ]
    }


def test_logs_that_are_off_are_turned_on(cloud: Cloud, run: Run) -> None:
    """Those that were on stay on."""
    turned(cloud, "audit", "authenticator")

    assert run("cluster-logging") == (0, "Turning on api, controllerManager, scheduler\n", "")
    assert cloud.cluster.logging == {"clusterLogging": [{"types": ALL, "enabled": True}]}


def test_logs_that_are_on_are_left_alone(cloud: Cloud, run: Run) -> None:
    """EKS is asked for no update, which it would refuse."""
    turned(cloud, *ALL)

    assert run("cluster-logging") == (0, "All of olimac's control-plane logs are on.\n", "")
    assert UPDATE not in cloud.way.asked


def test_a_second_run_changes_nothing(cloud: Cloud, run: Run) -> None:
    """It finds all on."""
    run("cluster-logging")
    cloud.way.clear()

    assert run("cluster-logging").said == "All of olimac's control-plane logs are on.\n"
    assert UPDATE not in cloud.way.asked


def test_a_cluster_that_tells_nothing_of_its_logs_has_none_on(cloud: Cloud, run: Run) -> None:
    """All five are turned on."""
    cloud.cluster.logging = None

    assert run("cluster-logging") == (0, f"Turning on {', '.join(ALL)}\n", "")
    assert UPDATE in cloud.way.asked


def test_an_update_is_waited_for(cloud: Cloud, run: Run) -> None:
    """EKS takes some minutes."""
    cloud.way.at("DescribeUpdate", [saying("Successful", "InProgress")] * 3)

    done = run("cluster-logging")

    assert done.status == 0
    assert "Waiting for EKS to turn them on" in done.said
    assert cloud.way.asked.count("DescribeUpdate") == 4


def test_an_update_that_never_ends_is_given_up_on(cloud: Cloud, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded."""
    monkeypatch.setattr(cluster_logging, "_UPDATE_SECONDS", 0.2)
    cloud.way.at("DescribeUpdate", itertools.repeat(saying("Successful", "InProgress")))

    done = run("cluster-logging")

    assert done.status == 1
    assert "in vain for EKS to turn them on" in done.error


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_an_update_that_fails_is_said_in_eks_words(cloud: Cloud, run: Run, status: str) -> None:
    """With the reason that EKS gives."""
    reason = '[{"errorCode": "AccessDenied", "errorMessage": "no log group for you"}]'
    cloud.way.at("DescribeUpdate", [failing(status, reason)])

    done = run("cluster-logging")

    assert done.status == 1
    assert f"EKS ended the update as {status}" in done.error
    assert "no log group for you" in done.error


def failing(status: str, errors: str) -> Turn:
    def turn(ask: Callable[[], Answer]) -> Answer:
        answer = ask()
        told = json.loads(answer.body)
        told["update"] |= {"status": status, "errors": json.loads(errors)}
        return answer._replace(body=json.dumps(told).encode())

    return turn


def test_an_update_beside_another_is_refused_in_words(cloud: Cloud, run: Run) -> None:
    """EKS does one at a time."""
    cloud.way.at(UPDATE, [refused("ResourceInUseException", "Cluster already has an update in progress", 409)])

    done = run("cluster-logging")

    assert done.status == 1
    assert done.error == (
        "error: AWS refused UpdateClusterConfig (ResourceInUseException): Cluster already has an update in progress\n"
    )
