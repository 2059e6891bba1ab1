"""HAProxy in front of several instances of the service, configured like AWS and the cluster."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from ops.common import haproxy
from ops.common.ports import free_port

_START_SECONDS: Final = 60.0  # a busy machine starts HAProxy late
_POLL_SECONDS: Final = 0.02

# As in production, there are two balancers, one behind the other. Callers connect to the load balancer of AWS. Its
# time-outs are those of k8s/base/service.yaml, and it knows only nodes. Kube-proxy on the node distributes new
# connections over the ready pods, by the probe of deployment.yaml. It does not touch connections that exist. So a
# connection to a pod stays open until the pod closes it, even when the pod is no longer ready. Any caller's request may
# use it, and nothing is sent twice.
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
    """A running HAProxy.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, port: int, stats: int) -> None:
        self.port = port
        self._stats = stats

    async def reused_percent(self) -> float:
        """Returns the percentage of requests that used an existing connection to the node."""
        node = (await self._servers("nodes"))["node"]
        return 100 * int(node["reuse"]) / (int(node["reuse"]) + int(node["connect"]))

    async def times_down(self) -> dict[int, int]:
        """Returns how often each pod became not ready, by port."""
        return {int(port): int(pod["chkdown"]) for port, pod in (await self._servers("pods")).items()}

    async def wait_until_up(self, port: int) -> None:
        """Waits until this pod receives new connections."""
        while not (await self._servers("pods"))[str(port)]["status"].startswith("UP"):  # noqa: ASYNC110 - no event
            await asyncio.sleep(_POLL_SECONDS)

    async def _servers(self, proxy: str) -> dict[str, dict[str, str]]:
        """Returns HAProxy's statistics of a proxy's servers, by name."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stats)
        writer.write(f"show stat {proxy} 4 -1\n".encode())  # 4: servers only
        response = await reader.read()
        writer.close()
        return haproxy.parse_statistics(response.decode())


def missing() -> str:
    """Returns what this machine is missing. Empty if HAProxy is installed."""
    return "" if haproxy.find() else "HAProxy is not installed"


@contextlib.asynccontextmanager
async def balancing(folder: Path, ports: Sequence[int], interval_seconds: float) -> AsyncIterator[Balancer]:
    """Runs a balancer and yields it once all pods are ready.

    Args:
        folder: for its configuration and its log.
        ports: of the pods, which are instances of the service on 127.0.0.1.
        interval_seconds: between two readiness checks of a pod. Two failed checks take it out.
    """
    port, node, stats = free_port(), free_port(), free_port()
    pods = "\n".join(f"  server {pod} 127.0.0.1:{pod}" for pod in ports)
    interval = int(interval_seconds * 1000)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(_CONFIGURATION.format(port=port, node=node, stats=stats, pods=pods, interval=interval))
    binary = haproxy.find()
    assert binary is not None
    with (folder / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary, "-db", "-f", configuration, stdout=log, stderr=log)
        try:
            balancer = Balancer(port, stats)
            await _wait_until_listening(port)
            for pod in ports:
                await balancer.wait_until_up(pod)
            yield balancer
        finally:
            process.kill()
            await process.wait()


async def _wait_until_listening(port: int) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(_POLL_SECONDS)
