"""An open service on loopback cannot be read by pages of other sites: it accepts only names of this machine."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from svc import app
from svc.http.access import ApiKey
from svc.http.hosts import is_loopback
from svc.http.lifecycle import Lifecycle
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings, read
from tests.conftest import Log, ServedApp
from tests.patience import PATIENCE_SECONDS
from tests.service import Service

ON_LOOPBACK = Settings(database=DatabaseSettings("postgresql://nobody@127.0.0.1:1/none"))


async def get(settings: Settings, log: Log, host: bytes | None, path: bytes = b"/healthz") -> tuple[int, bytes]:
    """The status and the body of a response to a request with this Host."""
    async with app.build(settings, Lifecycle(), log.writer) as server, ServedApp(server) as served:
        await served.start_server()
        return await exchange(served.port or 0, host, path)


async def exchange(port: int, host: bytes | None, path: bytes = b"/healthz") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    version, header = (b"1.0", b"") if host is None else (b"1.1", b"Host: " + host + b"\r\nConnection: close\r\n")
    writer.write(b"GET " + path + b" HTTP/" + version + b"\r\n" + header + b"\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        response = await reader.read()
    writer.close()
    return int(response[9:12]), response.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost", b"localhost:8080", b"LocalHost", b"localhost.", b"app.localhost:8080", b"127.0.0.1"),
        *(b"127.0.0.1:8080", b"127.8.8.8", b"[::1]", b"[::1]:8080", None),
    ],
)
async def test_names_of_this_machine_are_accepted(log: Log, host: bytes | None) -> None:
    """localhost, its subdomains and loopback addresses are accepted, with any port; HTTP/1.0 may send none."""
    assert (await get(ON_LOOPBACK, log, host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *(b"attacker.example", b"attacker.example:8080", b"localhost.attacker.example", b"127.0.0.1.attacker.example"),
        *(b"notlocalhost", b"192.168.1.7:8080", b"[2001:db8::7]", b"0.0.0.0:8080", b"10.127.0.0.1"),
    ],
)
@pytest.mark.parametrize("path", [b"/getall", b"/docs", b"/nowhere"])
async def test_other_names_are_refused_on_every_path(log: Log, host: bytes, path: bytes) -> None:
    """A page that made its own name resolve to 127.0.0.1 gets a problem with status 421 instead of clients."""
    status, body = await get(ON_LOOPBACK, log, host, path)

    assert status == 421
    assert json.loads(body)["title"] == "Host refused"


@pytest.mark.parametrize(
    "settings",
    [
        replace(ON_LOOPBACK, server=ServerSettings(host="0.0.0.0")),
        replace(ON_LOOPBACK, api_key_hashes=(ApiKey(bytes(32), "caller"),)),
        replace(ON_LOOPBACK, trusted_proxies=read({"TRUSTED_PROXIES": "127.0.0.1"}).trusted_proxies),
    ],
    ids=["not on loopback", "with keys", "behind a proxy"],
)
async def test_any_name_is_accepted_where_a_page_gains_nothing(log: Log, settings: Settings) -> None:
    """Reachable services, services with keys, and those behind a trusted proxy have names of their own."""
    assert (await get(settings, log, b"clients.example"))[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "localhost", "::1", "::ffff:127.0.0.1"])
def test_loopback_hosts(host: str) -> None:
    """Every form of a loopback address counts as one."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "clients.example", ""])
def test_other_hosts(host: str) -> None:
    """Addresses that other machines reach are none."""
    assert not is_loopback(host)


async def test_the_command_is_protected_by_default(serve: Callable[..., Service]) -> None:
    """`python -m svc serve` without any settings but a database accepts only names of this machine."""
    service = serve()

    assert (await exchange(service.port, b"attacker.example", b"/getall"))[0] == 421
    assert (await exchange(service.port, b"localhost", b"/getall"))[0] == 200
