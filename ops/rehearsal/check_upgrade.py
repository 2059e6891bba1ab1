"""Checks after the upgrade of Kubernetes: its plan replaced nothing, and all that has a version has the new one."""

import json
import os
import subprocess

from ops.deploy.common import Outputs, aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import aws
from ops.rehearsal.environment import NAME
from ops.rehearsal.steps import ROOT

ADDONS = {
    "before_nodes": ("eks-pod-identity-agent", "kube-proxy", "vpc-cni"),
    "on_nodes": ("coredns", "metrics-server"),
}


def versions() -> dict[str, str]:
    """The versions that EKS has, by what has them."""
    eks = aws_client("eks", aws.REGION)
    (name,) = eks.list_nodegroups(clusterName=NAME)["nodegroups"]
    group = eks.describe_nodegroup(clusterName=NAME, nodegroupName=name)["nodegroup"]
    addons = eks.list_addons(clusterName=NAME)["addons"]
    found = {addon: eks.describe_addon(clusterName=NAME, addonName=addon)["addon"] for addon in addons}
    return {
        "cluster": eks.describe_cluster(name=NAME)["cluster"]["version"],
        "nodes": group["version"],
        "AMI": group["releaseVersion"],
        **{addon: described["addonVersion"] for addon, described in found.items()},
    }


def expected(version: str) -> dict[str, str]:
    """What they have to be in a cluster of this version."""
    addons = [name for names in ADDONS.values() for name in names]
    return {
        "cluster": version,
        "nodes": version,
        "AMI": f"{version}.4-20261120",
        **dict.fromkeys(addons, f"v{version}.0-eksbuild.1"),
    }


def test_the_plan_changed_only_what_has_a_version() -> None:
    """In place: the cluster, its five add-ons, the node group, and the notice of the end of support."""
    command = ["terraform", f"-chdir={os.environ['TERRAFORM_FOLDER']}", "show", "-json", os.environ["PLAN"]]
    plan = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    changes = {one["address"]: one["change"]["actions"] for one in plan["resource_changes"]}
    changed = {address: actions for address, actions in changes.items() if actions not in (["no-op"], ["read"])}
    addons = [f'aws_eks_addon.{kind}["{name}"]' for kind, names in ADDONS.items() for name in names]

    assert set(changed) == {
        *("aws_eks_cluster.main", "aws_eks_node_group.main", "aws_scheduler_schedule.end_of_support", *addons)
    }
    assert all(actions == ["update"] for actions in changed.values())


def test_all_have_the_version_of_the_source(outputs: Outputs) -> None:
    """The default of terraform/variables.tf, which no step was given."""
    default = outputs.kubernetes_version

    assert f'default     = "{default}"\n' in (ROOT / "terraform" / "variables.tf").read_text()
    assert versions() == expected(default)


def test_the_clusters_api_has_the_version(outputs: Outputs) -> None:
    """What kubectl asks is the cluster that EKS has upgraded."""
    server = json.loads(Kubernetes(outputs).run("version", "--output", "json"))["serverVersion"]

    assert f"{server['major']}.{server['minor']}" == outputs.kubernetes_version


def test_the_autoscaler_followed(outputs: Outputs) -> None:
    """Its release is that of the cluster's version."""
    found = Kubernetes(outputs).get("kube-system", "deployment", "cluster-autoscaler")
    assert found
    (container,) = found["spec"]["template"]["spec"]["containers"]

    assert container["image"].endswith(f":v{outputs.autoscaler_version}")
