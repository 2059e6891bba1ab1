"""The load balancer of a Service: what AWS has of it, and what listens on this machine in its place."""

from collections.abc import Callable
from dataclasses import dataclass

from ops.deploy.common import aws as client
from ops.rehearsal.aws import REGION
from ops.rehearsal.certificates import Certificate
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.tls import Address, Front, listen


@dataclass
class Balancer:
    """What the cluster's cloud controller makes for a Service of type LoadBalancer: a classic one, tagged as its own.

    Attributes:
        cluster: its name.
        certificate: that it shows.
        address: where it listens on loopback.
    """

    cluster: str
    certificate: Certificate
    address: Address
    _front: Front | None = None

    def make(self, service: Object, behind: Callable[[], Address | None]) -> str:
        """Makes the Service's, in the public subnets that are tagged for it, and gives its hostname.

        Args:
            service: that wants one.
            behind: where its next connection goes.
        """
        name, metadata = self._name(service), service["metadata"]
        ec2, elb = client("ec2", REGION), client("elb", REGION)
        tagged = [
            {"Name": f"tag:kubernetes.io/cluster/{self.cluster}", "Values": ["owned", "shared"]},
            {"Name": "tag:kubernetes.io/role/elb", "Values": ["1"]},
        ]
        subnets = ec2.describe_subnets(Filters=tagged)["Subnets"]
        owned = {"Key": f"kubernetes.io/cluster/{self.cluster}", "Value": "owned"}
        group = ec2.create_security_group(
            GroupName=f"k8s-elb-{name}",
            Description="of a load balancer",
            VpcId=subnets[0]["VpcId"],
            TagSpecifications=[{"ResourceType": "security-group", "Tags": [owned]}],
        )
        port = service["spec"]["ports"][0]
        certificate_arn = metadata["annotations"]["service.beta.kubernetes.io/aws-load-balancer-ssl-cert"]
        made = elb.create_load_balancer(
            LoadBalancerName=name,
            Listeners=[
                {
                    "Protocol": "HTTPS",
                    "LoadBalancerPort": port["port"],
                    "InstanceProtocol": "HTTP",
                    "InstancePort": 30080,  # of the nodes, which the cluster chooses
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
        self._front = listen(self.certificate, behind, self.address)
        hostname: str = made["DNSName"]
        return hostname

    def remove(self, service: Object) -> None:
        """Removes the Service's, and its security group."""
        name = self._name(service)
        self.close()
        client("elb", REGION).delete_load_balancer(LoadBalancerName=name)
        ec2 = client("ec2", REGION)
        named = [{"Name": "group-name", "Values": [f"k8s-elb-{name}"]}]
        for group in ec2.describe_security_groups(Filters=named)["SecurityGroups"]:
            ec2.delete_security_group(GroupId=group["GroupId"])

    def close(self) -> None:
        """Listens no more."""
        if self._front:
            self._front.close()
        self._front = None

    @staticmethod
    def _name(service: Object) -> str:
        return "a" + str(service["metadata"]["uid"]).replace("-", "")[:31]  # as the cloud controller names it
