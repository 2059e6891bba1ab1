"""The nodes of the fake cluster: the kube-proxy of each forwards connections to ready pods, and answers health checks.

Simplified: pods run on no node in particular, so they stay when a node is replaced.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ops.common.ports import free_host
from ops.rehearsal.tls import Address, listen

NODE_PORT: Final = 30080  # the cluster chooses this port for the Service
_HEALTH_PORT: Final = 10256


@dataclass(frozen=True)
class Node:
    """A running node.

    Attributes:
        host: its loopback address.
        close: ends it, with all connections.
    """

    host: str
    close: Callable[[], None]


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing reads a log of the checks."""


def start(upstream: Callable[[], Address | None]) -> Node:
    """Starts a node on a loopback address of its own.

    Args:
        upstream: returns the address of the pod for the next connection, or None to close it.
    """
    host = free_host(NODE_PORT, _HEALTH_PORT)
    proxy = listen(None, upstream, (host, NODE_PORT))
    health = ThreadingHTTPServer((host, _HEALTH_PORT), _Health)
    threading.Thread(target=health.serve_forever, name="kube-proxy", daemon=True).start()

    def close() -> None:
        health.shutdown()
        health.server_close()
        proxy.close()

    return Node(host, close)
