"""Checks after the deployment steps: the rest of the original system, requirement by requirement."""

import base64
import os
import re
import ssl
from typing import Any, Literal

import aiohttp
import asyncpg
import pytest

from ops.deploy import load_balancer
from ops.deploy.common import Outputs, aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal.steps import IMAGE

NAMESPACE = "clients"


@pytest.fixture(name="kubernetes", scope="module")
def find_kubernetes(outputs: Outputs) -> Kubernetes:
    return Kubernetes(outputs)


@pytest.fixture(name="secret", scope="module")
def find_secret(kubernetes: Kubernetes) -> dict[str, str]:
    """The content of the service's Secret."""
    found = kubernetes.get(NAMESPACE, "secret", "database")
    assert found
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def test_the_autoscaler_has_the_clusters_minor_version(kubernetes: Kubernetes, outputs: Outputs) -> None:
    """Requirement: the cluster autoscaler, which manages the groups of this cluster."""
    found = kubernetes.get("kube-system", "deployment", "cluster-autoscaler")
    assert found
    (container,) = found["spec"]["template"]["spec"]["containers"]

    assert container["image"].rpartition(":")[2].startswith(f"v{outputs.kubernetes_version}.")
    command = " ".join([*container.get("command", []), *container.get("args", [])])
    assert f"k8s.io/cluster-autoscaler/{outputs.name}" in command


def test_the_load_balancer_has_the_certificate(outputs: Outputs) -> None:
    """Requirement: a classic load balancer in the public subnets, with HTTPS and the domain's certificate."""
    found = load_balancer.find(outputs)
    assert found
    elb = aws_client("elb", outputs.region)
    (described,) = elb.describe_load_balancers(LoadBalancerNames=[found.name])["LoadBalancerDescriptions"]
    (listener,) = [one["Listener"] for one in described["ListenerDescriptions"]]

    assert (listener["Protocol"], listener["LoadBalancerPort"]) == ("HTTPS", 443)
    assert listener["SSLCertificateId"] == outputs.certificate_arn
    assert len(described["Subnets"]) == 2


def test_the_load_balancer_checks_the_nodes(outputs: Outputs) -> None:
    """The check asks the kube-proxy of each node, by a target that the load balancer accepts."""
    found = load_balancer.find(outputs)
    assert found
    elb = aws_client("elb", outputs.region)
    (described,) = elb.describe_load_balancers(LoadBalancerNames=[found.name])["LoadBalancerDescriptions"]

    assert described["HealthCheck"]["Target"] == "HTTP:10256/healthz"


def test_the_load_balancer_writes_access_logs(outputs: Outputs) -> None:
    """They go to the bucket that Terraform created for them."""
    found = load_balancer.find(outputs)
    assert found
    described = aws_client("elb", outputs.region).describe_load_balancer_attributes(LoadBalancerName=found.name)
    access_log = described["LoadBalancerAttributes"]["AccessLog"]

    assert (access_log["Enabled"], access_log["S3BucketName"]) == (True, outputs.balancer_logs)


def test_the_services_credentials_were_injected(secret: dict[str, str], database: dict[str, Any]) -> None:
    """Requirement: injected credentials: the database's address, and a role with its own password."""
    assert secret["DB_HOST"] == database["Endpoint"]["Address"]
    assert secret["DB_NAME"] == database["DBName"]
    assert secret["DB_USERNAME"] == "clients_service"
    assert len(secret["DB_PASSWORD"]) > 40


def connect(secret: dict[str, str], tls: ssl.SSLContext | Literal["disable"]) -> Any:
    """Opens a connection as the service does."""
    return asyncpg.connect(
        host=secret["DB_HOST"],
        port=int(secret["DB_PORT"]),
        user=secret["DB_USERNAME"],
        password=secret["DB_PASSWORD"],
        database=secret["DB_NAME"],
        ssl=tls,
    )


async def test_the_services_role_may_only_add_and_read(secret: dict[str, str]) -> None:
    """Requirement: least privilege: the injected credentials cannot drop, change or empty the table."""
    connection = await connect(secret, ssl.create_default_context(cafile=os.environ["REHEARSAL_AUTHORITY"]))

    await connection.execute("SELECT FROM clients")
    for statement in ("DROP TABLE clients", "DELETE FROM clients", "UPDATE clients SET money = 0"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_the_database_refuses_a_connection_without_tls(secret: dict[str, str]) -> None:
    """Requirement: rds.force_ssl refuses a client without TLS."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await connect(secret, "disable")


def test_the_owners_password_is_removed_after_the_job(kubernetes: Kubernetes) -> None:
    """The owner's Secret exists only while the Job runs."""
    assert kubernetes.get(NAMESPACE, "secret", "database-owner") is None


async def test_the_table_has_its_first_rows() -> None:
    """Requirement: the table and its four test rows."""
    connection = await asyncpg.connect(os.environ["REHEARSAL_DATABASE"])
    rows = await connection.fetch("SELECT name, money::int FROM clients WHERE id <= 4 ORDER BY id")
    await connection.close()

    assert [tuple(row) for row in rows] == [
        ("Andres", 200),
        ("Camilo", 300),
        ("Laura", 400),
        ("Felipe", 400),
    ]


def test_the_name_points_to_the_load_balancer(outputs: Outputs) -> None:
    """Requirement: the CNAME record flask.olimac.link."""
    found = load_balancer.find(outputs)
    assert found
    listed = aws_client("route53", outputs.region).list_resource_record_sets(HostedZoneId=outputs.zone_id)
    records = [one for one in listed["ResourceRecordSets"] if one["Name"] == "flask.olimac.link."]

    assert [(one["Type"], one["ResourceRecords"]) for one in records] == [("CNAME", [{"Value": found.hostname}])]


def test_the_image_is_named_by_its_digest_at_docker_hub(kubernetes: Kubernetes) -> None:
    """Requirement: the service, the Job and the pruning use the same image of Docker Hub, by digest."""
    deployment = kubernetes.get(NAMESPACE, "deployment", "clients-api")
    job = kubernetes.get(NAMESPACE, "job", "migrate")
    prune = kubernetes.get(NAMESPACE, "cronjob", "prune")
    assert deployment
    assert job
    assert prune
    pods = [one["spec"]["template"]["spec"] for one in (deployment, job, prune["spec"]["jobTemplate"])]
    images = {one["image"] for pod in pods for one in [*pod.get("initContainers", []), *pod["containers"]]}

    assert images == {IMAGE}
    assert re.fullmatch(r"docker\.io/.+@sha256:[0-9a-f]{64}", IMAGE)


def test_the_service_runs_in_two_pods(kubernetes: Kubernetes) -> None:
    """Both pods are available."""
    deployment = kubernetes.get(NAMESPACE, "deployment", "clients-api")
    assert deployment
    assert deployment["status"]["availableReplicas"] == 2


async def test_the_public_name_serves_requests_over_https(outputs: Outputs) -> None:
    """The certificate is for the public name, and the response has the seeded clients."""
    tls = ssl.create_default_context(cafile=os.environ["REHEARSAL_AUTHORITY"])
    url = f"https://{os.environ['REHEARSAL_PUBLIC']}/getall"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=tls, server_hostname=outputs.hostname) as response,
    ):
        assert {"id": 1, "name": "Andres", "money": "200.00"} in await response.json()
