"""The API behind HAProxy under a path of its own: URLs in responses lead through the proxy."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession
from yarl import URL

from ops.common import haproxy
from tests.conftest import Client
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

_CONFIGURATION = """\
defaults
  mode http
  timeout connect 30s
  timeout client 30s
  timeout server 30s

listen proxy
  bind 127.0.0.1:{port}
  http-request replace-path /apis/clients/(.*) /\\1
  server service 127.0.0.1:{service}
"""


@pytest.fixture
async def base(api: Client, tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[URL]:
    """The API's URL at the proxy."""
    program = haproxy.find()
    if program is None:
        missing("haproxy is missing (on Debian: apt install haproxy)")
    file = tmp_path / "haproxy.cfg"
    file.write_text(_CONFIGURATION.format(port=unused_tcp_port, service=api.port))
    process = await asyncio.create_subprocess_exec(program, "-db", "-f", file)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _is_listening(unused_tcp_port):
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield URL(f"http://127.0.0.1:{unused_tcp_port}/apis/clients/")
    finally:
        process.kill()
        await process.wait()


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_links_and_locations_lead_through_the_proxy(base: URL) -> None:
    """A caller who knows only the proxy's URL reads every page, and the client that it has added."""
    ids: list[int] = []
    async with ClientSession() as caller:
        page: URL | None = base / "getall" % {"limit": 3}
        while page:
            async with caller.get(page) as response:
                ids += [client["id"] for client in await response.json()]
                page = URL(response.links["next"]["url"]) if response.links else None
        async with caller.post(base / "add" % {"name": "Ann", "money": "1"}) as response:
            location = response.url.join(URL(response.headers["Location"]))
        async with caller.get(location) as response:
            added = await response.json()

    assert ids == [1, 2, 3, 4]
    assert added == {"id": 5, "name": "Ann", "money": "1.00"}
