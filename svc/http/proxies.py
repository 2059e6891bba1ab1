"""Trusted proxies, whose headers about a request's origin are believed."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from svc.http.messages import Request

Network: TypeAlias = IPv4Network | IPv6Network


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
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for hop in reversed([hop.strip() for hop in forwarded]):
            try:
                address = str(ip_address(hop))
            except ValueError:  # no trusted proxy writes this, so the rest is not believed either
                return address
            if not self.trusts(address):
                return address
        return address

    def is_https(self, request: Request) -> bool:
        """Whether a trusted proxy reports that the request came by HTTPS."""
        return request.headers.get("X-Forwarded-Proto", "").lower() == "https" and self.trusts(request.peer)

    def _check(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:  # a Unix socket
            return False
        return any(found in network for network in self._trusted)
