"""Where the service listens and how it stops."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """Where the service listens and how it stops.

    Attributes:
        host: the address to listen on, or a name with several; `::` is every address, IPv6 and IPv4.
        port: the port to listen on; 0 for any free port.
        workers: the number of processes that share the port.
        drain_seconds: how long the service keeps serving after SIGTERM, so that load balancers see it is not ready.
        shutdown_seconds: the longest that requests in flight may take after that.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    drain_seconds: float = 5.0
    shutdown_seconds: float = 20.0
