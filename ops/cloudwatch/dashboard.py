"""Generates the CloudWatch dashboards; with --check, reports those that are out of date.

Terraform fills in ${name}, ${region} and ${account}. A dashboard is a JSON document on a grid of 24 columns:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ops.cloudwatch.rows import Alarms, Composite, Metric, MetricAlarm, load
from ops.cloudwatch.widgets import (
    GROUPS,
    LIMIT_COLOR,
    NAME,
    Lines,
    Widget,
    body,
    budget,
    burn,
    chart,
    limits,
    line,
    log,
    number,
    rate,
    states,
    text,
)
from svc.logs import names

DASHBOARDS: Final = Path(__file__).resolve().parent / "dashboards"

# Colours that colour-blind people can tell apart, on a light and on a dark background.
_GOOD, _BAD, _WARN, _NEUTRAL, _OTHER = "#2a9d8f", "#d1495b", "#e09f3e", "#3d7ebf", "#8d6cab"

_DATABASE: Final = {"DBInstanceIdentifier": NAME}
_CLUSTER: Final = {"ClusterName": NAME}
_PODS: Final = {**_CLUSTER, "Namespace": "clients", "PodName": "clients-api"}
_AUTOSCALER: Final = {**_CLUSTER, "Namespace": "kube-system", "PodName": "cluster-autoscaler"}
_SERVICE: Final = {**_CLUSTER, "Namespace": "clients", "Service": "clients-api"}


def service(alarms: Alarms) -> list[list[Widget]]:
    """Returns the service dashboard as rows of widgets: what callers experience first, then the causes."""
    return [
        [
            text(
                "# Clients API\nThe first rows show what callers experience, the others show the causes. "
                "Each alarm has a runbook of the same name. Dashboard `requests` has the requests behind them.",
                2,
            )
        ],
        [states("Alarms", _notifying(alarms, of_service=True), 4)],
        [
            budget(alarms, "availability"),
            budget(alarms, "latency"),
            number("Requests per second", rate(_service_metric(names.REQUESTS))),
            number("Latency, p99", [line(_service_metric(names.LATENCY, "p99"), "p99")]),
        ],
        [
            chart("Requests per second", rate(_service_metric(names.REQUESTS), _NEUTRAL), unit="per second"),
            chart(
                "Faults, errors and shed requests per minute",
                [
                    line(_service_metric(names.FAULTS), "faults (5xx)", color=_BAD),
                    line(_service_metric(names.SHED), "of these, shed", color=_OTHER),
                    line(_service_metric(names.ERRORS), "errors (4xx)", color=_WARN),
                ],
            ),
            chart(
                "Latency of all requests",
                [
                    line(_service_metric(names.LATENCY, f"p{share}"), f"p{share}", color=color)
                    for share, color in _PERCENTILES
                ],
                unit="ms",
                limits=[(100, "objective: 99 % within 100 ms", LIMIT_COLOR)],
            ),
        ],
        [
            burn(alarms, "availability", _RATES),
            burn(alarms, "latency", _RATES),
            chart(
                "Latency of successes by route, p99",
                [
                    line(_route_latency(route, method, "2xx"), f"{method} {route}")
                    for route, method in (("/get/{id}", "GET"), ("/add", "POST"), ("/getall", "GET"))
                ],
                unit="ms",
            ),
            chart(
                "Database queue wait and round trip, p99",
                [
                    line(_operation(name, operation, "p99"), f"{operation}: {label}")
                    for operation in ("get", "add")
                    for name, label in ((names.QUEUE_WAIT, "queue wait"), (names.ROUND_TRIP, "round trip"))
                ],
                unit="ms",
            ),
        ],
        [
            chart(
                "Event loop lag",
                [
                    line(_service_metric(names.EVENT_LOOP_LAG, "p99"), "p99", color=_WARN),
                    line(_service_metric(names.EVENT_LOOP_LAG, "p50"), "p50", color=_NEUTRAL),
                ],
                unit="ms",
                limits=limits(alarms, "event-loop-lag"),
            ),
            chart(
                "CPU per process",
                _max_and_average(names.PROCESS_CPU),
                unit="% of a core",
                limits=limits(alarms, "cpu"),
            ),
            chart(
                "Memory per process",
                [line(_service_metric(names.PROCESS_MEMORY, "Maximum"), "maximum", color=_NEUTRAL)],
                unit="bytes",
                limits=limits(alarms, "memory"),
            ),
            chart(
                "Requests in flight per process",
                _max_and_average(names.IN_FLIGHT),
            ),
        ],
        [
            chart(
                "Wait of requests for a slot",
                [
                    line(_service_metric(names.SLOT_WAIT, "p99"), "p99", color=_WARN),
                    line(_service_metric(names.SLOT_WAIT, "SampleCount"), "requests", color=_OTHER, axis="right"),
                ],
                unit="ms",
            ),
            chart(
                "Client connections per process",
                _max_and_average(names.CONNECTIONS),
            ),
            chart(
                "Client connections closed per minute",
                [
                    line(_service_metric(names.CONNECTIONS_SHED), "limit reached", color=_BAD),
                    line(_service_metric(names.CONNECTIONS_TIMED_OUT), "timed out", color=_WARN),
                ],
            ),
            chart(
                "Open files and dropped log lines",
                [
                    line(_service_metric(names.OPEN_FILES, "Maximum"), "open files per process", color=_NEUTRAL),
                    line(_service_metric(names.LOG_LINES_DROPPED), "dropped lines", color=_BAD, axis="right"),
                ],
            ),
        ],
        [
            chart(
                "Share of time that the database was unavailable",
                [line(_service_metric(names.DATABASE_IS_UNAVAILABLE, "Average"), "unavailable", color=_BAD)],
                limits=limits(alarms, "database-unavailable"),
            ),
            chart(
                "Database connections in use per process",
                _max_and_average(names.CONNECTIONS_IN_USE),
                limits=limits(alarms, "connections"),
            ),
            chart(
                "Batch size",
                [line(_operation(names.BATCH_SIZE_METRIC, each, "Average"), each) for each in ("get", "add", "page")],
            ),
        ],
    ]


def requests() -> list[list[Widget]]:
    """Returns the dashboard of single requests as rows of widgets.

    Each refresh of a log widget reads all lines of the dashboard's time range, at $0.005 per GB. A log widget cannot
    have a range of its own. So none is on a dashboard that stays open, and the range of this one is an hour.
    """
    return [
        [
            text(
                "# Clients API: requests\nFrom the log lines, which are a sample under load: a line stands for "
                "`sample_weight` requests. Failed and slow requests have lines before others. "
                "Each refresh costs money: do not leave this dashboard open.",
                2,
            )
        ],
        [log("Latest faults", "faults")],
        [log("Slowest requests", "slowest-requests")],
        [log("Kinds of errors", "error-kinds")],
    ]


def platform(alarms: Alarms) -> list[list[Widget]]:
    """Returns the platform dashboard as rows of widgets: pods, nodes, the database, and the delivery of telemetry."""
    return [
        [
            text(
                "# Clients API: platform\nPods, nodes, the database, and the delivery of logs, metrics and traces.",
                2,
            )
        ],
        [states("Alarms", _notifying(alarms, of_service=False), 4)],
        [
            chart(
                "Public name, checked from outside",
                [
                    line(
                        _outside("AWS/Route53", "HealthCheckStatus", "HealthCheckId", "HEALTH_CHECK"),
                        "answers (1) or not (0)",
                        color=_GOOD,
                        region="us-east-1",
                    )
                ],
                limits=limits(alarms, "unreachable"),
            ),
            chart(
                "Load balancer",
                [
                    line(_balancer("HTTPCode_ELB_5XX", "Sum"), "its own errors (5xx)", color=_BAD),
                    line(_balancer("BackendConnectionErrors", "Sum"), "connection errors", color=_WARN),
                    line(_balancer("UnHealthyHostCount", "Maximum"), "unhealthy nodes", color=_OTHER, axis="right"),
                ],
            ),
            number(
                "Certificate",
                [
                    line(
                        _outside("AWS/CertificateManager", "DaysToExpiry", "CertificateArn", "CERTIFICATE"), "days left"
                    )
                ],
                period=86400,
            ),
        ],
        [
            chart(
                "Ready pods",
                [
                    line(
                        _container_insights("service_number_of_running_pods", _SERVICE, "Minimum"),
                        "clients-api",
                        color=_NEUTRAL,
                    )
                ],
                limits=limits(alarms, "pods-below-minimum"),
            ),
            chart(
                "Container restarts",
                [
                    line(
                        _container_insights("pod_number_of_container_restarts", _PODS, "Sum"), "clients-api", color=_BAD
                    ),
                    line(
                        _container_insights("pod_number_of_container_restarts", _AUTOSCALER, "Sum"),
                        "cluster-autoscaler",
                        color=_OTHER,
                    ),
                ],
            ),
            chart(
                "CPU and memory per pod",
                [
                    line(
                        _container_insights("pod_cpu_utilization", _PODS, "Maximum"), "CPU, of its node", color=_NEUTRAL
                    ),
                    line(
                        _container_insights("pod_memory_utilization_over_pod_limit", _PODS, "Maximum"),
                        "memory, of its limit",
                        color=_OTHER,
                    ),
                ],
                unit="%",
            ),
        ],
        [
            chart(
                "Nodes",
                [
                    line(_container_insights("cluster_node_count", _CLUSTER, "Maximum"), "nodes", color=_NEUTRAL),
                    line(_container_insights("cluster_failed_node_count", _CLUSTER, "Maximum"), "failed", color=_BAD),
                ],
                limits=limits(alarms, "nodes-at-maximum"),
            ),
            chart(
                "Busiest node",
                [
                    line(_container_insights("node_cpu_utilization", _CLUSTER, "Maximum"), "CPU", color=_NEUTRAL),
                    line(_container_insights("node_memory_utilization", _CLUSTER, "Maximum"), "memory", color=_OTHER),
                    line(_container_insights("node_filesystem_utilization", _CLUSTER, "Maximum"), "disk", color=_WARN),
                ],
                unit="%",
            ),
        ],
        [
            chart(
                "Database CPU",
                [line(_rds("CPUUtilization", "Average"), "CPU", color=_NEUTRAL)],
                unit="%",
                limits=limits(alarms, "database-cpu"),
            ),
            chart(
                "Database load",
                [line(_rds("DBLoad", "Average"), "active sessions", color=_NEUTRAL)],
                limits=limits(alarms, "database-load"),
            ),
            chart(
                "Database connections",
                [line(_rds("DatabaseConnections", "Maximum"), "connections", color=_NEUTRAL)],
                limits=limits(alarms, "database-connections"),
            ),
            chart(
                "Transaction IDs in use",
                [line(_rds("MaximumUsedTransactionIDs", "Maximum"), "IDs in use", color=_NEUTRAL)],
                period=300,
            ),
        ],
        [
            chart(
                "Database disk latency",
                [
                    line(_rds("ReadLatency", "p90"), "read, p90", color=_NEUTRAL),
                    line(_rds("WriteLatency", "p90"), "write, p90", color=_WARN),
                ],
                unit="s",
                limits=limits(alarms, "database-write-latency"),
            ),
            chart(
                "Free database storage",
                [line(_rds("FreeStorageSpace", "Minimum"), "free", color=_NEUTRAL)],
                unit="bytes",
                limits=limits(alarms, "database-storage"),
            ),
            chart(
                "Free database memory",
                [line(_rds("FreeableMemory", "Average"), "free", color=_NEUTRAL)],
                unit="bytes",
                limits=limits(alarms, "database-memory"),
            ),
        ],
        [
            chart(
                "Records shipped",
                [
                    line(_shipper("fluentbit_output_proc_records_total"), "delivered", color=_GOOD),
                    line(_shipper("fluentbit_output_retries_total"), "retries", color=_WARN, axis="right"),
                    line(_shipper("fluentbit_output_dropped_records_total"), "dropped", color=_BAD, axis="right"),
                ],
            ),
            chart(
                "Spans shipped",
                [
                    line(_shipper("otelcol_exporter_sent_spans"), "delivered", color=_GOOD),
                    line(_shipper("otelcol_exporter_send_failed_spans"), "failed", color=_BAD, axis="right"),
                ],
            ),
            chart(
                "Metric documents rejected by CloudWatch",
                [
                    line(_logs("EMFParsingErrors"), "parsing errors", color=_BAD),
                    line(_logs("EMFValidationErrors"), "validation errors", color=_OTHER),
                ],
            ),
        ],
    ]


_RATES: Final = (_BAD, _WARN, _OTHER)  # of an objective, the fastest first
_PERCENTILES: Final = (("50", _GOOD), ("90", _NEUTRAL), ("99", _WARN), ("99.9", _BAD))


def _notifying(alarms: Alarms, *, of_service: bool) -> list[MetricAlarm | Composite]:
    """Returns the alarms that notify someone: those on the service's own metrics, or the others."""
    return [row for row in alarms.notifying if (_namespaces(alarms, row) == {names.NAMESPACE}) == of_service]


def _namespaces(alarms: Alarms, row: MetricAlarm | Composite) -> set[str]:
    parts = [row] if isinstance(row, MetricAlarm) else [alarms.metric[name] for group in row.rule for name in group]
    return {metric.namespace for part in parts for metric in part.metrics.values()}


def _service_metric(name: str, statistic: str = "Sum") -> Metric:
    return Metric(names.NAMESPACE, name, (), statistic)


def _max_and_average(name: str) -> Lines:
    return [
        line(_service_metric(name, "Maximum"), "maximum", color=_WARN),
        line(_service_metric(name, "Average"), "average", color=_NEUTRAL),
    ]


def _route_latency(route: str, method: str, status: str) -> Metric:
    values = {names.ROUTE_DIMENSION: route, names.METHOD_DIMENSION: method, names.STATUS_DIMENSION: status}
    return Metric(names.NAMESPACE, names.LATENCY, tuple(sorted(values.items())), "p99")


def _operation(name: str, operation: str, statistic: str) -> Metric:
    return Metric(names.NAMESPACE, name, ((names.OPERATION_DIMENSION, operation),), statistic)


def _container_insights(name: str, dimensions: Mapping[str, str], statistic: str) -> Metric:
    return Metric("ContainerInsights", name, tuple(sorted(dimensions.items())), statistic)


def _rds(name: str, statistic: str) -> Metric:
    return Metric("AWS/RDS", name, tuple(_DATABASE.items()), statistic)


def _outside(namespace: str, name: str, dimension: str, value: str) -> Metric:
    return Metric(namespace, name, ((dimension, value),), "Minimum")


def _balancer(name: str, statistic: str) -> Metric:
    return Metric("AWS/ELB", name, (), statistic, over="LoadBalancerName")


def _shipper(name: str) -> Metric:
    return Metric("Telemetry", name, tuple(_CLUSTER.items()), "Sum")


def _logs(name: str) -> Metric:
    return Metric("AWS/Logs", name, (("LogGroupName", GROUPS["metrics"]),), "Sum")


def generate() -> dict[Path, str]:
    """Returns the JSON of each dashboard by its file."""
    alarms = load(NAME)  # a placeholder, which Terraform fills in
    built = {
        "service": body(service(alarms)),
        "platform": body(platform(alarms)),
        "requests": body(requests(), "-PT1H"),
    }
    return {DASHBOARDS / f"{name}.json": text for name, text in built.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the dashboards that are out of date, or only reports them; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.cloudwatch.dashboard", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a dashboard is out of date")
    is_check = parser.parse_args(arguments).check
    stale = {path: new for path, new in generate().items() if not path.exists() or path.read_text() != new}
    for path, new in stale.items():
        if is_check:
            print(f"{path.name} is out of date: run make dashboards", file=sys.stderr)
        else:
            path.write_text(new)
            print(f"wrote {path.name}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
