"""Ports of the loopback interface."""

import contextlib
import socket


def free_port() -> int:
    """A TCP port on which nothing listens at 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_host(*ports: int) -> str:
    """Returns a loopback address on which nothing listens at any of these ports.

    Raises:
        OSError: there is none from 127.0.0.1 to 127.0.0.254.
    """
    for host in (f"127.0.0.{number}" for number in range(1, 255)):
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in ports:
                probes.enter_context(socket.create_server((host, port)))
            return host
    raise OSError(f"the ports {', '.join(map(str, ports))} are in use on all addresses from 127.0.0.1 to 127.0.0.254")
