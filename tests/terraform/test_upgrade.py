"""An upgrade of Kubernetes, by the real Terraform and its provider on a mock of AWS, which refuses what EKS refuses."""

import json
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import pytest

from ops.deploy.common import aws_client
from ops.rehearsal import aws, environment
from ops.rehearsal.certificates import create_ca
from ops.rehearsal.check_upgrade import expected, versions
from tests.terraform.fixtures import copy_terraform, init_with_provider, run_terraform

pytestmark = [pytest.mark.slow, pytest.mark.deployment]

# All that has a version; the rest takes minutes, and has none.
TARGETS: Final = ("-target=aws_eks_addon.before_nodes", "-target=aws_eks_addon.on_nodes")

Apply: TypeAlias = Callable[[str], str]


@pytest.fixture(name="apply", scope="module")
def apply_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apply]:
    """A function that applies Terraform with a version of Kubernetes, and returns its output."""
    folder = copy_terraform(tmp_path_factory.mktemp("upgrade"))
    (folder / "local_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    ca = create_ca(folder)
    endpoints = aws.Endpoints("https://127.0.0.1:1", ca.certificate, ("127.0.0.1", 1), "made-up")
    with aws.running(endpoints) as variables:
        provider = init_with_provider(folder)

        def apply(version: str) -> str:
            given = {"TF_VAR_admins": json.dumps([f"arn:aws:iam::{aws.ACCOUNT}:role/deploy"])}
            given["TF_VAR_kubernetes_version"] = version
            arguments = ("apply", "-auto-approve", "-input=false", "-no-color", *TARGETS)
            return run_terraform(folder, *arguments, **provider, **variables, **given)

        run_terraform(folder, "init", "-input=false", **provider)
        yield apply


def test_one_variable_upgrades_everything(apply: Apply) -> None:
    """The control plane goes first, since nodes must not be newer. A second run changes nothing.

    After an upgrade by AWS, EKS refuses to return to the older version. With the cluster's own, the rest follows.
    """
    apply("1.34")
    aws_client("eks", aws.REGION).update_cluster_version(name=environment.NAME, version="1.35")

    with pytest.raises(AssertionError, match=r"Unsupported Kubernetes minor version update from 1\.35 to 1\.34"):
        apply("1.34")
    apply("1.35")
    assert versions() == expected("1.35")

    assert "7 changed, 0 destroyed" in apply("1.36")
    assert versions() == expected("1.36")
    assert "0 added, 0 changed, 0 destroyed" in apply("1.36")
