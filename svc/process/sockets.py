"""The sockets that the service listens on: bound, shared by workers, and closed without cutting a caller."""

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

BACKLOG: Final = 4096  # connections that wait to be accepted; Linux allows no more by default
_SO_ATTACH_FILTER: Final = 26  # linux/asm-generic/socket.h; Python has no name for it
# For tcp(7)'s socket filter, a packet begins with its TCP header, whose byte 13 has the flags.
_DROP_SYN: Final = (
    struct.pack("=HBBI", 0x30, 0, 0, 13)  # load byte 13
    + struct.pack("=HBBI", 0x45, 0, 1, 0x02)  # without the flag SYN, skip one instruction
    + struct.pack("=HBBI", 0x06, 0, 0, 0)  # drop the packet
    + struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # accept the packet
)
_INSTRUCTION_BYTES: Final = 8
_UNACKED_OFFSET: Final = 24  # of tcpi_unacked in struct tcp_info, linux/tcp.h


class CannotListen(Exception):
    """The service cannot listen on the address."""


def listen(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Sockets that listen, one for each address of the host, all on the same port.

    Args:
        host: an address or a name. `::` is each address of this machine, IPv6 and IPv4.
        port: the port; 0 for any free one.
        is_shared: whether other processes listen on the same port, too.

    Raises:
        CannotListen: with the reason.
    """
    sockets = _bind(host, port, is_shared=is_shared)
    try:
        for bound in sockets:
            bound.listen(BACKLOG)
    except OSError as error:
        close(sockets)
        raise _cannot_listen(host, port, error) from error
    return sockets


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port while workers are replaced, and yields its number. The sockets that keep it never listen.

    Raises:
        CannotListen: with the reason.
    """
    # Another program with SO_REUSEPORT on this port would get a share of the connections. Without that option, to bind
    # to a port in use fails.
    close(_bind(host, port, is_shared=False))
    sockets = _bind(host, port, is_shared=True)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        close(sockets)


def close(sockets: list[socket.socket]) -> None:
    """Closes sockets."""
    for opened in sockets:
        opened.close()


def ignore_handshakes(listening: socket.socket) -> None:
    """From now on, the socket drops packets that open a connection. Those that are opened can still be accepted.

    The callers' kernels repeat such a packet after a second. Where the platform has no socket filters, nothing changes.
    """
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    fprog = struct.pack("@HP", len(_DROP_SYN) // _INSTRUCTION_BYTES, ctypes.addressof(program))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def count_unaccepted(listening: socket.socket) -> int:
    """How many connections wait in the socket's accept queue; 0 where the platform does not report it."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_OFFSET + 4)
    return int(struct.unpack_from("=I", info, _UNACKED_OFFSET)[0])


def _bind(host: str, port: int, *, is_shared: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, (address, _, *scope) in dict.fromkeys(found):
            bound = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
            bound.bind((address, sockets[0].getsockname()[1] or port, *scope))
    except OSError as error:
        close(sockets)
        raise _cannot_listen(host, port, error) from error
    return sockets


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    return CannotListen(f"cannot listen on {host} port {port}: {error.strerror or error}; set HOST or PORT to another")
