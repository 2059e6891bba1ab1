"""The table of a Service's annotations: each has a rule, and the rule's limits are those of ELB's API."""

from typing import Any

import botocore.loaders
import pytest

from ops.rehearsal import annotations

# A valid value and wrong ones, for each annotation that the cloud controller reads.
EXAMPLES = {
    "load-balancer-source-ranges": ("10.0.0.0/8,192.0.2.0/24", ["10.0.0.0/33", "10.0.0.1/8", "everyone", ""]),
    "aws-load-balancer-access-log-emit-interval": ("5", ["10", "0", "5m"]),
    "aws-load-balancer-access-log-enabled": ("false", ["yes", "True", ""]),
    "aws-load-balancer-access-log-s3-bucket-name": ("a-bucket", ["A-Bucket", "s3://a-bucket", "a"]),
    "aws-load-balancer-access-log-s3-bucket-prefix": ("balancer/api", ["/balancer", "balancer/", "AWSLogs"]),
    "aws-load-balancer-additional-resource-tags": ("Project=olimac,Team=", ["Project", "aws:Project=olimac", "a=b,"]),
    "aws-load-balancer-backend-protocol": ("http", ["HTTP", "http2", ""]),
    "aws-load-balancer-connection-draining-enabled": ("true", ["on", "TRUE"]),
    "aws-load-balancer-connection-draining-timeout": ("30", ["0", "3601", "30s"]),
    "aws-load-balancer-connection-idle-timeout": ("60", ["0", "3601", "4000", "60.0"]),
    "aws-load-balancer-cross-zone-load-balancing-enabled": ("true", ["1"]),
    "aws-load-balancer-eip-allocations": (None, ["eipalloc-0123456789abcdef0"]),
    "aws-load-balancer-extra-security-groups": ("sg-0a1b", ["default", "sg-0a1b, sg-2c3d"]),
    "aws-load-balancer-healthcheck-healthy-threshold": ("2", ["1", "11", "two"]),
    "aws-load-balancer-healthcheck-interval": ("10", ["4", "301", "10s"]),
    "aws-load-balancer-healthcheck-path": ("/healthz", ["healthz", "", "/a b"]),
    "aws-load-balancer-healthcheck-port": ("traffic-port", ["http", "0", "65536"]),
    "aws-load-balancer-healthcheck-protocol": ("HTTP", ["http", "tcp", "Http", "UDP", ""]),
    "aws-load-balancer-healthcheck-timeout": ("5", ["1", "61", "5s"]),
    "aws-load-balancer-healthcheck-unhealthy-threshold": ("2", ["1", "11"]),
    "aws-load-balancer-internal": ("false", ["0.0.0.0/0", "no"]),
    "aws-load-balancer-private-ipv4-addresses": (None, ["10.0.0.1"]),
    "aws-load-balancer-proxy-protocol": ("*", ["true", "443"]),
    "aws-load-balancer-security-groups": ("sg-0a1b,sg-2c3d", ["sg-0A1B", ""]),
    "aws-load-balancer-ssl-cert": (
        "arn:aws:acm:us-east-1:123456789012:certificate/a",
        ["a", "arn:aws:acm:us-east-1:123456789012:certificate/", "arn:aws:s3:::a-bucket", ""],
    ),
    "aws-load-balancer-ssl-negotiation-policy": (
        "ELBSecurityPolicy-TLS-1-2-2017-01",
        ["ELBSecurityPolicy-TLS13-1-2-2021-06", "elbsecuritypolicy-2016-08"],
    ),
    "aws-load-balancer-ssl-ports": ("https,443", ["HTTPS", "http", "https, 443", "*,https"]),
    "aws-load-balancer-subnets": ("subnet-0a1b,public-1", ["subnet-0a1b, subnet-2c3d"]),
    "aws-load-balancer-target-group-attributes": (None, ["preserve_client_ip.enabled=false"]),
    "aws-load-balancer-target-node-labels": ("pool=public", ["public pool"]),
    "aws-load-balancer-type": (None, ["nlb", "external", "classic"]),
}


def service(**given: str) -> dict[str, Any]:
    """A Service with annotations, by their names after the domain."""
    annotated = {f"service.beta.kubernetes.io/{name}": value for name, value in given.items()}
    return {"metadata": {"annotations": annotated}, "spec": {"ports": [{"name": "https", "port": 443}]}}


def problems(**given: str) -> list[str]:
    return list(annotations.problems(service(**given)))


def test_every_annotation_has_an_example() -> None:
    """So that none of the rules is untested."""
    assert {f"service.beta.kubernetes.io/{name}" for name in EXAMPLES} == annotations._RULES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_valid_value_is_accepted_and_wrong_ones_are_refused(name: str) -> None:
    """Each refusal names the annotation."""
    valid, wrong = EXAMPLES[name]

    if valid is not None:
        assert problems(**{name: valid}) == []
    for value in wrong:
        assert any(name in problem for problem in problems(**{name: value})), value


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        ("healthcheck-interval", "HealthCheckInterval"),
        ("healthcheck-timeout", "HealthCheckTimeout"),
        ("healthcheck-healthy-threshold", "HealthyThreshold"),
        ("healthcheck-unhealthy-threshold", "UnhealthyThreshold"),
        ("connection-idle-timeout", "IdleTimeout"),
    ],
)
def test_the_limits_are_those_of_elbs_api(annotation: str, shape: str) -> None:
    """The API's own description, which the SDK ships, has the same limits."""
    limits = botocore.loaders.Loader().load_service_model("elb", "service-2")["shapes"][shape]
    rule = annotations._RULES[annotations.PREFIX + annotation]
    accepted = [number for number in range(5000) if rule.accepts(str(number))]

    assert (accepted[0], accepted[-1]) == (limits["min"], limits["max"])


def test_an_unknown_annotation_is_refused() -> None:
    """The controller would ignore it, so that the default value would be in force."""
    (problem,) = problems(**{"aws-load-balancer-health-check-port": "10256"})

    assert problem.endswith("health-check-port is unknown to the cloud controller, which ignores it")


def test_annotations_of_others_are_ignored() -> None:
    """Other tools have annotations, too."""
    other = {"metadata": {"annotations": {"checkov.io/skip1": "a reason"}}, "spec": {"ports": []}}

    assert list(annotations.problems(other)) == []


def test_the_timeout_is_less_than_the_interval() -> None:
    """Also where one of them has its default value."""
    interval, timeout = (f"aws-load-balancer-healthcheck-{name}" for name in ("interval", "timeout"))

    assert problems(**{interval: "6"}) == []
    for given in ({interval: "5"}, {timeout: "10"}, {interval: "30", timeout: "30"}):
        (problem,) = problems(**given)
        assert "must be less than the interval" in problem


def test_access_logs_need_a_bucket() -> None:
    """The API requires its name with them."""
    enabled = "aws-load-balancer-access-log-enabled"

    assert problems(**{enabled: "true", "aws-load-balancer-access-log-s3-bucket-name": "a-bucket"}) == []
    assert len(problems(**{enabled: "true"})) == 1
