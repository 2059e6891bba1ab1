"""What a node has to have room for, according to Terraform and to the manifests."""

import re
from typing import Any, Final

import yaml

from ops.common.process import ROOT

_ADD_ON_DAEMONS: Final = 3  # the pods of vpc-cni, kube-proxy and eks-pod-identity-agent, on each node
_ADD_ON_PODS: Final = 4  # two each of CoreDNS and metrics-server, as EKS's add-ons have them
_MIGRATION: Final = 1


def manifests() -> list[dict[str, Any]]:
    files = [file for folder in ("base", "telemetry", "autoscaler") for file in (ROOT / "k8s" / folder).glob("*.yaml")]
    documents = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return [each for each in documents if "metadata" in each]


def test_a_node_has_room_for_its_pods() -> None:
    """The minimum that Terraform demands is what each of two nodes has to run during a roll-out."""
    nodes = (ROOT / "terraform" / "nodes.tf").read_text()
    kinds = [each["kind"] for each in manifests()]
    (autoscaler,) = [each for each in manifests() if each["kind"] == "HorizontalPodAutoscaler"]
    deployments = [each["spec"] for each in manifests() if each["kind"] == "Deployment"]
    replicas = [each.get("replicas", 0) for each in deployments]  # those of the service are the autoscaler's
    roll_out = autoscaler["spec"]["minReplicas"] + 1
    others = sum(replicas) + roll_out + kinds.count("CronJob") + _MIGRATION + _ADD_ON_PODS
    daemons = kinds.count("DaemonSet") + _ADD_ON_DAEMONS

    (least,) = re.findall(r"node_least += \{ pods = (\d+)", nodes)
    assert int(least) == daemons + -(-others // 2)
