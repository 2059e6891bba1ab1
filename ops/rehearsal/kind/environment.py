"""The environment of a rehearsal on kind: that of a rehearsal without Docker, with a real cluster and its network."""

import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from ops.common.ports import free_port
from ops.rehearsal import aws
from ops.rehearsal.certificates import create_ca, create_certificate
from ops.rehearsal.environment import (
    DATABASE,
    DOMAIN,
    NAME,
    POSTGRES_PORT,
    Environment,
    create_zone_and_certificate,
    postgres,
)
from ops.rehearsal.kind import authentication, cluster, docker
from ops.rehearsal.kind.balancers import CloudController
from ops.rehearsal.load_balancer import LoadBalancers
from ops.rehearsal.steps import ROOT
from ops.rehearsal.tls import listen


@contextlib.contextmanager
def running(folder: Path, version: str, images: Mapping[str, Path]) -> Iterator[Environment]:
    """Starts the environment, and stops it at the end; nothing remains in Docker but the cache of its builds.

    PostgreSQL, the mock AWS and the load balancer run on this machine, as in a rehearsal without Docker. Pods reach
    PostgreSQL at the address that this machine has in the database's network.

    Args:
        folder: for its files; must not exist.
        version: of Kubernetes.
        images: the folder with the source of each image.
    """
    folder.mkdir(parents=True)
    ca = create_ca(folder)
    for_containers = create_certificate(ca, "containers", [cluster.NODES.gateway, cluster.DATABASE.gateway])
    public_certificate = create_certificate(ca, "public", [DOMAIN, f"*.{DOMAIN}"])
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        stack.enter_context(docker.networks(cluster.NODES, cluster.DATABASE))
        server, port = stack.enter_context(postgres(folder, password))
        address = (cluster.DATABASE.gateway, POSTGRES_PORT)
        tls_proxy = listen(for_containers, lambda: ("127.0.0.1", port), address, starttls=True)
        stack.callback(tls_proxy.close)
        registry = stack.enter_context(docker.registry(cluster.NODES))
        pushed = docker.push(images, _autoscaler_version(version), registry)
        webhook = stack.enter_context(authentication.running(cluster.NODES.gateway, for_containers))
        created = stack.enter_context(cluster.running(folder, version, webhook, ca))
        balancers = LoadBalancers(NAME, public_certificate, ("127.0.0.1", free_port()), folder / "haproxy")
        stack.callback(balancers.close)
        variables = stack.enter_context(
            aws.running(aws.Endpoints(created.url, created.ca, tls_proxy.address, password))
        )
        create_zone_and_certificate(public_certificate)
        stack.enter_context(CloudController(created.kubectl, created.nodes, balancers).running())
        variables |= {**cluster.RANGES, "REHEARSAL_NODE": created.nodes[0], "KUBECONFIG": str(created.config)}
        yield Environment(ca.certificate, variables, balancers.address, server.dsn(database=DATABASE), pushed)


def _autoscaler_version(version: str) -> str:
    releases = (ROOT / "terraform" / "upgrades.tf").read_text()
    (found,) = re.findall(rf'"{re.escape(version)}" = "([0-9.]+)"', releases)
    release: str = found
    return release
