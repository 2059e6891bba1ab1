"""HAProxy as the classic load balancer: it terminates TLS, checks the nodes, and sends requests to those in service.

As with AWS, a node gets no request before its first checks have succeeded, the node with the fewest requests gets the
next one, connections to nodes are kept and shared by callers, and no request is sent twice.

Simplified: nodes are checked each second, whatever the interval. The settings remain those with which the load balancer
was created.
"""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.common import haproxy
from ops.common.ports import free_port
from ops.rehearsal.certificates import Certificate
from ops.rehearsal.nodes import NODE_PORT, Node
from ops.rehearsal.pods import dying_with_this_process
from ops.rehearsal.tls import Address

_START_SECONDS: Final = 60.0  # a busy machine starts it late
_IN_SERVICE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.05
_MAX_NODES: Final = 4

# The servers are slots, in maintenance until a node is registered.
_CONFIGURATION: Final = """\
global
  stats socket ipv4@127.0.0.1:{api} level admin

defaults
  mode http
  timeout connect 5s
  timeout client {idle}s
  timeout server {idle}s
  timeout check {timeout}s
  retries 0

frontend listener
  bind {host}:{port} ssl crt {pem} ssl-min-ver TLSv1.2
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  default_backend nodes

backend nodes
  balance leastconn
  http-reuse always
  {check}
  default-server check port {check_port} inter 1s fall {fall} rise {rise}
  server-template node {slots} 127.0.0.1:{node_port} disabled
"""
_TARGET: Final = re.compile(r"(?P<protocol>HTTP|TCP):(?P<port>\d+)(?P<path>.*)")


@dataclass
class Balancer:
    """A running HAProxy.

    Attributes:
        drain_seconds: how long requests of a node may take that is no longer registered.
    """

    drain_seconds: float
    _process: "subprocess.Popen[bytes]"
    _api: int
    _slots: dict[str, str] = field(default_factory=dict)

    def register(self, node: Node) -> None:
        """Adds the node, which gets requests as soon as its checks have succeeded."""
        free = next(name for name in _slot_names() if name not in self._slots.values())
        self._slots[node.host] = free
        # A server that leaves maintenance counts as up before its first check, so it is set down at once.
        states = (f"addr {node.host} port {NODE_PORT}", "health down", "state ready", "health down")
        haproxy.command(self._api, "; ".join(f"set server nodes/{free} {state}" for state in states))

    def deregister(self, node: Node) -> None:
        """Removes the node, and waits for the responses to the requests that it has."""
        slot = self._slots.pop(node.host)
        haproxy.command(self._api, f"set server nodes/{slot} state maint")
        end = time.monotonic() + self.drain_seconds
        while self._server(slot)["scur"] != "0" and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def is_in_service(self, node: Node) -> bool:
        """Whether the node gets requests."""
        return self._server(self._slots[node.host])["status"].startswith("UP")

    def wait_until_in_service(self, node: Node) -> None:
        """Waits until the node gets requests.

        Raises:
            TimeoutError: its checks failed.
        """
        _wait(lambda: self.is_in_service(node), _IN_SERVICE_SECONDS, f"the node {node.host} is not in service")

    def close(self) -> None:
        """Ends it, with all connections."""
        self._process.kill()
        self._process.wait()

    def _server(self, slot: str) -> dict[str, str]:
        return haproxy.parse_statistics(haproxy.command(self._api, "show stat nodes 4 -1"))[slot]


def start(
    folder: Path, address: Address, certificate: Certificate, check: dict[str, Any], attributes: dict[str, Any]
) -> Balancer:
    """Starts HAProxy without a node.

    Args:
        folder: for its files.
        address: where it listens.
        certificate: of the listener.
        check: the health check, as the API of Elastic Load Balancing has it.
        attributes: of the load balancer, as that API has them.

    Raises:
        TimeoutError: it does not listen.
    """
    folder.mkdir(exist_ok=True)
    pem = folder / "listener.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(certificate.certificate.read_bytes() + certificate.key.read_bytes())
    target = _TARGET.fullmatch(check["Target"])
    assert target, check["Target"]
    path = f"option httpchk GET {target['path']}\n  http-check expect status 200" if target["path"] else ""
    api = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        _CONFIGURATION.format(
            api=api,
            idle=attributes["ConnectionSettings"]["IdleTimeout"],
            timeout=check["Timeout"],
            host=address[0],
            port=address[1],
            pem=pem,
            check=path,
            check_port=target["port"],
            fall=check["UnhealthyThreshold"],
            rise=check["HealthyThreshold"],
            slots=f"1-{_MAX_NODES}",
            node_port=NODE_PORT,
        )
    )
    program = haproxy.find()
    assert program, "HAProxy is not installed"
    with (folder / "haproxy.log").open("wb") as log:
        command = [*dying_with_this_process(), program, "-db", "-f", os.fspath(configuration)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    balancer = Balancer(attributes["ConnectionDraining"]["Timeout"], process, api)
    try:
        _wait(lambda: _is_listening(address), _START_SECONDS, f"HAProxy does not listen; {folder} has its log")
    except TimeoutError:
        balancer.close()
        raise
    return balancer


def _slot_names() -> list[str]:
    return [f"node{number}" for number in range(1, _MAX_NODES + 1)]


def _is_listening(address: Address) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
        return True
    return False


def _wait(condition: Callable[[], bool], seconds: float, reason: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(reason)
        time.sleep(_POLL_SECONDS)
