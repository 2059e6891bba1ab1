"""Ports of the loopback interface."""

import socket


def free_port() -> int:
    """A TCP port on which nothing listens at 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
