"""The environment of a rehearsal: PostgreSQL, a fake cluster, a mock AWS and a load balancer, all on loopback."""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ops.common.ports import free_host, free_port
from ops.deploy.common import aws_client
from ops.rehearsal import aws, kubernetes
from ops.rehearsal.aws import REGION
from ops.rehearsal.certificates import Certificate, create_ca, create_certificate
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.load_balancer import LoadBalancers
from ops.rehearsal.restore import RestoredDatabases
from ops.rehearsal.tls import Address, listen
from svc.postgres.embedded import EmbeddedPostgres

NAME: Final = "olimac"
DOMAIN: Final = "olimac.link"

DATABASE: Final = "clients"  # DATABASE and _OWNER are those of terraform/database.tf
_OWNER: Final = "postgres"
POSTGRES_PORT: Final = 5432  # Terraform sets it, so it cannot be another one

# As with RDS, a client needs a password over TCP; only the rehearsal itself uses the socket.
_PG_HBA: Final = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Environment:
    """The running environment.

    Attributes:
        ca: the certificate of the CA that signed all certificates, PEM.
        variables: environment variables with which Terraform and the steps use this environment instead of AWS.
        public_address: where the service's load balancer listens once it exists.
        database_dsn: a DSN with which the owner connects without TLS and password.
        images: what the images of the steps are called here, where that is not their name.
    """

    ca: Path
    variables: dict[str, str]
    public_address: Address
    database_dsn: str
    images: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def running(folder: Path, version: str, images: Mapping[str, Path]) -> Iterator[Environment]:
    """Starts the environment, and stops it at the end.

    Args:
        folder: for its files; must not exist.
        version: of Kubernetes.
        images: the folder with the source of each image that the cluster runs, as processes.
    """
    folder.mkdir(parents=True)
    ca = create_ca(folder)
    database_address = free_host(POSTGRES_PORT), POSTGRES_PORT
    loopback_certificate = create_certificate(ca, "loopback", ["localhost", "127.0.0.1", database_address[0]])
    public_certificate = create_certificate(ca, "public", [DOMAIN, f"*.{DOMAIN}"])
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        server, port = stack.enter_context(postgres(folder, password))
        tls_proxy = listen(loopback_certificate, lambda: ("127.0.0.1", port), database_address, starttls=True)
        stack.callback(tls_proxy.close)
        balancers = LoadBalancers(NAME, public_certificate, ("127.0.0.1", free_port()), folder / "haproxy")
        stack.callback(balancers.close)
        controllers = Controllers(images, folder / "pods", balancers)
        cluster = stack.enter_context(
            kubernetes.running(version, loopback_certificate, is_eks_token, controllers.running)
        )
        database = tls_proxy.address
        hooks = aws.ClusterHooks(cluster.upgrade, balancers.replace_nodes, cluster.clear)
        endpoints = aws.Endpoints(cluster.url, ca.certificate, database, password, hooks)
        variables = stack.enter_context(aws.running(endpoints))
        restored = RestoredDatabases(folder / "restored", ca, server, database, password)
        stack.enter_context(restored.running())
        create_zone_and_certificate(public_certificate)
        yield Environment(ca.certificate, variables, balancers.address, server.dsn(database=DATABASE))


def is_eks_token(token: str) -> bool:
    """Whether the token has the form of an EKS token; only AWS could verify the signature."""
    with contextlib.suppress(ValueError):
        kind, _, encoded = token.partition(".")
        url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        expected = {"Action": ["GetCallerIdentity"], "X-Amz-SignedHeaders": ["host;x-k8s-aws-id"]}
        return kind == "k8s-aws-v1" and expected.items() <= parse_qs(urlsplit(url).query).items()
    return False


@contextlib.contextmanager
def postgres(folder: Path, password: str) -> Iterator[tuple[EmbeddedPostgres, int]]:
    """Runs a PostgreSQL as RDS creates it: one database, and an owner with this password; gives the port too."""
    port = free_port()
    server = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    try:
        rules = server.data / "pg_hba.conf"
        rules.write_text(_PG_HBA)  # writing keeps the owner of the file
        asyncio.run(_set_up(server, password))
        yield server, port
    finally:
        server.stop()


async def _set_up(server: EmbeddedPostgres, password: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"ALTER ROLE {_OWNER} PASSWORD '{password}'")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def create_zone_and_certificate(public: Certificate) -> None:
    """Creates the prerequisites of the deployment, which Terraform looks up by name."""
    aws_client("route53", REGION).create_hosted_zone(Name=DOMAIN, CallerReference="rehearsal")
    certificate, key = public.certificate.read_bytes(), public.key.read_bytes()
    aws_client("acm", REGION).import_certificate(Certificate=certificate, PrivateKey=key)
