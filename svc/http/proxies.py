"""Whose word about a request's origin is taken."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from svc.http.messages import Request

Network: TypeAlias = IPv4Network | IPv6Network


class Proxies:
    """The proxies and balancers that are ours; only what they say of a caller is believed."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._remembered = lru_cache(maxsize=1024)(self._look_up)

    @property
    def any_trusted(self) -> bool:
        """Whether there are any."""
        return bool(self._trusted)

    def trusts(self, address: str) -> bool:
        """Whether the address is one of ours."""
        return self._remembered(address)

    def client(self, request: Request) -> str:
        """The caller's address: the nearest one that is not a trusted proxy's; empty where the socket has none."""
        address = request.peer
        if not self.trusts(address):
            return address
        told = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for hop in reversed([hop.strip() for hop in told]):
            try:
                address = str(ip_address(hop))
            except ValueError:  # whoever wrote it, no proxy of ours: what lies behind it is not to be believed
                return address
            if not self.trusts(address):
                return address
        return address

    def is_https(self, request: Request) -> bool:
        """Whether a balancer of ours says that it came by HTTPS."""
        return request.headers.get("X-Forwarded-Proto", "").lower() == "https" and self.trusts(request.peer)

    def _look_up(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:  # a Unix socket
            return False
        return any(found in network for network in self._trusted)
