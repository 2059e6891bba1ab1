"""A second environment in an account, planned by the real Terraform with a mock of AWS."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from ops.common.process import ROOT
from tests.terraform.fixtures import copy_terraform, init_with_provider, run_terraform

pytestmark = [pytest.mark.slow, pytest.mark.deployment]

NAME: Final = "olimac-staging"  # of an environment beside olimac

# By what AWS tells resources of one type apart, in an account or a region. VPCs and the like get an ID from AWS.
NAMES: Final = ("name", "alarm_name", "dashboard_name", "identifier", "bucket", "name_prefix", "log_group_name")

# A name that is unique only within something that itself belongs to one environment.
WITHIN: Final = {"aws_iam_role_policy": "role", "aws_eks_addon": "cluster_name"}

# What the mock gives to an attribute that AWS would set.
MADE_UP: Final = re.compile("[a-z0-9]{8}")

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


@pytest.fixture(name="names", scope="module")
def apply_environment(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """The types and names of its resources, where a name has to be unique.

    It is in a region where the check of the public name has a topic of its own.
    """
    folder = copy_terraform(tmp_path_factory.mktemp("environment"))
    run = f'run "environment" {{\n  variables {{\n    name = "{NAME}"\n  }}\n}}\n'
    (folder / "tests" / "environment.tftest.hcl").write_text(TEST + run)
    variables = init_with_provider(folder)
    lines = run_terraform(folder, "test", "-json", "-verbose", **variables).splitlines()
    (state,) = [one["test_state"] for one in map(json.loads, lines) if one["type"] == "test_state"]
    return {
        (resource["type"], resource["values"][name])
        for resource in state["root_module"]["resources"]
        for name in NAMES
        if resource["mode"] == "managed" and resource["type"] not in WITHIN
        if resource["values"].get(name) and not MADE_UP.fullmatch(resource["values"][name])
    }


def test_each_name_has_that_of_the_environment(names: set[tuple[str, str]]) -> None:
    """Roles, policies, log groups, alarms, topics, buckets and the rest: so no two environments use one name."""
    assert {one for one in names if NAME not in one[1]} == set()


def test_names_of_every_kind_were_compared(names: set[tuple[str, str]]) -> None:
    """Also those that have to be unique in the whole account, and in us-east-1."""
    assert {
        ("aws_budgets_budget", f"{NAME}-account"),
        ("aws_cloudwatch_log_group", f"/aws/eks/{NAME}/cluster"),
        ("aws_cloudwatch_metric_alarm", f"{NAME}-unreachable"),
        ("aws_db_instance", NAME),
        ("aws_iam_policy", f"{NAME}-node-access"),
        ("aws_iam_role", f"{NAME}-cluster"),
        ("aws_kms_alias", f"alias/{NAME}"),
        ("aws_s3_bucket", f"{NAME}-balancer-logs-123456789012"),
        ("aws_scheduler_schedule", f"{NAME}-end-of-support"),
        ("aws_sns_topic", f"{NAME}-alarms-unreachable"),
    } <= names


def test_no_other_text_names_an_environment() -> None:
    """Terraform's files have the name only as the default of a variable, and as part of the domain's name."""
    for file in sorted((ROOT / "terraform").glob("*.tf")):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            rest = line.replace("olimac.link", "")
            assert "olimac" not in rest or rest.strip() == 'default     = "olimac"', f"{Path(file).name}:{number}"
