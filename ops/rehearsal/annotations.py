"""The annotations of a Service that the cloud controller of EKS reads, and the values that a classic balancer accepts.

The API server accepts any value. The controller passes most of them on as they are, so that a wrong value shows only
when the load balancer refuses it, or does not work.

Sources: pkg/providers/v1/aws.go and aws_loadbalancer.go of https://github.com/kubernetes/cloud-provider-aws, and the
API reference of Elastic Load Balancing, version 2012-06-01.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final

_DOMAIN: Final = "service.beta.kubernetes.io/"
PREFIX: Final = f"{_DOMAIN}aws-load-balancer-"

TRAFFIC_PORT: Final = "traffic-port"  # the port of the nodes for the Service's first port

# Predefined; https://docs.aws.amazon.com/elasticloadbalancing/latest/classic/elb-security-policy-table.html
_POLICIES: Final = (
    "ELBSecurityPolicy-TLS-1-2-2017-01",
    "ELBSecurityPolicy-TLS-1-1-2017-01",
    "ELBSecurityPolicy-2016-08",
    "ELBSecurityPolicy-2015-05",
    "ELBSecurityPolicy-2015-03",
    "ELBSecurityPolicy-2015-02",
)


@dataclass(frozen=True)
class _Rule:
    """The values that an annotation may have.

    Attributes:
        accepts: whether a value is valid.
        valid: describes the valid values.
    """

    accepts: Callable[[str], bool]
    valid: str


def _one_of(*values: str) -> _Rule:
    return _Rule(values.__contains__, " or ".join(values))


def _number(low: int, high: int) -> _Rule:
    digits = re.compile("[1-9][0-9]*")
    return _Rule(
        lambda value: digits.fullmatch(value) is not None and low <= int(value) <= high,
        f"a number from {low} to {high}",
    )


def _matching(pattern: str, valid: str) -> _Rule:
    return _Rule(lambda value: re.fullmatch(pattern, value) is not None, valid)


def _list_of(item: str, valid: str) -> _Rule:
    return _matching(rf"(?:{item})(?:,(?:{item}))*", f"a list of {valid}, with a comma and no space between them")


def _are_ranges(value: str) -> bool:
    try:
        return bool([ip_network(one) for one in value.split(",")])
    except ValueError:
        return False


_BOOLEAN: Final = _one_of("true", "false")
_TAG: Final = r"(?!aws:)[\w .:/+@-]{1,128}=[\w .:/+@-]{0,256}"
_LABEL: Final = r"[\w./-]+=[\w.-]*"
_NO_CLASSIC: Final = _Rule(lambda _: False, "absent, since it is for network load balancers")

# By their names after PREFIX.
_BALANCER_RULES: Final = {
    "access-log-emit-interval": _one_of("5", "60"),
    "access-log-enabled": _BOOLEAN,
    "access-log-s3-bucket-name": _matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket"),
    "access-log-s3-bucket-prefix": _matching(r"(?!.*AWSLogs)[^/].*[^/]|[^/]", "a path without / at its ends"),
    "additional-resource-tags": _list_of(_TAG, "key=value"),
    "backend-protocol": _one_of("http", "https", "ssl", "tcp"),
    "connection-draining-enabled": _BOOLEAN,
    "connection-draining-timeout": _number(1, 3600),
    "connection-idle-timeout": _number(1, 3600),
    "cross-zone-load-balancing-enabled": _BOOLEAN,
    "eip-allocations": _NO_CLASSIC,
    "extra-security-groups": _list_of("sg-[0-9a-f]+", "IDs of security groups"),
    "healthcheck-healthy-threshold": _number(2, 10),
    "healthcheck-interval": _number(5, 300),
    "healthcheck-path": _matching(r"/\S{0,1000}", "a path that starts with /"),
    "healthcheck-port": _Rule(
        lambda value: value == TRAFFIC_PORT or _number(1, 65535).accepts(value),
        f"{TRAFFIC_PORT} or a number from 1 to 65535",
    ),
    # Capitals for the load balancer, to which the controller passes it on; backend-protocol is for the controller.
    "healthcheck-protocol": _one_of("HTTP", "HTTPS", "SSL", "TCP"),
    "healthcheck-timeout": _number(2, 60),
    "healthcheck-unhealthy-threshold": _number(2, 10),
    "internal": _BOOLEAN,
    "private-ipv4-addresses": _NO_CLASSIC,
    "proxy-protocol": _one_of("*"),
    "security-groups": _list_of("sg-[0-9a-f]+", "IDs of security groups"),
    "ssl-cert": _matching(
        r"arn:aws[\w-]*:(acm:[\w-]+:\d{12}:certificate|iam::\d{12}:server-certificate)/\S+",
        "the ARN of a certificate in ACM or IAM",
    ),
    "ssl-negotiation-policy": _one_of(*_POLICIES),
    "ssl-ports": _matching(r"\*|[a-z0-9-]+(,[a-z0-9-]+)*", "* or a list of names or numbers of ports"),
    "subnets": _list_of(r"[^,\s]+", "IDs or names of subnets"),
    "target-group-attributes": _NO_CLASSIC,
    "target-node-labels": _list_of(_LABEL, "name=value"),
    "type": _Rule(lambda _: False, "absent, since it selects another kind of load balancer"),
}

# All that the controller reads; it ignores any other.
_RULES: Final = {
    f"{_DOMAIN}load-balancer-source-ranges": _Rule(_are_ranges, "a list of networks, with a comma between them"),
    **{f"{PREFIX}{name}": rule for name, rule in _BALANCER_RULES.items()},
}


def given(service: dict[str, Any]) -> dict[str, str]:
    """Returns the annotations that configure the load balancer, by their names after `PREFIX`."""
    annotations: dict[str, str] = service["metadata"].get("annotations", {})
    return {name.removeprefix(PREFIX): value for name, value in annotations.items() if name.startswith(PREFIX)}


def problems(service: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each annotation that the controller ignores, or that it or the load balancer refuses."""
    for full_name, value in service["metadata"].get("annotations", {}).items():
        if full_name.startswith(_DOMAIN):
            rule = _RULES.get(full_name)
            if rule is None:
                yield f"{full_name} is unknown to the cloud controller, which ignores it"
            elif not rule.accepts(value):
                yield f"{full_name} is {value!r}; it must be {rule.valid}"
    values = given(service)
    timeout, interval = values.get("healthcheck-timeout", "5"), values.get("healthcheck-interval", "10")
    if timeout.isdecimal() and interval.isdecimal() and int(timeout) >= int(interval):
        yield f"{PREFIX}healthcheck-timeout is {timeout}; it must be less than the interval, which is {interval}"
    if values.get("access-log-enabled") == "true" and "access-log-s3-bucket-name" not in values:
        yield f"{PREFIX}access-log-enabled needs {PREFIX}access-log-s3-bucket-name"
    ports = {str(port[key]) for port in service["spec"]["ports"] for key in ("name", "port") if key in port}
    for port in values.get("ssl-ports", "*").split(","):
        if port != "*" and port not in ports:
            yield f"{PREFIX}ssl-ports has {port}, which is no port of the Service; its port would have no TLS"
