"""The bill: from what a worker was measured to write, what is deployed, and AWS's prices."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ops.cost.deployment import PRICES, Deployment

MEASURED: Final = Path(__file__).with_name("measured.json")
MONTH_SECONDS: Final[int] = 3600 * PRICES["hours"]
TELEMETRY: Final = ("logs", "metrics", "alarms", "traces", "Container Insights", "shipping")

_GB: Final = 1e9
_HOURS: Final = PRICES["hours"]


@dataclass(frozen=True)
class Sample:
    """What one worker did at one rate, per second.

    Attributes:
        rate: requests.
        lines: log lines of requests.
        line_bytes: of these.
        metric_bytes: of documents of metrics.
        traces: that were recorded.
        trace_bytes: of their exports.
        service_cpus: CPU seconds of the worker.
        postgres_cpus: CPU seconds of PostgreSQL.
        request_bytes: that were received, without TLS.
        response_bytes: that were sent, without TLS.
    """

    rate: float
    lines: float
    line_bytes: float
    metric_bytes: float
    traces: float
    trace_bytes: float
    service_cpus: float
    postgres_cpus: float
    request_bytes: float
    response_bytes: float


@dataclass(frozen=True)
class Design:
    """A way to write telemetry, as it was measured.

    Attributes:
        name: this, every-line or off-the-shelf.
        date: of the measurement.
        failed: the share of requests that failed.
        slow: the share of requests that took longer than 100 ms.
        metadata_bytes: that Fluent Bit adds to each line.
        series: the metrics that CloudWatch bills, whatever the number of pods.
        compressed: the share of their size that lines and documents have in gzip.
        samples: by rising rate.
    """

    name: str
    date: str
    failed: float
    slow: float
    metadata_bytes: int
    series: int
    compressed: float
    samples: Sequence[Sample]

    def at(self, rate: float) -> Sample:
        """A worker at a rate: on the line through the two nearest samples."""
        index = next((at for at, sample in enumerate(self.samples) if sample.rate >= rate), len(self.samples) - 1)
        low, high = (asdict(self.samples[at]) for at in (max(index, 1) - 1, max(index, 1)))
        share = (rate - low["rate"]) / (high["rate"] - low["rate"])
        return Sample(**{each: max(0.0, low[each] + share * (high[each] - low[each])) for each in low})


@dataclass(frozen=True)
class Bill:
    """What a deployment costs a month at a rate, in dollars.

    Attributes:
        rate: requests per second, all month.
        pods: how many the autoscaler keeps.
        nodes: how many they need.
        is_served: whether the autoscalers' bounds allow as many as the rate needs.
        parts: dollars by part.
    """

    rate: float
    pods: int
    nodes: int
    is_served: bool
    parts: Mapping[str, float]

    @property
    def telemetry(self) -> float:
        """All that telemetry costs."""
        return sum(self.parts[part] for part in TELEMETRY)

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def load(path: Path = MEASURED) -> dict[str, Design]:
    """The designs that were measured, by name."""
    read: list[dict[str, Any]] = json.loads(path.read_text())
    designs = [Design(**{**each, "samples": [Sample(**one) for one in each["samples"]]}) for each in read]
    return {design.name: design for design in designs}


def save(designs: Iterable[Design], path: Path = MEASURED) -> None:
    """Writes what load() reads."""
    path.write_text(json.dumps([asdict(design) for design in designs], indent=1) + "\n")


def bill(design: Design, rate: float, deployed: Deployment) -> Bill:
    """What the deployment costs a month at this rate."""
    minimum, maximum = deployed.pods
    pods = next((n for n in range(minimum, maximum) if design.at(rate / n).service_cpus <= deployed.pod_load), maximum)
    worker = design.at(rate / pods)
    nodes = _nodes(pods, deployed)
    used = pods * worker.service_cpus
    is_served = worker.service_cpus < 1 and used < nodes * PRICES["compute"]["nodes"][deployed.node_type]["cpus"]
    parts = {
        **_infrastructure(pods, nodes, worker, deployed),
        **_telemetry(design, pods, nodes, worker, deployed),
    }
    return Bill(rate, pods, nodes, is_served, parts)


def cpu_second(deployed: Deployment) -> float:
    """Dollars for a second of CPU time of a request: of nodes, which have idle CPUs as the autoscaler's goal says."""
    node = PRICES["compute"]["nodes"][deployed.node_type]
    return float(node["hour"] / 3600 / node["allocatable"] * deployed.pod_cpus / deployed.pod_load)


def _nodes(pods: int, deployed: Deployment) -> int:
    node, assumed = PRICES["compute"]["nodes"][deployed.node_type], PRICES["assumed"]
    free = node["allocatable"] - deployed.node_cpus - assumed["add_on_node_cpus"]
    wanted: int = math.ceil((pods * deployed.pod_cpus + deployed.other_cpus + assumed["add_on_cpus"]) / free)
    return min(max(wanted, deployed.nodes[0]), deployed.nodes[1])


def _infrastructure(pods: int, nodes: int, worker: Sample, deployed: Deployment) -> dict[str, float]:
    compute, database, storage, network = (PRICES[each] for each in ("compute", "database", "storage", "network"))
    node, server = compute["nodes"][deployed.node_type], database["types"][deployed.database_type]
    received, sent = (pods * size * MONTH_SECONDS / _GB for size in (worker.request_bytes, worker.response_bytes))
    surplus = max(0.0, pods * worker.service_cpus - nodes * node["baseline"]) * compute["surplus_vcpu_hour"]
    database_surplus = max(0.0, pods * worker.postgres_cpus - server["baseline"]) * database["surplus_vcpu_hour"]
    access_logs = pods * worker.rate * MONTH_SECONDS * PRICES["assumed"]["access_log_bytes"] / _GB
    addresses = deployed.nats + deployed.zones  # a gateway's, and the balancer's in each zone
    return {
        "compute": (compute["control_plane_hour"] + nodes * node["hour"] + surplus) * _HOURS,
        "database": (deployed.database_zones * server["hour"] + database_surplus) * _HOURS,
        "storage": nodes * deployed.node_gb * storage["node_gb_month"]
        + deployed.database_zones * deployed.database_gb * storage["database_gb_month"]
        + access_logs * deployed.access_log_months * storage["access_log_gb_month"],
        "balancer": network["balancer_hour"] * _HOURS + network["balancer_gb"] * (received + sent),
        "NAT": deployed.nats * network["nat_hour"] * _HOURS,
        "addresses": addresses * network["address_hour"] * _HOURS,
        "traffic out": network["out_gb"] * sent,
        "keys, checks": sum(deployed.resources.get(type_, 0) * price for type_, price in PRICES["resources"].items()),
    }


def _telemetry(design: Design, pods: int, nodes: int, worker: Sample, deployed: Deployment) -> dict[str, float]:
    logs, metrics, assumed = PRICES["logs"], PRICES["metrics"], PRICES["assumed"]
    gb = logs["ingested_gb"] + logs["stored_gb_month"] * design.compressed * deployed.kept_months

    def month(per_second: float) -> float:
        return pods * per_second * MONTH_SECONDS / _GB

    lines = month(worker.line_bytes + worker.lines * design.metadata_bytes) + nodes * assumed["system_node_gb"]
    documents, spans = month(worker.metric_bytes), month(worker.trace_bytes)
    performance = nodes * assumed["performance_node_gb"]
    alarms = deployed.alarm_metrics * metrics["alarm_metric_month"]
    return {
        "logs": (lines + assumed["control_plane_gb"] + assumed["database_gb"]) * gb,
        "metrics": documents * gb + (design.series + deployed.shipper_series) * metrics["metric_month"],
        "alarms": alarms + deployed.composite_alarms * metrics["composite_alarm_month"],
        "traces": pods * worker.traces * MONTH_SECONDS / 1e6 * PRICES["traces"]["recorded_million"],
        "Container Insights": performance * gb + deployed.insights_series * metrics["metric_month"],
        "shipping": (lines + documents + spans + performance) * PRICES["network"]["nat_gb"],
    }
