"""What stands on this machine for AWS and for the cluster while a rehearsal lasts."""

import asyncio
import base64
import contextlib
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ops.common.ports import free_port
from ops.deploy.common import aws as client
from ops.rehearsal import aws, kubernetes
from ops.rehearsal.aws import REGION
from ops.rehearsal.balancer import Balancer
from ops.rehearsal.certificates import Certificate, authority, certificate
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.tls import Address, listen
from svc.postgres.embedded import EmbeddedPostgres

NAME: Final = "olimac"
DOMAIN: Final = "olimac.link"

DATABASE: Final = "clients"  # as terraform/database.tf has both
_OWNER: Final = "postgres"
_POSTGRES_PORT: Final = 5432

# Whoever comes over TCP needs a password, as with RDS; the socket is the rehearsal's own.
_WHO_MAY: Final = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class World:
    """What stands.

    Attributes:
        authority: the CA that signed all certificates, PEM.
        environment: in which Terraform and the steps find what stands here instead of AWS.
        public: where the service's load balancer listens, once there is one.
        database: where its owner connects, past TLS and passwords: a DSN.
    """

    authority: Path
    environment: dict[str, str]
    public: Address
    database: str


@contextlib.contextmanager
def standing(folder: Path, version: str, image: str) -> Iterator[World]:
    """Starts all of it, and stops it at the end.

    Args:
        folder: for its files; nothing else is in it.
        version: of Kubernetes.
        image: that this checkout stands for.
    """
    folder.mkdir(parents=True)
    ca = authority(folder)
    at = _free_address()
    ours = certificate(ca, "loopback", ["localhost", "127.0.0.1", at[0]])
    public = certificate(ca, "public", [DOMAIN, f"*.{DOMAIN}"])
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        postgres, port = stack.enter_context(_postgres(folder, password))
        database = listen(ours, lambda: ("127.0.0.1", port), at, asks=True)
        stack.callback(database.close)
        balancer = Balancer(NAME, public, ("127.0.0.1", free_port()))
        stack.callback(balancer.close)
        controllers = Controllers(image, folder / "pods", balancer)
        cluster = stack.enter_context(kubernetes.started(version, ours, is_signed, controllers.acting))
        stand_ins = aws.StandIns(cluster.url, ca.certificate, database.address, password)
        environment = stack.enter_context(aws.started(stand_ins))
        _exist_beforehand(public)
        yield World(ca.certificate, environment, balancer.address, postgres.dsn(database=DATABASE))


def is_signed(token: str) -> bool:
    """Whether the token is one as EKS has them; the signature itself would be AWS's to check."""
    with contextlib.suppress(ValueError):
        kind, _, url = token.partition(".")
        question = base64.urlsafe_b64decode(url + "=" * (-len(url) % 4)).decode()
        wanted = {"Action": ["GetCallerIdentity"], "X-Amz-SignedHeaders": ["host;x-k8s-aws-id"]}
        return kind == "k8s-aws-v1" and wanted.items() <= parse_qs(urlsplit(question).query).items()
    return False


def _free_address() -> Address:
    """An address of loopback whose PostgreSQL port is free: Terraform decides the port, so it cannot be any."""
    for number in range(1, 255):
        with contextlib.suppress(OSError), socket.create_server((f"127.0.0.{number}", _POSTGRES_PORT)):
            return f"127.0.0.{number}", _POSTGRES_PORT
    raise OSError(f"port {_POSTGRES_PORT} is taken on all of 127.0.0.1 to 127.0.0.254")


@contextlib.contextmanager
def _postgres(folder: Path, password: str) -> Iterator[tuple[EmbeddedPostgres, int]]:
    """A PostgreSQL that is as RDS makes it: one database, an owner with a password."""
    port = free_port()
    server = EmbeddedPostgres(folder, {"listen_addresses": "127.0.0.1", "port": str(port)})
    server.start()
    try:
        rules = server.data / "pg_hba.conf"
        rules.write_text(_WHO_MAY)  # the file stays its owner's
        asyncio.run(_secure(server, password))
        yield server, port
    finally:
        server.stop()


async def _secure(server: EmbeddedPostgres, password: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"ALTER ROLE {_OWNER} PASSWORD '{password}'")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def _exist_beforehand(public: Certificate) -> None:
    """The domain's zone and its certificate, which the deployment looks up by name."""
    client("route53", REGION).create_hosted_zone(Name=DOMAIN, CallerReference="rehearsal")
    certificate, key = public.certificate.read_bytes(), public.key.read_bytes()
    client("acm", REGION).import_certificate(Certificate=certificate, PrivateKey=key)
