"""A model of the collector: which configurations it accepts, and how it converts spans and counters.

The facts are from the source of aws-otel-collector v0.49.0, which is built from version 0.156.0 of the OpenTelemetry
Collector. Its components are listed in pkg/defaultcomponents/defaults.go, and a component's settings in the
`mapstructure` tags of its Config.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ops.common.process import ROOT
from tests.svc.telemetry.otlp import attributes

Config: TypeAlias = dict[str, Any]

FOLDER: Final = ROOT / "ops" / "adot"
FILES: Final = (FOLDER / "collector.yaml", FOLDER / "container-insights.yaml")

# All component types that it includes, by their current names, without the old names that it still accepts.
INCLUDED: Final = {
    "receivers": set(
        "awscontainerinsightreceiver awsecscontainermetrics awsxray file_log jaeger kafka otlp prometheus statsd "
        "zipkin".split()
    ),
    "processors": set(
        "attributes batch cumulativetodelta deltatorate filter groupbytrace k8s_attributes memory_limiter "
        "metrics_transform metricsgeneration probabilistic_sampler resource resource_detection span "
        "tail_sampling".split()
    ),
    "exporters": set(
        "awscloudwatchlogs awsemf awsxray datadog debug file kafka load_balancing logzio otlp_grpc otlp_http "
        "prometheus prometheus_remote_write signalfx".split()
    ),
    "extensions": set("awsproxy ecs_observer file_storage health_check pprof sigv4auth zpages".split()),
}


def read(file: Path) -> Config:
    """A configuration, with variables not yet expanded."""
    config: Config = yaml.safe_load(file.read_text())
    return config


def type_of(component: str) -> str:
    """The type in a component's ID, such as batch/traces."""
    return component.partition("/")[0]


# --- The settings of components


class Pattern(NamedTuple):
    """A string that matches a regular expression."""

    pattern: str


class Choice(NamedTuple):
    """One of these values."""

    values: tuple[object, ...]


# A mapping has all known keys; a list has one shape for all its elements.
Shape: TypeAlias = "type | Pattern | Choice | list[Shape] | dict[str, Shape]"

ADDRESS: Final = Pattern(r"[\d.]+:\d+")
DURATION: Final = Pattern(r"(\d+(ms|s|m|h))+")
PERCENT: Final = Choice(tuple(range(1, 101)))

_AWS: Final[dict[str, Shape]] = {
    "num_workers": int,
    "endpoint": str,
    "request_timeout_seconds": int,
    "max_retries": int,
    "no_verify_ssl": bool,
    "proxy_address": str,
    "region": str,
    "local_mode": bool,
    "resource_arn": str,
    "role_arn": str,
    "external_id": str,
}
_FIELD: Final[dict[str, Shape]] = {"tag_name": str, "key": str, "key_regex": str, "from": str}
_MATCH: Final[dict[str, Shape]] = {"key": str, "value": str, "op": str}
_LISTENS: Final[dict[str, Shape]] = {
    "endpoint": ADDRESS,
    "transport": Choice(("tcp", "unix")),
    "include_metadata": bool,
}

SHAPES: Final[dict[str, dict[str, Shape]]] = {
    "receivers": {
        "awscontainerinsightreceiver": {
            "collection_interval": DURATION,
            "container_orchestrator": Choice(("eks", "ecs")),
            "add_service_as_attribute": bool,
            "prefer_full_pod_name": bool,
            "add_full_pod_name_metric_label": bool,
        },
        "otlp": {
            "protocols": {
                "grpc": {**_LISTENS, "max_recv_msg_size_mib": int, "max_concurrent_streams": int},
                "http": {**_LISTENS, "max_request_body_size": int, "read_header_timeout": DURATION},
            }
        },
    },
    "processors": {
        "batch": {
            "timeout": DURATION,
            "send_batch_size": int,
            "send_batch_max_size": int,
            "metadata_keys": [str],
            "metadata_cardinality_limit": int,
        },
        "filter": {
            "error_mode": Choice(("ignore", "silent", "propagate")),
            "metric_conditions": [str],
            "log_conditions": [str],
            "trace_conditions": [str],
            "profile_conditions": [str],
        },
        "k8s_attributes": {
            "auth_type": Choice(("none", "serviceAccount", "kubeConfig", "tls")),
            "context": str,
            "passthrough": bool,
            "extract": {
                "metadata": [str],
                "annotations": [_FIELD],
                "labels": [_FIELD],
                "otel_annotations": bool,
                "deployment_name_from_replicaset": bool,
            },
            "filter": {
                "node": str,
                "node_from_env_var": str,
                "namespace": str,
                "fields": [_MATCH],
                "labels": [_MATCH],
            },
            "pod_association": [
                {"sources": [{"from": Choice(("connection", "resource_attribute")), "name": str}]},
            ],
            "exclude": {"pods": [{"name": str}]},
            "wait_for_metadata": bool,
            "wait_for_metadata_timeout": DURATION,
            "watch_sync_period": DURATION,
            "pod_delete_grace_period": DURATION,
        },
        "memory_limiter": {
            "check_interval": DURATION,
            "min_gc_interval_when_soft_limited": DURATION,
            "min_gc_interval_when_hard_limited": DURATION,
            "max_gc_interval_when_soft_limited": DURATION,
            "max_gc_interval_when_hard_limited": DURATION,
            "limit_mib": int,
            "spike_limit_mib": int,
            "limit_percentage": PERCENT,
            "spike_limit_percentage": PERCENT,
        },
        "resource": {
            "attributes": [
                {
                    "key": str,
                    "value": str,
                    "default_value": str,
                    "pattern": str,
                    "from_attribute": str,
                    "from_context": str,
                    "converted_type": str,
                    "action": Choice(("insert", "update", "upsert", "delete", "hash", "extract", "convert")),
                }
            ]
        },
        "resource_detection": {
            "detectors": [Choice(("ec2", "eks", "env", "k8s_api", "system"))],
            "override": bool,
            "timeout": DURATION,
            "refresh_interval": DURATION,
        },
    },
    "exporters": {
        "awsemf": {
            **_AWS,
            "log_group_name": str,
            "log_stream_name": str,
            "namespace": str,
            "retain_initial_value_of_delta_metric": bool,
            "dimension_rollup_option": Choice(
                ("NoDimensionRollup", "SingleDimensionRollupOnly", "ZeroAndSingleDimensionRollup")
            ),
            "log_retention": int,
            "tags": dict,
            "parse_json_encoded_attr_values": [str],
            "metric_declarations": [
                {
                    "dimensions": [[str]],
                    "metric_name_selectors": [Pattern(r"\^[a-z0-9_]+\$")],
                    "label_matchers": [{"label_names": [str], "separator": str, "regex": str}],
                }
            ],
            "metric_descriptors": [{"metric_name": str, "unit": Choice(("Count",)), "overwrite": bool}],
            "output_destination": Choice(("cloudwatch", "stdout")),
            "eks_fargate_container_insights_enabled": bool,
            "resource_to_telemetry_conversion": {"enabled": bool, "exclude_service_attributes": bool},
            "detailed_metrics": bool,
            "version": Choice(("0", "1")),
        },
        "awsxray": {
            **_AWS,
            "indexed_attributes": [str],
            "index_all_attributes": bool,
            "aws_log_groups": [str],
            "telemetry": dict,
        },
    },
    "extensions": {"health_check": {**_LISTENS, "path": str, "response_body": dict, "check_collector_pipeline": dict}},
}

_PIPELINE: Final[dict[str, Shape]] = {"receivers": [str], "processors": [str], "exporters": [str]}
SERVICE: Final[Shape] = {
    "extensions": [str],
    "pipelines": {"traces": _PIPELINE, "metrics": _PIPELINE, "logs": _PIPELINE},
    "telemetry": {
        "logs": {
            "level": Choice(("debug", "info", "warn", "error")),
            "encoding": Choice(("console", "json")),
            "disable_stacktrace": bool,
        },
        "metrics": {
            "level": Choice(("none", "basic", "normal", "detailed")),
            "readers": [
                {
                    "periodic": {
                        "interval": int,
                        "timeout": int,
                        "exporter": {
                            "otlp": {
                                "protocol": Choice(("grpc", "http/protobuf")),
                                "endpoint": Pattern(r"http://127\.0\.0\.1:\d+"),
                                "temporality_preference": Choice(("cumulative", "delta", "lowmemory")),
                                "timeout": int,
                            }
                        },
                    }
                }
            ],
        },
    },
}


def errors(config: Config) -> list[str]:
    """The errors of a configuration: component types that are not included, unknown keys, and invalid values."""
    found = [f"{kind}: unknown" for kind in config.keys() - SHAPES.keys() - {"service"}]
    for kind, included in INCLUDED.items():
        for component, settings in config.get(kind, {}).items():
            name = type_of(component)
            shape = SHAPES[kind].get(name, {})
            found += (
                _errors(settings or {}, shape, f"{kind}.{component}") if name in included else [f"{kind}.{component}"]
            )
    return [*found, *_errors(config["service"], SERVICE, "service")]


def _errors(value: object, shape: Shape, where: str) -> Iterator[str]:
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, inner in value.items():
            yield from _errors(inner, shape[key], f"{where}.{key}") if key in shape else [f"{where}.{key}"]
    elif isinstance(shape, list) and isinstance(value, list):
        for inner in value:
            yield from _errors(inner, shape[0], where)
    elif not _is(value, shape):
        yield f"{where}: {json.dumps(value)}"


def _is(value: object, shape: Shape) -> bool:
    match shape:
        case Pattern():
            return isinstance(value, str) and re.fullmatch(shape.pattern, value) is not None
        case Choice():
            return value in shape.values
        case type():
            return type(value) is shape
        case _:
            return False


# --- Metrics

Declared: TypeAlias = tuple[str, str, frozenset[str]]


def declared_metrics(file: Path) -> set[Declared]:
    """The metrics that a configuration sends to CloudWatch: namespace, name, and names of the dimensions."""
    exporter = read(file)["exporters"]["awsemf"]
    return {
        (exporter["namespace"], selector.strip("^$"), frozenset(dimensions))
        for declaration in exporter["metric_declarations"]
        for selector in declaration["metric_name_selectors"]
        for dimensions in declaration["dimensions"]
    }


class Total(NamedTuple):
    """The value of a sender's counter since its start.

    Attributes:
        sender: the sender's address.
        metric: the counter's name.
        output: the output that it counts for.
        total: the value.
    """

    sender: str
    metric: str
    output: str
    total: float


class Point(NamedTuple):
    """A value as CloudWatch receives it."""

    namespace: str
    metric: str
    unit: str
    dimensions: frozenset[tuple[str, str]]
    value: float


def passes(config: Config, metric: str, output: str = "") -> bool:
    """Whether the filter passes a metric with this name, or its data point of one output: no condition holds."""
    of_names, of_points = config["processors"]["filter"]["metric_conditions"]
    patterns = re.findall(r'not IsMatch\(metric\.name, "(.+?)"\)', of_names)
    (excluded,) = re.findall(r'metric\.name == "(\w+)" and datapoint\.attributes\["name"\] == "(\w+)"', of_points)
    return any(re.search(pattern, metric) for pattern in patterns) and (metric, output) != excluded


def counts(config: Config, cluster: str, totals: Iterable[Total]) -> Iterator[Point]:
    """The points that filter, resource and awsemf compute from totals: the growth since the last one (datapoint.go)."""
    exporter = config["exporters"]["awsemf"]
    units = {one["metric_name"]: one["unit"] for one in exporter["metric_descriptors"]}
    last: dict[tuple[str, str, str], float] = {}
    for sender, metric, output, total in totals:
        before = last.get((sender, metric, output))
        last[sender, metric, output] = total
        if before is not None and passes(config, metric, output):
            dimensions = frozenset({("ClusterName", cluster)})
            yield Point(exporter["namespace"], metric, units[metric], dimensions, total - before)


def points(event: Mapping[str, Any]) -> Iterator[Point]:
    """The points that CloudWatch reads from an event in the Embedded Metric Format."""
    for directive in event["_aws"]["CloudWatchMetrics"]:
        for metric in directive["Metrics"]:
            for names in directive["Dimensions"]:
                dimensions = frozenset((name, event[name]) for name in names)
                yield Point(directive["Namespace"], metric["Name"], metric["Unit"], dimensions, event[metric["Name"]])


# --- Spans

_SQL: Final = {"db2", "derby", "hive", "mariadb", "mssql", "mysql", "oracle", "postgresql", "sqlite", "teradata"}
_HTTP: Final = {
    "http.request.method": ("request", "method"),
    "user_agent.original": ("request", "user_agent"),
    "client.address": ("request", "client_ip"),
    "http.response.status_code": ("response", "status"),
}


def segment(span: Span, resource: Mapping[str, Any], exporter: Config) -> dict[str, Any]:
    """The segment that awsxray makes from a span, as far as this project relies on it (translator/*.go)."""
    span_attributes = attributes(span.attributes)
    is_subsegment = span.kind != Span.SPAN_KIND_SERVER and bool(span.parent_span_id)
    document: dict[str, Any] = {
        "trace_id": xray_id(span.trace_id.hex()),
        "id": span.span_id.hex(),
        "name": _name(span, span_attributes, resource),
        "start_time": span.start_time_unix_nano / 1e9,
        "end_time": span.end_time_unix_nano / 1e9,
        **_outcome(span, span_attributes),
        "aws": {
            "cloudwatch_logs": [{"log_group": group} for group in exporter["aws_log_groups"]],
            "eks": {"cluster_name": resource["k8s.cluster.name"], "pod": resource["k8s.pod.name"]},
        },
    }
    if span.parent_span_id:
        document["parent_id"] = span.parent_span_id.hex()
    if is_subsegment:
        document["type"] = "subsegment"
    if span.kind == Span.SPAN_KIND_CLIENT:
        document["namespace"] = "remote"
    if http := _http(span_attributes):
        document["http"] = http
    if span_attributes.get("db.system") in _SQL:
        server = span_attributes.get("db.connection_string", "localhost")
        document["sql"] = {
            "url": span.name,
            "connection_string": f"{server}/{span_attributes['db.name']}",
            "database_type": span_attributes["db.system"],
            "sanitized_query": span_attributes["db.statement"],
        }
    # The resource's attributes are only on a segment, not on a subsegment.
    of_resource = {} if is_subsegment else {f"otel.resource.{name}": value for name, value in resource.items()}
    indexed = span_attributes | of_resource
    if annotations := {name: indexed[name] for name in exporter["indexed_attributes"] if name in indexed}:
        document["annotations"] = annotations
    return document


def xray_id(trace_id: str) -> str:
    """X-Ray's form of a trace's 32 hexadecimal digits."""
    return f"1-{trace_id[:8]}-{trace_id[8:]}"


def _name(span: Span, span_attributes: Mapping[str, Any], resource: Mapping[str, Any]) -> str:
    service = resource["service.name"] if span.kind == Span.SPAN_KIND_SERVER else None
    database = span_attributes.get("db.name")
    if database and (host := urlsplit(span_attributes.get("db.connection_string", "")).hostname):
        database = f"{database}@{host}"
    return str(span_attributes.get("peer.service") or database or service or span.name)


def _outcome(span: Span, span_attributes: Mapping[str, Any]) -> dict[str, bool]:
    """From the response's status; from the span's own only if the response's is not an error (cause.go)."""
    status = span_attributes.get("http.response.status_code", 0)
    if 400 <= status <= 599:
        return {"fault": status >= 500, "error": status < 500, "throttle": status == 429}
    return {"fault": span.status.code == Status.STATUS_CODE_ERROR, "error": False, "throttle": False}


def _http(span_attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    http: dict[str, dict[str, Any]] = {}
    for name, (part, field) in _HTTP.items():
        if name in span_attributes:
            http.setdefault(part, {})[field] = span_attributes[name]
    if host := span_attributes.get("server.address") if http else None:
        scheme, port = span_attributes["url.scheme"], span_attributes.get("server.port")
        shown = f":{port}" if port and port != {"http": 80, "https": 443}[scheme] else ""
        http["request"]["url"] = f"{scheme}://{host}{shown}{span_attributes.get('url.path', '/')}"
    return http
