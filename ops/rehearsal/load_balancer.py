"""The cloud provider's part of a Service: its load balancer in the mock AWS, and HAProxy in its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.deploy.common import aws_client
from ops.rehearsal import annotations, haproxy, nodes
from ops.rehearsal.aws import REGION
from ops.rehearsal.certificates import Certificate
from ops.rehearsal.haproxy import Balancer
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.nodes import NODE_PORT, Node
from ops.rehearsal.tls import Address

_NODES: Final = 2


class Refused(Exception):
    """The cloud controller or AWS refuses the load balancer; the message has a sentence for each reason."""


@dataclass
class LoadBalancers:
    """Creates, configures and deletes classic load balancers as the cluster's cloud controller does.

    Simplified: the listeners of a load balancer that exists do not change, and have the default TLS policy.

    Attributes:
        cluster: its name.
        certificate: for the listener.
        address: the loopback address of the listener.
        folder: for the files of HAProxy.
    """

    cluster: str
    certificate: Certificate
    address: Address
    folder: Path
    _balancer: Balancer | None = None
    _nodes: list[Node] = field(default_factory=list)
    _upstream: Callable[[], Address | None] = lambda: None

    def create(self, service: Object, upstream: Callable[[], Address | None]) -> str:
        """Creates the Service's load balancer if there is none, and configures it; returns its hostname.

        Args:
            service: of type LoadBalancer.
            upstream: returns the address of the pod for the next connection of a node.

        Raises:
            Refused: an annotation has a wrong value, which the mock AWS would accept.
        """
        if problems := list(annotations.problems(service)):
            raise Refused("; ".join(problems))
        name, elb = self._name(service), aws_client("elb", REGION)
        given = annotations.given(service)
        check, attributes = _health_check(given), _attributes(given)
        if not self._balancer:
            self.delete(service)  # what an earlier attempt left, if it failed half-way
            self._create_balancer(name, service)
            self._balancer = haproxy.start(self.folder, self.address, self.certificate, check, attributes)
            self._upstream = upstream
        while len(self._nodes) < _NODES:
            self._add_node(self._balancer)
        elb.configure_health_check(LoadBalancerName=name, HealthCheck=check)
        elb.modify_load_balancer_attributes(LoadBalancerName=name, LoadBalancerAttributes=attributes)
        (described,) = elb.describe_load_balancers(LoadBalancerNames=[name])["LoadBalancerDescriptions"]
        hostname: str = described["DNSName"]
        return hostname

    def _create_balancer(self, name: str, service: Object) -> None:
        """Creates the load balancer in the public subnets that are tagged for it, with its security group."""
        metadata, given = service["metadata"], annotations.given(service)
        ec2 = aws_client("ec2", REGION)
        public = [
            {"Name": f"tag:kubernetes.io/cluster/{self.cluster}", "Values": ["owned", "shared"]},
            {"Name": "tag:kubernetes.io/role/elb", "Values": ["1"]},
        ]
        subnets = ec2.describe_subnets(Filters=public)["Subnets"]
        owned = {"Key": f"kubernetes.io/cluster/{self.cluster}", "Value": "owned"}
        group = ec2.create_security_group(
            GroupName=f"k8s-elb-{name}",
            Description="of a load balancer",
            VpcId=subnets[0]["VpcId"],
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [owned]}],
        )
        additional = [one.split("=") for one in given.get("additional-resource-tags", "").split(",") if one]
        aws_client("elb", REGION).create_load_balancer(
            LoadBalancerName=name,
            Listeners=[_listener(port, given) for port in service["spec"]["ports"]],
            Subnets=[subnet["SubnetId"] for subnet in subnets],
            SecurityGroups=[group["GroupId"]],
            Tags=[
                *({"Key": key, "Value": value} for key, value in additional),
                owned,
                {"Key": "kubernetes.io/service-name", "Value": f"{metadata['namespace']}/{metadata['name']}"},
            ],
        )

    def delete(self, service: Object) -> None:
        """Deletes the Service's load balancer and its security group."""
        name = self._name(service)
        self.close()
        aws_client("elb", REGION).delete_load_balancer(LoadBalancerName=name)
        ec2 = aws_client("ec2", REGION)
        by_name = [{"Name": "group-name", "Values": [f"k8s-elb-{name}"]}]
        for group in ec2.describe_security_groups(Filters=by_name)["SecurityGroups"]:
            ec2.delete_security_group(GroupId=group["GroupId"])

    def replace_nodes(self) -> None:
        """Replaces the nodes one by one, as EKS does for a new version: a new one has to be in service first."""
        if self._balancer:
            for old in list(self._nodes):
                self._balancer.wait_until_in_service(self._add_node(self._balancer))
                self._balancer.deregister(old)
                self._nodes.remove(old)
                old.close()

    def _add_node(self, balancer: Balancer) -> Node:
        node = nodes.start(self._upstream)
        self._nodes.append(node)
        balancer.register(node)
        return node

    def close(self) -> None:
        """Ends HAProxy and the nodes."""
        if self._balancer:
            self._balancer.close()
        while self._nodes:
            self._nodes.pop().close()
        self._balancer = None

    @staticmethod
    def _name(service: Object) -> str:
        return "a" + str(service["metadata"]["uid"]).replace("-", "")[:31]  # as the cloud controller names it


def _listener(port: Object, given: dict[str, str]) -> dict[str, Any]:
    """Returns the listener of a port: with TLS if the annotations give it the certificate."""
    backend = given.get("backend-protocol", "tcp")
    ports = {"LoadBalancerPort": port["port"], "InstancePort": NODE_PORT}
    with_tls = given.get("ssl-ports", "*").split(",")
    if "ssl-cert" in given and {"*", port["name"], str(port["port"])} & set(with_tls):
        secure = "HTTPS" if backend in {"http", "https"} else "SSL"
        certificate = {"SSLCertificateId": given["ssl-cert"]}
        return {**ports, "Protocol": secure, "InstanceProtocol": backend.upper(), **certificate}
    plain = "HTTP" if backend == "http" else "TCP"
    return {**ports, "Protocol": plain, "InstanceProtocol": plain}


def _health_check(given: dict[str, str]) -> dict[str, Any]:
    """Returns the health check. The target has the annotations as they are, except for the default values."""
    protocol, port = given.get("healthcheck-protocol", "TCP"), given.get("healthcheck-port", annotations.TRAFFIC_PORT)
    path = given.get("healthcheck-path", "/") if protocol in {"HTTP", "HTTPS"} else ""
    return {
        "Target": f"{protocol}:{NODE_PORT if port == annotations.TRAFFIC_PORT else port}{path}",
        "Interval": int(given.get("healthcheck-interval", "10")),
        "Timeout": int(given.get("healthcheck-timeout", "5")),
        "HealthyThreshold": int(given.get("healthcheck-healthy-threshold", "2")),
        "UnhealthyThreshold": int(given.get("healthcheck-unhealthy-threshold", "6")),
    }


def _attributes(given: dict[str, str]) -> dict[str, Any]:
    log = {
        "S3BucketName": given.get("access-log-s3-bucket-name"),
        "S3BucketPrefix": given.get("access-log-s3-bucket-prefix"),
    }
    return {
        "AccessLog": {
            "Enabled": given.get("access-log-enabled") == "true",
            "EmitInterval": int(given.get("access-log-emit-interval", "60")),
            **{name: value for name, value in log.items() if value},
        },
        "CrossZoneLoadBalancing": {"Enabled": given.get("cross-zone-load-balancing-enabled") == "true"},
        "ConnectionDraining": {
            "Enabled": given.get("connection-draining-enabled") == "true",
            "Timeout": int(given.get("connection-draining-timeout", "300")),
        },
        "ConnectionSettings": {"IdleTimeout": int(given.get("connection-idle-timeout", "60"))},
    }
