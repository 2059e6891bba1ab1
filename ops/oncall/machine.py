"""This machine's figures, as metrics with the names that AWS uses for pods, nodes and RDS.

The panels for these metrics then show data without AWS, and a panel with a wrong name stays empty. A worker process
is shown as a pod; this machine as the node, and as the machine of RDS; the service's PostgreSQL as the database of RDS;
the recorder as the log and trace shippers, and its requests of /readyz as the check of the public name. There is no
load balancer, so it never fails, and no certificate.

Other programs run on this machine, too, and a node and RDS have none. So of its CPU, memory and disk only that counts
which the service, its PostgreSQL and its recording use: a busy machine fires no alarm on them.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

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
# What the page says on a dashboard with these figures.
NOTE: Final = (
    "Here, a worker process stands for a pod, and this machine for the node and for RDS. Of its CPU, memory and disk, "
    "only what the service, its PostgreSQL and its recording use counts. There is no load balancer and no autoscaler, "
    "so they never fail."
)
# What the page says in place of figures that this machine does not have.
MISSING: Final = {
    "AWS/CertificateManager DaysToExpiry": "There is no certificate here: the service listens on this machine only.",
    **dict.fromkeys(
        ("AWS/RDS ReadLatency", "AWS/RDS WriteLatency"),
        "Not measured here: all programs on this machine share its disk.",
    ),
    **dict.fromkeys(
        ("AWS/RDS CPUUtilization", "AWS/RDS FreeableMemory"), "Not measured: PostgreSQL runs on another machine."
    ),
}

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
}
_SESSIONS: Final = """
    SELECT count(*) AS connections,
           count(*) FILTER (WHERE state = 'active') AS load,
           (SELECT max(age(datfrozenxid)) FROM pg_database) AS transaction_ids,
           pg_database_size(current_database()) AS bytes,
           pg_backend_pid() AS pid
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
        ready: the pods that are ready.
        fewest_ready: how many were ready when they were the fewest.
        is_reachable: whether the last request of /readyz was answered with 200.
    """

    records: int = 0
    spans: int = 0
    spans_refused: int = 0
    unread: int = 0
    invalid: int = 0
    restarts: int = 0
    ready: set[str] = field(default_factory=set)
    fewest_ready: float = inf
    is_reachable: bool = True

    def next(self) -> "Shipped":
        """The counts from now on."""
        return Shipped(ready=self.ready, fewest_ready=len(self.ready), is_reachable=self.is_reachable)

    def start(self, pod: str) -> None:
        """Counts a pod that serves requests from now on."""
        self.ready.add(pod)

    def stop(self, pod: str) -> None:
        """Counts a pod that does not serve requests any more."""
        self.ready.discard(pod)
        self.fewest_ready = min(self.fewest_ready, len(self.ready))


class Use(NamedTuple):
    """What a process uses.

    Attributes:
        cpu: percent of a core since the last sample.
        memory: bytes, with those that it shares with others.
        own_memory: bytes, with its part of those that it shares; where the system does not know that, without them.
    """

    cpu: float
    memory: int
    own_memory: int


class Processes:
    """Samples processes, which may be others each time."""

    def __init__(self) -> None:
        self._known: dict[psutil.Process, psutil.Process] = {}

    def sample(self, found: Iterable[psutil.Process]) -> list[Use]:
        """What each of them uses, apart from those that have exited or belong to another user."""
        # psutil measures CPU since the last call on the same object.
        self._known = {process: self._known.get(process, process) for process in found}
        return list(self._uses())

    def _uses(self) -> Iterator[Use]:
        for process in self._known.values():
            with suppress(psutil.Error):
                memory = process.memory_full_info()
                yield Use(process.cpu_percent(), memory.rss, getattr(memory, "pss", memory.uss))


class Machine:
    """Samples this machine.

    Args:
        service: the process id of the service, or of the parent of its workers.
        dsn: of its database.
        recording: the file, and those next to it whose names begin as its name does.

    Attributes:
        shipped: reported at each sample; its counts are reset then.
    """

    def __init__(self, service: int, dsn: str, recording: Path) -> None:
        self.shipped = Shipped()
        self._service = psutil.Process(service)
        self._pods = Processes()
        self._parent = Processes()
        self._postgres = Processes()
        self._dsn = dsn
        self._recording = recording
        self._memory = psutil.virtual_memory().total
        self._disk = psutil.disk_usage(str(recording.parent)).total
        self._cpus = psutil.cpu_count() or 1

    async def sample(self, at_ms: int) -> list[dict[str, Any]]:
        """Documents in the Embedded Metric Format, for the time since the last sample."""
        shipped, self.shipped = self.shipped, self.shipped.next()
        errors = {"EMFParsingErrors": shipped.unread, "EMFValidationErrors": shipped.invalid}
        ready = {"service_number_of_running_pods": min(shipped.fewest_ready, len(shipped.ready))}
        pods, parent = self._sample_service()
        return [
            document("ContainerInsights", _CLUSTER, self._node([*pods, *parent]), at_ms),
            document("ContainerInsights", _SERVICE, ready, at_ms),
            document("ContainerInsights", _PODS, self._pod(pods, shipped.restarts), at_ms),
            document("ContainerInsights", _AUTOSCALER, {"pod_number_of_container_restarts": 0}, at_ms),
            document("AWS/RDS", _DATABASE, await self._database(), at_ms),
            document("Telemetry", _CLUSTER, _shipping(shipped), at_ms),
            document("AWS/Logs", _METRICS_GROUP, errors, at_ms),
            document("AWS/ELB", {}, dict.fromkeys(_BALANCER, 0), at_ms),
            document("AWS/Route53", _HEALTH_CHECK, {"HealthCheckStatus": int(shipped.is_reachable)}, at_ms),
        ]

    def _sample_service(self) -> tuple[list[Use], list[Use]]:
        """What the workers use, or the one process of a service without workers; and what their parent uses."""
        try:
            name = self._service.name()
            workers = [child for child in self._service.children() if child.name() == name]
        except psutil.NoSuchProcess:
            return [], []
        parent = self._parent.sample([self._service])
        return (self._pods.sample(workers), parent) if workers else (parent, [])

    def _node(self, uses: list[Use]) -> dict[str, float]:
        recorded = sum(file.stat().st_size for file in self._recording.parent.glob(f"{self._recording.stem}.*"))
        return {
            "cluster_node_count": 1,
            "cluster_failed_node_count": 0,
            "node_cpu_utilization": sum(use.cpu for use in uses) / self._cpus,
            "node_memory_utilization": 100 * sum(use.own_memory for use in uses) / self._memory,
            "node_filesystem_utilization": 100 * recorded / self._disk,
        }

    def _pod(self, pods: list[Use], restarts: int) -> dict[str, float]:
        return {
            "pod_cpu_utilization": max((pod.cpu / self._cpus for pod in pods), default=0),
            "pod_memory_utilization_over_pod_limit": max(
                (100 * pod.memory / _POD_MEMORY_BYTES for pod in pods), default=0
            ),
            "pod_number_of_container_restarts": restarts,
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
            uses = self._postgres.sample(_postgres(row["pid"]))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return {}
        finally:
            connection.terminate()
        return {
            "DatabaseConnections": row["connections"],
            "DBLoad": row["load"],
            "MaximumUsedTransactionIDs": row["transaction_ids"],
            "FreeStorageSpace": self._disk - row["bytes"],
            **(self._database_machine(uses) if uses else {}),
        }

    def _database_machine(self, uses: list[Use]) -> dict[str, float]:
        return {
            "CPUUtilization": sum(use.cpu for use in uses) / self._cpus,
            "FreeableMemory": self._memory - sum(use.own_memory for use in uses),
        }


def _postgres(session: int) -> list[psutil.Process]:
    """The processes of the server that has a session with this process id; empty where it is on another machine."""
    try:
        server = psutil.Process(session).parent()
        return [server, *server.children()] if server and server.name() == "postgres" else []
    except psutil.Error:
        return []


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


def _shipping(shipped: Shipped) -> dict[str, float]:
    return {
        "fluentbit_output_proc_records_total": shipped.records,
        "fluentbit_output_retries_total": 0,
        "fluentbit_output_dropped_records_total": 0,
        "otelcol_exporter_sent_spans": shipped.spans,
        "otelcol_exporter_send_failed_spans": shipped.spans_refused,
    }
