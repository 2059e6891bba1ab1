"""The caller's address, as sockets and proxies report it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from svc import app
from svc.http.lifecycle import Lifecycle
from svc.http.proxies import MAX_HOPS, Proxies, parse_address
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from tests.conftest import Log
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9\t", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("::FFFF:CB00:7109", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:4711", "203.0.113.9"),
        ("2001:DB8::0:7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:1:2:3", "::ffff:1:2:3"),
        *((text, "") for text in ("", "unknown", "_hidden", "203.0.113", "203.0.113.9:", "203.0.113.9:x", "١.1.1.1")),
        *((text, "") for text in ("[2001:db8::7", "2001:db8::7]:1", "[2001:db8::7]x", "203.0.113.9 x", "010.1.1.1")),
        *((text, "") for text in ("203.0.113.9:123456", "[]:1", ":1", "2001:db8::g", "8" * 8000, ":" * 8000)),
    ],
)
def test_an_address_loses_its_port_its_zone_and_its_ipv6_form(text: str, address: str) -> None:
    """parse_address returns the plain address, and nothing for what is no address."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9:4711", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, ::ffff:10.0.0.8", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.0.0.8:4711", "203.0.113.9"),
        ("203.0.113.9, unknown", "10.0.0.9"),
        ("203.0.113.9, unknown, 10.0.0.8", "10.0.0.8"),
        ("203.0.113.9,", "10.0.0.9"),
        (", ".join(["203.0.113.9", *["10.0.0.8"] * (MAX_HOPS - 1)]), "203.0.113.9"),
        (", ".join(["203.0.113.9", *["10.0.0.8"] * MAX_HOPS]), "10.0.0.8"),
    ],
)
def test_hops_are_read_up_to_the_first_that_is_no_trusted_address(forwarded_for: str, client: str) -> None:
    """Addresses count in every form, and the hops before what is no address are not believed."""
    request: Any = make_mocked_request("GET", "/", headers=[("X-Forwarded-For", forwarded_for)])
    request.peer = "10.0.0.9"

    assert Proxies([ip_network("10.0.0.0/8")]).client_address(request) == client


@asynccontextmanager
async def listening(log: Log, trusted: str) -> AsyncIterator[int]:
    """The service on a socket that takes IPv4 and IPv6; yields its port."""
    settings = Settings(
        trusted_proxies=(ip_network(trusted),),
        database=DatabaseSettings("postgresql://nobody@127.0.0.1:1/none"),
    )
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        async with app.build(settings, Lifecycle(), log.writer) as server:
            served = await asyncio.get_running_loop().create_server(server, sock=listener)
            yield listener.getsockname()[1]
            served.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("trusted", "client"), [("127.0.0.0/8", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")], ids=["trusted", "not trusted"]
)
async def test_a_peer_on_a_socket_for_both_families_is_ipv4(log: Log, trusted: str, client: str) -> None:
    """A caller by IPv4 on an IPv6 socket is logged, and trusted as a proxy, by its IPv4 address."""
    async with listening(log, trusted) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.9:4711\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reader.read()
        writer.close()

    assert [line["client"] for line in log.read() if line.get("route") == "unknown"] == [client]
