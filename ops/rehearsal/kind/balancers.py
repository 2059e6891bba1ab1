"""What the cloud controller of EKS does for Services: it gives each of type LoadBalancer its load balancer."""

import contextlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from botocore.exceptions import ClientError

from ops.deploy.common import CannotProceed
from ops.rehearsal.controllers import CloudProvider
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.load_balancer import Refused

_LOG: Final = logging.getLogger(__name__)
_POLL_SECONDS: Final = 1.0


@dataclass
class CloudController:
    """Compares the Services with their load balancers, once a second.

    Simplified: the nodes that a load balancer checks are those of `ops/rehearsal/nodes.py`. They forward to the port of
    the Service at the real nodes, by turns.

    Attributes:
        kubectl: runs kubectl as the cluster's administrator, and returns its output.
        nodes: the addresses of the nodes.
        cloud: creates and deletes load balancers.
    """

    kubectl: Callable[..., str]
    nodes: Sequence[str]
    cloud: CloudProvider
    _handled: dict[str, Object] = field(default_factory=dict)  # the Services that have a load balancer, by uid

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Reconciles in a thread while the context is open."""
        stop = threading.Event()

        def reconcile() -> None:
            while not stop.wait(_POLL_SECONDS):
                try:
                    self.reconcile()
                except (CannotProceed, ClientError, OSError, Refused):
                    _LOG.exception("the load balancers are not those of the Services")

        thread = threading.Thread(target=reconcile, name="cloud controller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def reconcile(self) -> None:
        """Creates, configures and deletes load balancers, so that they are those of the Services.

        Raises:
            CannotProceed: kubectl failed.
            Refused: a Service asks for something that AWS refuses.
        """
        listed = json.loads(self.kubectl("get", "services", "--all-namespaces", "--output=json"))["items"]
        services = {one["metadata"]["uid"]: one for one in listed if one["spec"].get("type") == "LoadBalancer"}
        for uid in self._handled.keys() - services.keys():
            self.cloud.delete(self._handled.pop(uid))
        for uid, service in services.items():
            if self._handled.get(uid) != service:
                (port,) = service["spec"]["ports"]
                nodes = itertools.cycle([(node, port["nodePort"]) for node in self.nodes])
                self.cloud.create(service, nodes.__next__)
                self._handled[uid] = service
