"""Trusted proxies, whose headers about a request's origin are believed."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from svc.http.messages import Request

Network: TypeAlias = IPv4Network | IPv6Network

MAX_HOPS: Final = 16  # trusted proxies in a row; 16 KB of IPv6 addresses would take 30 ms
_WITH_PORT: Final = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::[0-9]{1,5})?")


class Proxies:
    """The proxies and load balancers whose X-Forwarded-* headers are believed."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._is_trusted = lru_cache(maxsize=1024)(self._check)

    @property
    def any_trusted(self) -> bool:
        """Whether any networks are trusted."""
        return bool(self._trusted)

    def trusts(self, address: str) -> bool:
        """Whether the address belongs to a trusted network."""
        return self._is_trusted(address)

    def client_address(self, request: Request) -> str:
        """The caller's address: the nearest one that is not a trusted proxy's; empty on a Unix socket."""
        address = request.peer
        if not self.trusts(address):
            return address
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).rsplit(",", MAX_HOPS)
        for hop in reversed(forwarded[-MAX_HOPS:]):
            found = parse_address(hop)
            if not found:  # no trusted proxy writes this, so the rest is not believed either
                return address
            address = found
            if not self.trusts(address):
                return address
        return address

    def caller(self, request: Request) -> str:
        """The caller's network: an IPv4 address, or the /64 that an IPv6 address is in, which one caller often has."""
        return _network(self.client_address(request) if self._trusted else request.peer)

    def is_https(self, request: Request) -> bool:
        """Whether a trusted proxy reports that the request came by HTTPS."""
        return request.headers.get("X-Forwarded-Proto", "").lower() == "https" and self.trusts(request.peer)

    def _check(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:  # a Unix socket
            return False
        return any(found in network for network in self._trusted)


@lru_cache(maxsize=1024)
def parse_address(text: str) -> str:
    """The IP address that a proxy or a socket reports; empty where it is none.

    Some proxies add the port: `203.0.113.9:4711`, `[2001:db8::1]:4711`. A socket that listens on both IPv4 and IPv6
    reports `::ffff:203.0.113.9`, which is IPv4. A zone, as in `fe80::1%eth0`, means something only to the machine that
    reports it, and is dropped.
    """
    text = text.strip()
    parts = _WITH_PORT.fullmatch(text)
    try:
        found = ip_address((parts[1] or parts[2]) if parts else text)
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or found).partition("%")[0]
    return str(found)


@lru_cache(maxsize=1024)
def _network(address: str) -> str:
    return str(IPv6Network((address, 64), strict=False)) if ":" in address else address
