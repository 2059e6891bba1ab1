"""This machine's figures, as metrics with the names that AWS uses for pods, nodes and RDS.

The panels for these metrics then show data without AWS, and a panel with a wrong name stays empty. A worker process
is shown as a pod; this machine as the node, and as the machine of RDS; the service's PostgreSQL as the database of RDS;
the recorder as the log and trace shippers, and its requests of /readyz as the check of the public name. There is no
load balancer, so it never fails, and no certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil

NAME: Final = "clients"  # of the deployment

_CLUSTER: Final = {"ClusterName": NAME}
_SERVICE: Final = {**_CLUSTER, "Namespace": "clients", "Service": "clients-api"}
_PODS: Final = {**_CLUSTER, "Namespace": "clients", "PodName": "clients-api"}
_AUTOSCALER: Final = {**_CLUSTER, "Namespace": "kube-system", "PodName": "cluster-autoscaler"}
_DATABASE: Final = {"DBInstanceIdentifier": NAME}
_HEALTH_CHECK: Final = {"HealthCheckId": "HEALTH_CHECK"}
_METRICS_GROUP: Final = {"LogGroupName": f"/{NAME}/clients-api/metrics"}

_BALANCER: Final = ("HTTPCode_ELB_5XX", "BackendConnectionErrors", "UnHealthyHostCount")
_POD_MEMORY_BYTES: Final = 384 * 2**20  # the limit in k8s/base/deployment.yaml
_DATABASE_TIMEOUT_SECONDS: Final = 2.0
_UNITS: Final = {
    "node_cpu_utilization": "Percent",
    "node_memory_utilization": "Percent",
    "node_filesystem_utilization": "Percent",
    "pod_cpu_utilization": "Percent",
    "pod_memory_utilization_over_pod_limit": "Percent",
    "CPUUtilization": "Percent",
    "FreeableMemory": "Bytes",
    "FreeStorageSpace": "Bytes",
    "ReadLatency": "Seconds",
    "WriteLatency": "Seconds",
}
_SESSIONS: Final = """
    SELECT count(*) AS connections,
           count(*) FILTER (WHERE state = 'active') AS load,
           (SELECT max(age(datfrozenxid)) FROM pg_database) AS transaction_ids
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass
class Shipped:
    """Counts since the last sample.

    Attributes:
        records: log lines.
        spans: of traces.
        spans_refused: trace exports that could not be parsed.
        unread: metric documents that are not JSON.
        invalid: metric documents that break the rules of the format.
        restarts: worker processes that exited and were restarted.
        is_reachable: whether the last request of /readyz was answered with 200.
    """

    records: int = 0
    spans: int = 0
    spans_refused: int = 0
    unread: int = 0
    invalid: int = 0
    restarts: int = 0
    is_reachable: bool = True


class Machine:
    """Samples this machine.

    Args:
        service: the process id of the service, or of the parent of its workers.
        dsn: of its database.
        folder: on the disk whose figures are shown as the database's.

    Attributes:
        shipped: reported at each sample; its counts are reset then.
    """

    def __init__(self, service: int, dsn: str, folder: Path) -> None:
        self.shipped = Shipped()
        self._service = psutil.Process(service)
        self._pods: list[psutil.Process] = []
        self._dsn = dsn
        self._folder = folder
        self._disk = psutil.disk_io_counters()

    async def sample(self, at_ms: int) -> list[dict[str, Any]]:
        """Documents in the Embedded Metric Format, for the time since the last sample."""
        self._find_pods()
        database = {**self._database_machine(), **await self._database()}
        shipped, self.shipped = self.shipped, Shipped(is_reachable=self.shipped.is_reachable)
        errors = {"EMFParsingErrors": shipped.unread, "EMFValidationErrors": shipped.invalid}
        return [
            document("ContainerInsights", _CLUSTER, self._node(), at_ms),
            document("ContainerInsights", _SERVICE, {"service_number_of_running_pods": len(self._pods)}, at_ms),
            document("ContainerInsights", _PODS, self._pod(shipped.restarts), at_ms),
            document("ContainerInsights", _AUTOSCALER, {"pod_number_of_container_restarts": 0}, at_ms),
            document("AWS/RDS", _DATABASE, database, at_ms),
            document("Telemetry", _CLUSTER, _shipping(shipped), at_ms),
            document("AWS/Logs", _METRICS_GROUP, errors, at_ms),
            document("AWS/ELB", {}, dict.fromkeys(_BALANCER, 0), at_ms),
            document("AWS/Route53", _HEALTH_CHECK, {"HealthCheckStatus": int(shipped.is_reachable)}, at_ms),
        ]

    def _find_pods(self) -> None:
        """Finds the worker processes, or the one process of a service without workers."""
        try:
            name = self._service.name()
            found = [child for child in self._service.children() if child.name() == name] or [self._service]
        except psutil.NoSuchProcess:
            found = []
        known = {pod.pid: pod for pod in self._pods}
        self._pods = [
            known.get(pod.pid, pod) for pod in found
        ]  # psutil measures CPU since the last call on the same object

    def _node(self) -> dict[str, float]:
        return {
            "cluster_node_count": 1,
            "cluster_failed_node_count": 0,
            "node_cpu_utilization": psutil.cpu_percent(),
            "node_memory_utilization": psutil.virtual_memory().percent,
            "node_filesystem_utilization": psutil.disk_usage(str(self._folder)).percent,
        }

    def _pod(self, restarts: int) -> dict[str, float]:
        cpus = psutil.cpu_count() or 1
        samples = [sample for pod in self._pods if (sample := _sample(pod))]
        return {
            "pod_cpu_utilization": max((cpu / cpus for cpu, _ in samples), default=0),
            "pod_memory_utilization_over_pod_limit": max(
                (100 * memory / _POD_MEMORY_BYTES for _, memory in samples), default=0
            ),
            "pod_number_of_container_restarts": restarts,
        }

    def _database_machine(self) -> dict[str, float]:
        before, self._disk = self._disk, psutil.disk_io_counters()
        return {
            "CPUUtilization": psutil.cpu_percent(),
            "FreeableMemory": psutil.virtual_memory().available,
            "FreeStorageSpace": psutil.disk_usage(str(self._folder)).free,
            "ReadLatency": _seconds_each(before, self._disk, "read"),
            "WriteLatency": _seconds_each(before, self._disk, "write"),
        }

    async def _database(self) -> dict[str, float]:
        """The figures of PostgreSQL; empty while it does not answer."""
        try:
            connection = await asyncpg.connect(
                self._dsn, timeout=_DATABASE_TIMEOUT_SECONDS, command_timeout=_DATABASE_TIMEOUT_SECONDS
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError):
            return {}
        try:
            (row,) = await connection.fetch(_SESSIONS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return {}
        finally:
            connection.terminate()
        return {
            "DatabaseConnections": row["connections"],
            "DBLoad": row["load"],
            "MaximumUsedTransactionIDs": row["transaction_ids"],
        }


def document(namespace: str, dimensions: Mapping[str, str], values: Mapping[str, float], at_ms: int) -> dict[str, Any]:
    """A document in the Embedded Metric Format.

    Args:
        namespace: of the metrics.
        dimensions: of every metric.
        values: by the names of the metrics.
        at_ms: the time, in milliseconds since 1970.
    """
    metrics = [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in values]
    directive = {"Namespace": namespace, "Dimensions": [list(dimensions)], "Metrics": metrics}
    return {"_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]}, **dimensions, **values}


def _sample(pod: psutil.Process) -> tuple[float, int] | None:
    """CPU in percent of a core since the last sample, and memory in bytes; None where the process has exited."""
    try:
        return pod.cpu_percent(), pod.memory_info().rss
    except psutil.NoSuchProcess:
        return None


def _seconds_each(before: Any, after: Any, what: str) -> float:
    """The average time of a disk read or write; 0 without any, or where the system does not count them."""
    if before is None or after is None:
        return 0
    count = getattr(after, f"{what}_count") - getattr(before, f"{what}_count")
    milliseconds = getattr(after, f"{what}_time") - getattr(before, f"{what}_time")
    return milliseconds / 1000 / count if count else 0


def _shipping(shipped: Shipped) -> dict[str, float]:
    return {
        "fluentbit_output_proc_records_total": shipped.records,
        "fluentbit_output_retries_total": 0,
        "fluentbit_output_dropped_records_total": 0,
        "otelcol_exporter_sent_spans": shipped.spans,
        "otelcol_exporter_send_failed_spans": shipped.spans_refused,
    }
