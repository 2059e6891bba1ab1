"""What a cluster of kind needs from Docker: networks in which this machine has an address, and a registry."""

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.rehearsal.environment import NAME
from ops.rehearsal.steps import IMAGE, ROOT, StepFailed

_SECONDS: Final = 900.0  # for the largest, which downloads an image or creates the nodes
_LAST_CHARACTERS: Final = 2000

_REGISTRY_IMAGE: Final = (
    "docker.io/library/registry:3.0.0@sha256:6c5666b861f3505b116bb9aa9b25175e71210414bd010d92035ff64018f9457e"
)
REGISTRY: Final = f"{NAME}-registry"
REGISTRY_PORT: Final = 5000

AUTOSCALER: Final = "autoscaling/cluster-autoscaler"  # at registry.k8s.io

_DOCKER_HUB: Final = "docker.io/"
_LABEL: Final = f"{NAME}.rehearsal"  # of the images that are built here

# A later release differs only in its SQL (ops/rehearsal/images.py).
_LATER_RELEASE: Final = """\
FROM {first}
COPY sql /app/sql
ENV BUILD={build}
"""

# No node group of AWS exists here, so the autoscaler would exit.
_AUTOSCALER: Final = """\
FROM {first}
COPY autoscaler.py /cluster-autoscaler
"""


@dataclass(frozen=True)
class Network:
    """A network of Docker.

    Attributes:
        name: of the network.
        range: its addresses.
        gateway: the one that this machine has in it.
    """

    name: str
    range: str
    gateway: str


def run(*command: str | Path, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Runs a command of Docker or kind, and returns its output.

    Raises:
        StepFailed: it failed; the message has the end of its errors.
    """
    done = subprocess.run(
        command,
        input=stdin,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise StepFailed(f"{shlex.join(map(str, command))} failed:\n{done.stderr[-_LAST_CHARACTERS:]}")
    return done.stdout


@contextlib.contextmanager
def networks(*wanted: Network) -> Iterator[None]:
    """Creates the networks, and removes them at the end; Docker refuses that while a container is in one."""
    _remove_networks(wanted)
    try:
        for one in wanted:
            run("docker", "network", "create", "--subnet", one.range, "--gateway", one.gateway, one.name)
        yield
    finally:
        _remove_networks(wanted)


def _remove_networks(wanted: Sequence[Network]) -> None:
    run("docker", "network", "rm", "--force", *(one.name for one in wanted))


@contextlib.contextmanager
def registry(network: Network) -> Iterator[str]:
    """Runs an image registry in the network; gives its address on this machine, to which images are pushed.

    At the end, the images are removed from this machine, too.
    """
    _remove_registry()
    try:
        options = ("--detach", "--name", REGISTRY, "--network", network.name)
        run("docker", "run", *options, "--publish", f"127.0.0.1::{REGISTRY_PORT}", _REGISTRY_IMAGE)
        yield run("docker", "port", REGISTRY, str(REGISTRY_PORT)).strip()
    finally:
        _remove_registry()
        run("docker", "image", "prune", "--all", "--force", "--filter", f"label={_LABEL}")


def _remove_registry() -> None:
    run("docker", "rm", "--force", "--volumes", REGISTRY)


def push(sources: Mapping[str, Path], autoscaler: str, registry: str) -> dict[str, str]:
    """Builds and pushes the releases, and a stand-in for the autoscaler of the nodes by the name of the real one.

    Args:
        sources: the folder with the source of each release, by the name that its image has without a registry.
        autoscaler: the version of the real one.
        registry: its address on this machine.

    Returns:
        What the image of each release is called, with the digest that the registry gave it.
    """
    repository = IMAGE.removeprefix(_DOCKER_HUB).partition("@")[0]
    first = f"{registry}/{repository}:{_build(IMAGE)}"
    pushed = {IMAGE: _push(first, "--build-arg", f"BUILD={_build(IMAGE)}", ROOT)}
    for image, source in sources.items():
        if image != IMAGE:
            later = _LATER_RELEASE.format(first=first, build=_build(image))
            pushed[image] = _push(f"{registry}/{repository}:{_build(image)}", "--file", "-", source, dockerfile=later)
    stand_in = _AUTOSCALER.format(first=first)
    _push(f"{registry}/{AUTOSCALER}:v{autoscaler}", "--file", "-", Path(__file__).parent, dockerfile=stand_in)
    return {image: f"{_DOCKER_HUB}{repository}@{digest}" for image, digest in pushed.items()}


def _build(image: str) -> str:
    """Returns what `/version` says, as the processes do that are pods without Docker."""
    return image.rpartition(":")[2]


def _push(tag: str, *options: str | Path, dockerfile: str = "") -> str:
    """Builds and pushes an image, and returns its digest."""
    run("docker", "build", "--label", _LABEL, "--tag", tag, *options, stdin=dockerfile)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", run("docker", "push", tag))
    if not found:
        raise StepFailed(f"docker push {tag} printed no digest")
    return found[1]
