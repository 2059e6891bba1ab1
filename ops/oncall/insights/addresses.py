"""IP addresses and their subnets.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
"""

import ipaddress
from functools import lru_cache

from ops.oncall.logs import Value


def is_valid(value: Value, *versions: int) -> bool:
    """Whether a value is an address of one of these versions, 4 and 6."""
    address = _address(str(value))
    return address is not None and address.version in versions


def is_in_subnet(value: Value, subnet: Value, *versions: int) -> bool:
    """Whether a value is an address of one of these versions, and in a subnet such as 192.0.2.0/24."""
    address, network = _address(str(value)), _network(str(subnet))
    return address is not None and network is not None and address.version in versions and address in network


@lru_cache(maxsize=1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
