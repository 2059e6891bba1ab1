"""How fast pods consume the error budget, by the metrics that they write to stdout for CloudWatch.

The cluster's API has these documents without delay and with the pod that wrote each, which CloudWatch's metrics do not
have. The objectives and the burn rate are those of the alarms (ops/cloudwatch/alarms.yaml).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ops.deploy.kubernetes import Kubernetes
from ops.deploy.rollout import NAMESPACE, SELECTOR

MAX_LATENCY_MS: Final = 100.0
FAULT_BUDGET: Final = 0.001  # the share of requests that may get a server error
SLOW_BUDGET: Final = 0.01  # the share that may take longer than MAX_LATENCY_MS
BURN_RATE: Final = 14.4  # at this multiple of a budget, the alarms page
MIN_BAD_REQUESTS: Final = 10  # fewer wake no one

_PROBES: Final = ("/healthz", "/readyz")
_MAX_CHANCE: Final = 0.001  # small, since a canary is compared many times
_MAX_PODS: Final = 50  # of which kubectl reads the logs at once


@dataclass(frozen=True)
class Requests:
    """Requests other than probes.

    Attributes:
        total: all of them.
        faults: those with a server error (5xx).
        slow: those that took longer than MAX_LATENCY_MS.
    """

    total: int = 0
    faults: int = 0
    slow: int = 0

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(self.total + other.total, self.faults + other.faults, self.slow + other.slow)

    def __str__(self) -> str:
        return (
            f"{self.total} requests, {self.faults} with a server error, {self.slow} slower than {MAX_LATENCY_MS:g} ms"
        )


def read(cluster: Kubernetes, since: datetime) -> dict[str, Requests]:
    """Returns the requests of each pod of the service since then, by the pod's name.

    A pod writes them every 20 seconds (METRICS_INTERVAL), so those of the last seconds are missing.
    """
    start = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    options = ("--prefix", "--tail=-1", f"--since-time={start}", f"--max-log-requests={_MAX_PODS}", "--ignore-errors")
    log = cluster.run("logs", "--namespace", NAMESPACE, f"--selector={SELECTOR}", *options)
    pods: dict[str, Requests] = {}
    for line in log.splitlines():
        source, _, text = line.partition("] ")  # [pod/NAME/CONTAINER]
        document = _document(text)
        if document and document["_aws"]["Timestamp"] >= since.timestamp() * 1000:
            pod = source.split("/")[1]
            pods[pod] = pods.get(pod, Requests()) + _requests(document)
    return pods


def burning(requests: Requests) -> str:
    """Says which budget is consumed so fast that it would page; empty if none is."""
    for bad, budget, kind in _measures(requests):
        if bad >= MIN_BAD_REQUESTS and bad / requests.total > BURN_RATE * budget:
            return f"{bad} of {requests.total} requests {kind}"
    return ""


def worse(canary: Requests, others: Requests) -> str:
    """Says in which way the canary's requests are worse than those of the others; empty if in none.

    The difference has to be so large that it would page, and so unlikely that chance does not explain it.
    """
    for (bad, budget, kind), (others_bad, _, _) in zip(_measures(canary), _measures(others), strict=True):
        if not canary.total:
            continue
        difference = bad / canary.total - others_bad / max(1, others.total)
        if difference > BURN_RATE * budget and chance(bad, canary.total, others_bad, others.total) < _MAX_CHANCE:
            return f"{bad} of its {canary.total} requests {kind}, but {others_bad} of {others.total} of the other pods"
    return ""


def chance(bad: int, total: int, others_bad: int, others_total: int) -> float:
    """The probability of at least so many bad ones among `total`, if all bad requests were spread by chance.

    That is Fisher's exact test, one-sided: the upper tail of a hypergeometric distribution.
    """
    all_bad, everything = bad + others_bad, total + others_total
    possible = range(bad, min(all_bad, total) + 1)
    logs = (_choose(total, k) + _choose(others_total, all_bad - k) - _choose(everything, all_bad) for k in possible)
    return math.fsum(map(math.exp, logs))


def _choose(n: int, k: int) -> float:
    """The logarithm of the binomial coefficient; -infinity where it is 0."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if 0 <= k <= n else -math.inf


def _measures(requests: Requests) -> tuple[tuple[int, float, str], ...]:
    slow = f"took longer than {MAX_LATENCY_MS:g} ms"
    return (requests.faults, FAULT_BUDGET, "got a server error"), (requests.slow, SLOW_BUDGET, slow)


def _document(line: str) -> Mapping[str, Any] | None:
    """Returns the document on requests by route, method and status; None for any other line, and for half a line."""
    if not (line.startswith("{") and '"_aws"' in line):
        return None
    try:
        document: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return None
    return document if document.get("Route", _PROBES[0]) not in _PROBES else None


def _requests(document: Mapping[str, Any]) -> Requests:
    count = int(document.get("Requests", 0))
    latencies = document.get("Latency", {"Values": [], "Counts": []})
    slow = sum(n for ms, n in zip(latencies["Values"], latencies["Counts"], strict=True) if ms > MAX_LATENCY_MS)
    return Requests(count, count if document["Status"] == "5xx" else 0, int(slow))
