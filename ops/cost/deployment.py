"""What is deployed, as the shipped files say: Terraform's variables, manifests, alarms, shippers."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ops.cloudwatch import rows
from ops.common.process import ROOT

PRICES: Final[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text())
MANIFESTS: Final = ROOT / "k8s"

_FOLDERS: Final = {"base": "clients", "telemetry": "telemetry", "autoscaler": "kube-system"}  # with their namespaces
_WORKLOADS: Final = ("Deployment", "DaemonSet", "CronJob")


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployment that cost.

    Attributes:
        pods: minimum and maximum, of the service's autoscaler.
        pod_cpus: what a pod requests.
        pod_load: the CPU time per second of a pod above which the autoscaler adds one.
        nodes: minimum and maximum.
        node_type: an EC2 instance type.
        node_cpus: what the pods of DaemonSets request on each node.
        other_cpus: what the other pods request.
        node_gb: the disk of a node.
        database_type: an RDS instance class.
        database_zones: how many have an instance of the database.
        database_gb: its storage.
        zones: of availability.
        nats: gateways.
        alarm_metrics: the metrics that alarms evaluate, and the two limits of each band of usual values.
        composite_alarms: how many.
        kept_months: how long logs are kept.
        access_log_months: how long the load balancer's access logs are kept.
        shipper_series: the metrics of Fluent Bit and the collector.
        insights_series: the metrics of Container Insights.
        resources: blocks of Terraform, by type.
    """

    pods: tuple[int, int]
    pod_cpus: float
    pod_load: float
    nodes: tuple[int, int]
    node_type: str
    node_cpus: float
    other_cpus: float
    node_gb: int
    database_type: str
    database_zones: int
    database_gb: int
    zones: int
    nats: int
    alarm_metrics: int
    composite_alarms: int
    kept_months: float
    access_log_months: float
    shipper_series: int
    insights_series: int
    resources: Mapping[str, int]


def read() -> Deployment:
    """Reads it from the files of this repository."""
    terraform = "\n".join(path.read_text() for path in sorted((ROOT / "terraform").glob("*.tf")))
    blocks = re.findall(r'^resource "(\w+)"', terraform, re.MULTILINE)
    nodes, zones = _default(terraform, "nodes"), len(_default(terraform, "zones"))
    (node_gb,) = re.findall(r"\bvolume_size += (\d+)", terraform)
    manifests = [(namespace, each) for folder, namespace in _FOLDERS.items() for each in _documents(folder)]
    autoscaler = _one(manifests, "HorizontalPodAutoscaler")["spec"]
    service = _cpus(_one(manifests, "Deployment"))
    utilization = autoscaler["metrics"][0]["resource"]["target"]["averageUtilization"]
    others = [
        each for _, each in manifests if each["kind"] == "Deployment" and each["metadata"]["name"] != "clients-api"
    ]
    alarms = rows.load(_default(terraform, "name"))
    return Deployment(
        pods=(autoscaler["minReplicas"], autoscaler["maxReplicas"]),
        pod_cpus=service,
        pod_load=service * utilization / 100,
        nodes=(nodes["least"], nodes["most"]),
        node_type=_default(terraform, "node_type"),
        node_cpus=sum(_cpus(each) for _, each in manifests if each["kind"] == "DaemonSet"),
        other_cpus=sum(each["spec"].get("replicas", 1) * _cpus(each) for each in others),
        node_gb=int(node_gb),
        database_type=_default(terraform, "database_type"),
        database_zones=2 if _default(terraform, "database_multi_zone") else 1,
        database_gb=_default(terraform, "database_storage_gb")["first"],
        zones=zones,
        nats=zones if _default(terraform, "nat_per_zone") else 1,
        alarm_metrics=sum(len(alarm.metrics) + 2 * bool(alarm.band) for alarm in alarms.metric.values()),
        composite_alarms=len(alarms.composite),
        kept_months=24 * _default(terraform, "log_days") / PRICES["hours"],
        access_log_months=24 * _default(terraform, "access_log_days") / PRICES["hours"],
        shipper_series=_series("collector.yaml", manifests),
        insights_series=_series("container-insights.yaml", manifests),
        resources={type_: blocks.count(type_) for type_ in set(blocks)},
    )


def probes() -> list[str]:
    """The paths that Kubernetes probes in a running pod."""
    (deployment,) = (each for each in _documents("base") if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]


def _default(terraform: str, variable: str) -> Any:
    """The default of a variable. Each is on one line, and is YAML but for its equals signs."""
    block = terraform.partition(f'variable "{variable}" {{')[2].partition("\n}")[0]
    (text,) = re.findall(r"^  default +=(.*)", block, re.MULTILINE)
    return yaml.safe_load(text.replace(" =", ":"))


def _documents(folder: str) -> Iterator[dict[str, Any]]:
    for path in sorted((MANIFESTS / folder).glob("*.yaml")):
        yield from (each for each in yaml.safe_load_all(path.read_text()) if "metadata" in each)  # not kustomize's own


def _one(manifests: list[tuple[str, dict[str, Any]]], kind: str) -> dict[str, Any]:
    (found,) = (each for _, each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, "clients-api"))
    return found


def _cpus(workload: dict[str, Any]) -> float:
    requests = [each["resources"]["requests"]["cpu"] for each in workload["spec"]["template"]["spec"]["containers"]]
    return sum(float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1) for cpu in requests)


def _series(file: str, manifests: list[tuple[str, dict[str, Any]]]) -> int:
    """How many metrics the declarations of a collector's file make."""
    config = yaml.safe_load((ROOT / "ops/adot" / file).read_text())
    add_ons = [("kube-system", "add-on")] * PRICES["assumed"]["add_on_workloads"]
    workloads = [(namespace, each["kind"]) for namespace, each in manifests if each["kind"] in _WORKLOADS] + add_ons
    services = [(namespace, each["kind"]) for namespace, each in manifests if each["kind"] == "Service"]
    namespaces = [(namespace, "Namespace") for namespace in _FOLDERS.values()]
    count = 0
    for declaration in config["exporters"]["awsemf"]["metric_declarations"]:
        (matched,) = [matcher["regex"] for matcher in declaration.get("label_matchers", [{"regex": ""}])]
        (dimensions,) = declaration["dimensions"]
        of = {"PodName": workloads, "Service": services, "Namespace": namespaces}
        kind = next((values for name, values in of.items() if name in dimensions), [("", "cluster")])
        values = sum(bool(re.search(matched, namespace)) for namespace, _ in kind)
        count += values * len(declaration["metric_name_selectors"])
    return count
