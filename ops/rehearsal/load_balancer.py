"""The cloud provider's part of a Service: its load balancer in the mock AWS, and a TLS listener on this machine."""

from collections.abc import Callable
from dataclasses import dataclass

from ops.deploy.common import aws_client
from ops.rehearsal.aws import REGION
from ops.rehearsal.certificates import Certificate
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.tls import Address, TlsProxy, listen


@dataclass
class LoadBalancers:
    """Creates and deletes classic load balancers, with the tags that the cluster's cloud controller gives them.

    Attributes:
        cluster: its name.
        certificate: for the listener.
        address: the loopback address of the listener.
    """

    cluster: str
    certificate: Certificate
    address: Address
    _listener: TlsProxy | None = None

    def create(self, service: Object, upstream: Callable[[], Address | None]) -> str:
        """Creates the Service's load balancer in the public subnets that are tagged for it; returns its hostname.

        Args:
            service: of type LoadBalancer.
            upstream: returns the address for the next connection.
        """
        name, metadata = self._name(service), service["metadata"]
        ec2, elb = aws_client("ec2", REGION), aws_client("elb", REGION)
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
        port = service["spec"]["ports"][0]
        certificate_arn = metadata["annotations"]["service.beta.kubernetes.io/aws-load-balancer-ssl-cert"]
        created = elb.create_load_balancer(
            LoadBalancerName=name,
            Listeners=[
                {
                    "Protocol": "HTTPS",
                    "LoadBalancerPort": port["port"],
                    "InstanceProtocol": "HTTP",
                    "InstancePort": 30080,  # the cluster chooses this port of the nodes
                    "SSLCertificateId": certificate_arn,
                }
            ],
            Subnets=[subnet["SubnetId"] for subnet in subnets],
            SecurityGroups=[group["GroupId"]],
            Tags=[
                owned,
                {"Key": "kubernetes.io/service-name", "Value": f"{metadata['namespace']}/{metadata['name']}"},
            ],
        )
        self._listener = listen(self.certificate, upstream, self.address)
        hostname: str = created["DNSName"]
        return hostname

    def delete(self, service: Object) -> None:
        """Deletes the Service's load balancer and its security group."""
        name = self._name(service)
        self.close()
        aws_client("elb", REGION).delete_load_balancer(LoadBalancerName=name)
        ec2 = aws_client("ec2", REGION)
        by_name = [{"Name": "group-name", "Values": [f"k8s-elb-{name}"]}]
        for group in ec2.describe_security_groups(Filters=by_name)["SecurityGroups"]:
            ec2.delete_security_group(GroupId=group["GroupId"])

    def close(self) -> None:
        """Closes the listener."""
        if self._listener:
            self._listener.close()
        self._listener = None

    @staticmethod
    def _name(service: Object) -> str:
        return "a" + str(service["metadata"]["uid"]).replace("-", "")[:31]  # as the cloud controller names it
