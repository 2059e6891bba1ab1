"""Two environments in one account, planned by the real Terraform with a mock of AWS."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from ops.common.process import ROOT
from tests.terraform.fixtures import copy_terraform, init_with_provider, run_terraform

pytestmark = [pytest.mark.slow, pytest.mark.deployment]

ENVIRONMENTS: Final = ("olimac", "olimac-staging")

# By what AWS tells resources of one type apart, in an account or a region. VPCs and the like get an ID from AWS.
NAMES: Final = ("name", "alarm_name", "dashboard_name", "identifier", "bucket", "name_prefix", "log_group_name")

# A name that is unique only within something that itself belongs to one environment.
WITHIN: Final = {"aws_iam_role_policy": "role", "aws_eks_addon": "cluster_name"}

TEST: Final = """
mock_provider "aws" {
  source = "./tests"
}

mock_provider "aws" {
  alias  = "us_east_1"
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
  region = "eu-west-1"
  zones  = ["eu-west-1a", "eu-west-1b"]
}
"""


@pytest.fixture(name="environments", scope="module")
def apply_environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The resources of each environment, in a region where the check of the public name has a topic of its own."""
    folder = copy_terraform(tmp_path_factory.mktemp("environments"))
    for name in ENVIRONMENTS:  # a file each, since the runs of a file share a state
        run = f'run "{name}" {{\n  variables {{\n    name = "{name}"\n  }}\n}}\n'
        (folder / "tests" / f"{name}.tftest.hcl").write_text(TEST + run)
    variables = init_with_provider(folder)
    lines = run_terraform(folder, "test", "-json", "-verbose", **variables).splitlines()
    states = [one for one in map(json.loads, lines) if one["type"] == "test_state"]
    return {
        one["@testrun"]: [each for each in one["test_state"]["root_module"]["resources"] if each["mode"] == "managed"]
        for one in states
    }


def names(resources: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The types and names of the resources, where a name has to be unique."""
    return {
        (resource["type"], resource["values"][name])
        for resource in resources
        for name in NAMES
        if resource["type"] not in WITHIN and resource["values"].get(name)
    }


def test_no_name_is_used_twice(environments: dict[str, list[dict[str, Any]]]) -> None:
    """Roles, policies, log groups, alarms, topics, buckets and the rest have the name of their environment."""
    production, staging = (environments[name] for name in ENVIRONMENTS)

    assert names(production) & names(staging) == set()
    assert {kind for kind, _ in names(production)} == {kind for kind, _ in names(staging)}


def test_names_of_every_kind_were_compared(environments: dict[str, list[dict[str, Any]]]) -> None:
    """Also those that have to be unique in the whole account, and in us-east-1."""
    found = names(environments["olimac"])

    assert {
        ("aws_budgets_budget", "olimac-account"),
        ("aws_cloudwatch_log_group", "/aws/eks/olimac/cluster"),
        ("aws_cloudwatch_metric_alarm", "olimac-unreachable"),
        ("aws_db_instance", "olimac"),
        ("aws_iam_policy", "olimac-node-access"),
        ("aws_iam_role", "olimac-cluster"),
        ("aws_kms_alias", "alias/olimac"),
        ("aws_s3_bucket", "olimac-balancer-logs-123456789012"),
        ("aws_scheduler_schedule", "olimac-end-of-support"),
        ("aws_sns_topic", "olimac-alarms-unreachable"),
    } <= found


def test_no_other_text_names_an_environment() -> None:
    """Terraform's files have the name only as the default of a variable, and as part of the domain's name."""
    for file in sorted((ROOT / "terraform").glob("*.tf")):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            rest = line.replace("olimac.link", "")
            assert "olimac" not in rest or rest.strip() == 'default     = "olimac"', f"{Path(file).name}:{number}"
