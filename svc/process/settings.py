"""Where the service listens and how it stops."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """Where the service listens and how it stops.

    Attributes:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        workers: processes that share the port.
        drain_seconds: how long the service goes on serving after SIGTERM, so that balancers see it is not ready.
        shutdown_seconds: the longest that requests in flight may take after that.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    drain_seconds: float = 5.0
    shutdown_seconds: float = 20.0
