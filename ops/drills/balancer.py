"""A balancer in front of several instances of the service: HAProxy, set up as AWS and the cluster are."""

import asyncio
import contextlib
import csv
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from ops.common.ports import free_port

_START_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02

# As in production there are two of them, one behind the other. Callers meet the load balancer of AWS, whose time-outs
# are those of k8s/base/service.yaml; all that it knows is a node. Kube-proxy, on that node, spreads new connections
# over the pods that are ready, by the probe of deployment.yaml, and leaves those alone that are made. So a connection
# to a pod is kept, whatever becomes of the pod, until the pod ends it; any caller's request may go by it; and nothing
# is sent or tried again.
_CONFIGURATION: Final = """\
global
  stats socket ipv4@127.0.0.1:{stats}

defaults
  timeout client 60s
  timeout server 60s
  timeout connect 2s
  timeout check 3s
  retries 0

frontend balancer
  mode http
  bind 127.0.0.1:{port}
  default_backend nodes

backend nodes
  mode http
  option http-keep-alive
  http-reuse always
  server node 127.0.0.1:{node} pool-purge-delay 60s

listen pods
  mode tcp
  bind 127.0.0.1:{node}
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter {interval}ms fall 2 rise 1
{pods}
"""


class Balancer:
    """A HAProxy that runs.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, port: int, stats: int) -> None:
        self.port = port
        self._stats = stats

    async def kept_percent(self) -> float:
        """How many requests went by a connection that was there already."""
        node = (await self._servers("nodes"))["node"]
        return 100 * int(node["reuse"]) / (int(node["reuse"]) + int(node["connect"]))

    async def downs(self) -> dict[int, int]:
        """How often each pod was found not to be ready, by their ports."""
        return {int(port): int(pod["chkdown"]) for port, pod in (await self._servers("pods")).items()}

    async def until_up(self, port: int) -> None:
        """Waits until new connections go to this pod."""
        while not (await self._servers("pods"))[str(port)]["status"].startswith("UP"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_LOOK_SECONDS)

    async def _servers(self, proxy: str) -> dict[str, dict[str, str]]:
        """HAProxy's statistics of a proxy's servers, by their names."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stats)
        writer.write(f"show stat {proxy} 4 -1\n".encode())  # 4: servers only
        lines = (await reader.read()).decode().lstrip("# ").splitlines()
        writer.close()
        return {row["svname"]: row for row in csv.DictReader(filter(None, lines))}


def lacks() -> str:
    """What a machine without HAProxy lacks."""
    return "" if _binary() else "HAProxy is not installed"


def _binary() -> str | None:
    return shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextlib.asynccontextmanager
async def balancing(folder: Path, ports: Sequence[int], interval_seconds: float) -> AsyncIterator[Balancer]:
    """A balancer, once it has found all pods to be ready.

    Args:
        folder: for its configuration and its log.
        ports: of the service's instances, on 127.0.0.1: the pods.
        interval_seconds: from one look at a pod's readiness to the next; two that fail take it out.
    """
    port, node, stats = free_port(), free_port(), free_port()
    pods = "\n".join(f"  server {pod} 127.0.0.1:{pod}" for pod in ports)
    interval = int(interval_seconds * 1000)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(port=port, node=node, stats=stats, pods=pods, interval=interval))
    binary = _binary()
    assert binary is not None
    with (folder / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary, "-db", "-f", configuration, stdout=log, stderr=log)
        try:
            balancer = Balancer(port, stats)
            await _until_listening(port)
            for pod in ports:
                await balancer.until_up(pod)
            yield balancer
        finally:
            process.kill()
            await process.wait()


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(_LOOK_SECONDS)
