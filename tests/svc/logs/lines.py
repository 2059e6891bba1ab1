"""What the service writes to stdout, read back: log lines, and metrics in the Embedded Metric Format."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeAlias

import pytest

from svc.logs import names

MAX_ERROR = 0.025  # of the values of a distribution
Record: TypeAlias = dict[str, Any]

_JSON_LINE = re.compile(r"^\{.*\}$", re.MULTILINE)


def records(output: str) -> list[Record]:
    """The JSON lines in a service's output."""
    return [json.loads(line) for line in _JSON_LINE.findall(output)]


def requests(output: str) -> list[Record]:
    """The JSON lines that record requests."""
    return [record for record in records(output) if record.get("event") == names.REQUEST]


def span_id(line: Record) -> str:
    """The ID of a request's span. A line has it only where the trace began elsewhere."""
    return str(line.get(names.SPAN_ID, line[names.TRACE_ID][:16]))


def documents(output: str) -> list[Record]:
    """The JSON lines that are metrics documents. Checks each of them."""
    found = [record for record in records(output) if "_aws" in record]
    for document in found:
        check(document)
    return found


def check(document: Record) -> None:
    """Asserts that CloudWatch accepts the document, and that the catalogue has its metrics.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    assert len(json.dumps(document)) < 2**20
    assert document["_aws"].keys() == {"Timestamp", "CloudWatchMetrics"}
    assert isinstance(document["_aws"]["Timestamp"], int)
    assert document["_aws"]["Timestamp"] > 1_700_000_000_000  # milliseconds
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive.keys() == {"Namespace", "Dimensions", "Metrics"}
    assert directive["Namespace"] == names.NAMESPACE
    for dimensions in directive["Dimensions"]:
        assert len(dimensions) <= 30
        for dimension in dimensions:
            assert isinstance(document[dimension], str)
            assert 1 <= len(document[dimension]) <= 1024
    assert 1 <= len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        known = names.METRICS[metric["Name"]]
        assert metric == {"Name": known.name, "Unit": known.unit}
        assert {tuple(one) for one in directive["Dimensions"]} <= set(known.dimensions)
        check_target(document[known.name])
    assert len(fields(document)) <= 100


def check_target(target: Any) -> None:
    """Asserts that a metric's target is a number, or a distribution that agrees with itself."""
    if isinstance(target, dict):
        values, counts = target["Values"], target["Counts"]
        assert target.keys() == {"Max", "Min", "Count", "Sum", "Values", "Counts"}
        assert 1 <= len(values) == len(counts) <= 100
        assert values == sorted(set(values))
        assert target["Count"] == sum(counts)
        assert (target["Min"], target["Max"]) == pytest.approx((values[0], values[-1]), rel=MAX_ERROR)
        assert min(counts) >= 1
        total = sum(value * count for value, count in zip(values, counts, strict=True))
        assert target["Sum"] == pytest.approx(total, rel=MAX_ERROR)
        target = target["Sum"]
    assert isinstance(target, int | float)
    assert math.isfinite(target)


def fields(document: Any, name: str = "") -> list[str]:
    """The names of all fields of a document, as Logs Insights flattens it."""
    named = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for key, value in named:
        inner = fields(value, f"{name}{key}.") if isinstance(value, dict | list) else []
        found += inner or [f"{name}{key}"]
    return found


def values(document: Record, metric: str) -> list[float]:
    """A metric's values in a document; empty if the document does not have the metric."""
    match document.get(metric, []):
        case {"Values": values, "Counts": counts}:
            return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        case list(values):
            return values
        case value:
            return [value]


def total(found: Iterable[Record], metric: str) -> float:
    """The sum of a metric's values in all documents."""
    targets = [document.get(metric, 0) for document in found]
    return sum(float(target["Sum"] if isinstance(target, dict) else target) for target in targets)


def counts(found: Iterable[Record]) -> Counter[tuple[str, str, str]]:
    """The number of requests, by route, method and class of status. Documents by caller count them once more."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for document in found:
        if names.REQUESTS in document and names.ROUTE_DIMENSION in document:
            kind = (document[name] for name in (names.ROUTE_DIMENSION, names.METHOD_DIMENSION, names.STATUS_DIMENSION))
            counted[*kind] += int(sum(values(document, names.REQUESTS)))
    return counted


def series(found: Iterable[Record]) -> set[tuple[Any, ...]]:
    """The metrics that CloudWatch would keep for these documents: each name with each set of dimensions and values."""
    return {
        (metric["Name"], *((dimension, document[dimension]) for dimension in dimensions))
        for document in found
        for directive in document["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
        for dimensions in directive["Dimensions"]
    }
