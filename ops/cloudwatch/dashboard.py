"""Makes the dashboards: `python -m ops.cloudwatch.dashboard` writes them, and `--check` says which are not up to date.

Terraform fills in ${name}, ${region} and ${account}. A dashboard is CloudWatch's JSON, on a grid of 24 columns:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ops.cloudwatch.rows import Alarms, Metric, load
from ops.cloudwatch.widgets import (
    GROUPS,
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

# Colours that people who see few of them tell apart, in light and in dark.
_GOOD, _BAD, _WARN, _CALM, _OTHER = "#2a9d8f", "#d1495b", "#e09f3e", "#3d7ebf", "#8d6cab"

_DATABASE: Final = {"DBInstanceIdentifier": NAME}
_CLUSTER: Final = {"ClusterName": NAME}
_PODS: Final = {**_CLUSTER, "Namespace": "clients", "PodName": "clients-api"}
_SERVICE: Final = {**_CLUSTER, "Namespace": "clients", "Service": "clients-api"}


def service(alarms: Alarms) -> list[list[Widget]]:
    """The service's dashboard: rows of widgets, from what callers get to why."""
    return [
        [text("# The clients API\nWhat callers get comes first, then why. Each alarm has a runbook by its name.", 2)],
        [states("Alarms", [*alarms.composite, *_calling(alarms, is_ours=True)], 4)],
        [
            budget(alarms, "availability"),
            budget(alarms, "latency"),
            number("Requests a second", rate(_ours(names.REQUESTS))),
            number("Latency, p99", [line(_ours(names.LATENCY, "p99"), "p99")]),
        ],
        [
            chart("Requests a second", rate(_ours(names.REQUESTS), _CALM), unit="a second"),
            chart(
                "Faults, errors and shed, a minute",
                [
                    line(_ours(names.FAULTS), "faults (5xx)", color=_BAD),
                    line(_ours(names.SHED), "of these, shed", color=_OTHER),
                    line(_ours(names.ERRORS), "errors (4xx)", color=_WARN),
                ],
            ),
            chart(
                "Latency of all requests",
                [line(_ours(names.LATENCY, f"p{share}"), f"p{share}", color=color) for share, color in _PERCENTILES],
                unit="ms",
                limits=[(100, "objective: 99 % within")],
            ),
        ],
        [
            chart(
                "Budget spent, times as fast as allowed",
                [
                    *burn(alarms, "availability", _BAD),
                    *burn(alarms, "latency", _CALM),
                ],
                limits=[(14.4, "page in an hour"), (6, "page in 6 hours"), (1, "as allowed")],
                period=300,
            ),
            chart(
                "Latency by route, p99",
                [
                    line(_of_route(route, method, "2xx"), f"{method} {route}")
                    for route, method in (("/get/{id}", "GET"), ("/add", "POST"), ("/getall", "GET"))
                ],
                unit="ms",
            ),
            chart(
                "Where requests wait: the database, p99",
                [
                    line(_operation(name, operation, "p99"), f"{operation}: {what}")
                    for operation in ("get", "add")
                    for name, what in ((names.QUEUE_WAIT, "wait"), (names.ROUND_TRIP, "round trip"))
                ],
                unit="ms",
            ),
        ],
        [
            chart(
                "Event loop lag",
                [
                    line(_ours(names.EVENT_LOOP_LAG, "p99"), "p99", color=_WARN),
                    line(_ours(names.EVENT_LOOP_LAG, "p50"), "p50", color=_CALM),
                ],
                unit="ms",
                limits=limits(alarms, "event-loop-lag"),
            ),
            chart(
                "CPU, of one core a process",
                _most_and_average(names.PROCESS_CPU),
                unit="%",
                limits=limits(alarms, "cpu"),
            ),
            chart(
                "Memory of a process",
                [line(_ours(names.PROCESS_MEMORY, "Maximum"), "largest", color=_CALM)],
                unit="bytes",
                limits=limits(alarms, "memory"),
            ),
            chart(
                "Requests in flight, of a process",
                _most_and_average(names.IN_FLIGHT),
            ),
        ],
        [
            chart(
                "Connections of callers, of a process",
                _most_and_average(names.CONNECTIONS),
            ),
            chart(
                "Connections cut, a minute",
                [
                    line(_ours(names.CONNECTIONS_SHED), "for lack of room", color=_BAD),
                    line(_ours(names.CONNECTIONS_TIMED_OUT), "that kept us waiting", color=_WARN),
                ],
            ),
            chart(
                "Files open and log lines dropped",
                [
                    line(_ours(names.OPEN_FILES, "Maximum"), "files, of a process", color=_CALM),
                    line(_ours(names.LOG_LINES_DROPPED), "lines dropped", color=_BAD, axis="right"),
                ],
            ),
        ],
        [
            chart(
                "Share of time that the database was away",
                [line(_ours(names.DATABASE_IS_UNAVAILABLE, "Average"), "away", color=_BAD)],
                limits=limits(alarms, "database-away"),
            ),
            chart(
                "Connections in use, of a process",
                _most_and_average(names.CONNECTIONS_IN_USE),
                limits=limits(alarms, "connections"),
            ),
            chart(
                "Questions in a batch",
                [line(_operation(names.BATCH_SIZE_METRIC, each, "Average"), each) for each in ("get", "add", "page")],
            ),
        ],
        [log("The latest faults", "faults")],
        [log("Slowest requests", "slowest-requests")],
    ]


def platform(alarms: Alarms) -> list[list[Widget]]:
    """The platform's dashboard: pods, nodes, the database, and the way of the signals."""
    return [
        [
            text(
                "# What the clients API stands on\nPods, nodes, the database, and the way of logs, metrics and traces.",
                2,
            )
        ],
        [states("Alarms", _calling(alarms, is_ours=False), 4)],
        [
            chart(
                "Pods that are ready",
                [line(_insights("service_number_of_running_pods", _SERVICE, "Minimum"), "of the service", color=_CALM)],
                limits=limits(alarms, "pods-few"),
            ),
            chart(
                "Restarts of containers",
                [line(_insights("pod_number_of_container_restarts", _PODS, "Sum"), "of the service", color=_BAD)],
            ),
            chart(
                "CPU and memory of a pod",
                [
                    line(_insights("pod_cpu_utilization", _PODS, "Maximum"), "CPU, of the node", color=_CALM),
                    line(
                        _insights("pod_memory_utilization_over_pod_limit", _PODS, "Maximum"),
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
                    line(_insights("cluster_node_count", _CLUSTER, "Maximum"), "there", color=_CALM),
                    line(_insights("cluster_failed_node_count", _CLUSTER, "Maximum"), "failed", color=_BAD),
                ],
                limits=limits(alarms, "nodes-at-most"),
            ),
            chart(
                "Busiest node",
                [
                    line(_insights("node_cpu_utilization", _CLUSTER, "Maximum"), "CPU", color=_CALM),
                    line(_insights("node_memory_utilization", _CLUSTER, "Maximum"), "memory", color=_OTHER),
                    line(_insights("node_filesystem_utilization", _CLUSTER, "Maximum"), "disk", color=_WARN),
                ],
                unit="%",
            ),
        ],
        [
            chart(
                "The database's CPU",
                [line(_rds("CPUUtilization", "Average"), "CPU", color=_CALM)],
                unit="%",
                limits=limits(alarms, "database-cpu"),
            ),
            chart(
                "The database's load",
                [line(_rds("DBLoad", "Average"), "sessions at work", color=_CALM)],
                limits=limits(alarms, "database-load"),
            ),
            chart(
                "The database's connections",
                [line(_rds("DatabaseConnections", "Maximum"), "connections", color=_CALM)],
                limits=limits(alarms, "database-connections"),
            ),
            chart(
                "Transaction ids in use",
                [line(_rds("MaximumUsedTransactionIDs", "Maximum"), "ids in use", color=_CALM)],
                period=300,
            ),
        ],
        [
            chart(
                "The database's disk, latency",
                [
                    line(_rds("ReadLatency", "p90"), "read, p90", color=_CALM),
                    line(_rds("WriteLatency", "p90"), "write, p90", color=_WARN),
                ],
                unit="s",
                limits=limits(alarms, "database-write-latency"),
            ),
            chart(
                "The database's disk, free",
                [line(_rds("FreeStorageSpace", "Minimum"), "free", color=_CALM)],
                unit="bytes",
                limits=limits(alarms, "database-storage"),
            ),
            chart(
                "The database's memory, free",
                [line(_rds("FreeableMemory", "Average"), "free", color=_CALM)],
                unit="bytes",
                limits=limits(alarms, "database-memory"),
            ),
        ],
        [
            chart(
                "Records shipped",
                [
                    line(_shipping("fluentbit_output_proc_records_total"), "delivered", color=_GOOD),
                    line(_shipping("fluentbit_output_retries_total"), "retries", color=_WARN, axis="right"),
                    line(_shipping("fluentbit_output_dropped_records_total"), "dropped", color=_BAD, axis="right"),
                ],
            ),
            chart(
                "Spans shipped",
                [
                    line(_shipping("otelcol_exporter_sent_spans"), "delivered", color=_GOOD),
                    line(_shipping("otelcol_exporter_send_failed_spans"), "failed", color=_BAD, axis="right"),
                ],
            ),
            chart(
                "Documents of metrics that CloudWatch could not take",
                [
                    line(_logs("EMFParsingErrors"), "not read", color=_BAD),
                    line(_logs("EMFValidationErrors"), "refused", color=_OTHER),
                ],
            ),
        ],
    ]


_PERCENTILES: Final = (("50", _GOOD), ("90", _CALM), ("99", _WARN), ("99.9", _BAD))


def _calling(alarms: Alarms, *, is_ours: bool) -> list[str]:
    """The alarms that call someone for themselves, by whether they look at the service's own metrics."""
    rows = [row for row in alarms.metric.values() if row.severity != "part"]
    return [
        row.name
        for row in rows
        if all(metric.namespace == names.NAMESPACE for metric in row.metrics.values()) == is_ours
    ]


def _ours(name: str, statistic: str = "Sum") -> Metric:
    return Metric(names.NAMESPACE, name, (), statistic)


def _most_and_average(name: str) -> Lines:
    return [
        line(_ours(name, "Maximum"), "most", color=_WARN),
        line(_ours(name, "Average"), "average", color=_CALM),
    ]


def _of_route(route: str, method: str, status: str) -> Metric:
    values = {names.ROUTE_DIMENSION: route, names.METHOD_DIMENSION: method, names.STATUS_DIMENSION: status}
    return Metric(names.NAMESPACE, names.LATENCY, tuple(sorted(values.items())), "p99")


def _operation(name: str, operation: str, statistic: str) -> Metric:
    return Metric(names.NAMESPACE, name, ((names.OPERATION_DIMENSION, operation),), statistic)


def _insights(name: str, dimensions: Mapping[str, str], statistic: str) -> Metric:
    return Metric("ContainerInsights", name, tuple(sorted(dimensions.items())), statistic)


def _rds(name: str, statistic: str) -> Metric:
    return Metric("AWS/RDS", name, tuple(_DATABASE.items()), statistic)


def _shipping(name: str) -> Metric:
    return Metric("Telemetry", name, tuple(_CLUSTER.items()), "Sum")


def _logs(name: str) -> Metric:
    return Metric("AWS/Logs", name, (("LogGroupName", GROUPS["metrics"]),), "Sum")


def made() -> dict[Path, str]:
    """All dashboards, by where they are kept."""
    # What Terraform fills in later stays as it is.
    alarms = load(NAME)
    made_of = {"service": service, "platform": platform}
    return {DASHBOARDS / f"{name}.json": body(make(alarms)) for name, make in made_of.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes them, or checks that they are written."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.cloudwatch.dashboard", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where one is not up to date")
    is_check = parser.parse_args(arguments).check
    stale = [path for path, text in made().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if is_check:
            print(
                f"{path.name} is not what dashboard.py makes: run python -m ops.cloudwatch.dashboard", file=sys.stderr
            )
        else:
            path.write_text(made()[path])
            print(f"wrote {path.name}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
