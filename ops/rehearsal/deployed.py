"""What runs after the deployment's steps: the rest of the original system, row by row."""

import base64
import os
import re
import ssl
from typing import Any, Literal

import aiohttp
import asyncpg
import pytest

from ops.deploy import balancer
from ops.deploy.common import Outputs, aws
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal.steps import IMAGE

NAMESPACE = "clients"


@pytest.fixture(name="kubernetes", scope="module")
def find_kubernetes(outputs: Outputs) -> Kubernetes:
    return Kubernetes(outputs)


@pytest.fixture(name="secret", scope="module")
def find_secret(kubernetes: Kubernetes) -> dict[str, str]:
    """What the service's Secret holds."""
    found = kubernetes.get(NAMESPACE, "secret", "database")
    assert found
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def test_the_autoscaler_is_of_the_clusters_minor_version(kubernetes: Kubernetes, outputs: Outputs) -> None:
    """Row: the cluster autoscaler, which looks for this cluster's groups."""
    found = kubernetes.get("kube-system", "deployment", "cluster-autoscaler")
    assert found
    (container,) = found["spec"]["template"]["spec"]["containers"]

    assert container["image"].rpartition(":")[2].startswith(f"v{outputs.kubernetes_version}.")
    said = " ".join([*container.get("command", []), *container.get("args", [])])
    assert f"k8s.io/cluster-autoscaler/{outputs.name}" in said


def test_a_load_balancer_with_the_certificate(outputs: Outputs) -> None:
    """Row: a classic load balancer in the public subnets, HTTPS with the domain's certificate."""
    found = balancer.find(outputs)
    assert found
    elb = aws("elb", outputs.region)
    (described,) = elb.describe_load_balancers(LoadBalancerNames=[found.name])["LoadBalancerDescriptions"]
    (listener,) = [one["Listener"] for one in described["ListenerDescriptions"]]

    assert (listener["Protocol"], listener["LoadBalancerPort"]) == ("HTTPS", 443)
    assert listener["SSLCertificateId"] == outputs.certificate_arn
    assert len(described["Subnets"]) == 2


def test_the_services_credentials_were_injected(secret: dict[str, str], database: dict[str, Any]) -> None:
    """Row: injected credentials: the database's place, and a role with a password of its own."""
    assert secret["DB_HOST"] == database["Endpoint"]["Address"]
    assert secret["DB_NAME"] == database["DBName"]
    assert secret["DB_USERNAME"] == "clients_service"
    assert len(secret["DB_PASSWORD"]) > 40


def connect(secret: dict[str, str], tls: ssl.SSLContext | Literal["disable"]) -> Any:
    """A connection as the service makes it."""
    return asyncpg.connect(
        host=secret["DB_HOST"],
        port=int(secret["DB_PORT"]),
        user=secret["DB_USERNAME"],
        password=secret["DB_PASSWORD"],
        database=secret["DB_NAME"],
        ssl=tls,
    )


async def test_the_services_role_may_do_little(secret: dict[str, str]) -> None:
    """Row: least privilege: whoever has the injected credentials cannot drop, change or empty the table."""
    connection = await connect(secret, ssl.create_default_context(cafile=os.environ["REHEARSAL_AUTHORITY"]))

    await connection.execute("SELECT FROM clients")
    for statement in ("DROP TABLE clients", "DELETE FROM clients", "UPDATE clients SET money = 0"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_nobody_speaks_to_the_database_in_the_clear(secret: dict[str, str]) -> None:
    """Row: rds.force_ssl: a client without TLS is refused."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await connect(secret, "disable")


def test_the_owners_password_left_the_cluster_with_the_job(kubernetes: Kubernetes) -> None:
    """The owner's Secret is there only while the Job runs."""
    assert kubernetes.get(NAMESPACE, "secret", "database-owner") is None


async def test_the_table_and_its_first_rows() -> None:
    """Row: the table and its four test rows."""
    connection = await asyncpg.connect(os.environ["REHEARSAL_DATABASE"])
    rows = await connection.fetch("SELECT name, money::int FROM clients WHERE id <= 4 ORDER BY id")
    await connection.close()

    assert [tuple(row) for row in rows] == [
        ("Andres", 200),
        ("Camilo", 300),
        ("Laura", 400),
        ("Felipe", 400),
    ]


def test_the_name_points_to_the_balancer(outputs: Outputs) -> None:
    """Row: the CNAME flask.olimac.link."""
    found = balancer.find(outputs)
    assert found
    listed = aws("route53", outputs.region).list_resource_record_sets(HostedZoneId=outputs.zone_id)
    records = [one for one in listed["ResourceRecordSets"] if one["Name"] == "flask.olimac.link."]

    assert [(one["Type"], one["ResourceRecords"]) for one in records] == [("CNAME", [{"Value": found.hostname}])]


def test_the_image_is_docker_hubs_by_digest(kubernetes: Kubernetes) -> None:
    """Row: the image in Docker Hub, by digest, the same one for the service, the Job and the pruning."""
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


def test_the_service_runs_in_as_many_pods_as_it_should(kubernetes: Kubernetes) -> None:
    """Two pods, both available, of the deployed image."""
    deployment = kubernetes.get(NAMESPACE, "deployment", "clients-api")
    assert deployment
    assert deployment["status"]["availableReplicas"] == 2


async def test_callers_are_served_over_https_as_by_their_name(outputs: Outputs) -> None:
    """The public name's certificate is right, and the seeded clients are in the list."""
    tls = ssl.create_default_context(cafile=os.environ["REHEARSAL_AUTHORITY"])
    url = f"https://{os.environ['REHEARSAL_PUBLIC']}/getall"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=tls, server_hostname=outputs.hostname) as answer,
    ):
        assert {"id": 1, "name": "Andres", "money": "200.00"} in await answer.json()
