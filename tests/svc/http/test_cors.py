"""Pages of the origins in CORS_ORIGINS may call the API from a browser."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp.test_utils import BaseTestServer

from svc import app
from svc.clients.store import PAGE_ROWS
from svc.http.access import ApiKey, digest
from svc.http.lifecycle import Lifecycle
from svc.postgres.settings import DatabaseSettings
from svc.settings import Settings
from tests.conftest import Client, Log, Owner, ServedApp

ORIGIN = "https://app.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.fixture
async def shared_api(
    database_settings: DatabaseSettings, log: Log, aiohttp_client: Callable[[BaseTestServer], Awaitable[Client]]
) -> AsyncIterator[Client]:
    """An HTTP client of the service, with keys, which lets pages of two origins call it."""
    settings = Settings(
        cors_origins=("http://localhost:3000", ORIGIN),
        api_key_hashes=(ApiKey(digest("key"), "caller"),),
        database=database_settings,
    )
    async with app.build(settings, Lifecycle(), log.writer) as server:
        yield await aiohttp_client(ServedApp(server))


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/add", "POST"), ("/getall", "GET, HEAD"), ("/get/1", "GET, HEAD"), ("/version", "GET, HEAD")],
)
async def test_a_preflight_request_has_the_permissions(shared_api: Client, path: str, methods: str) -> None:
    """A preflight request needs no key, and its response names the path's methods and the headers of the API."""
    async with shared_api.options(path, headers={"Origin": ORIGIN, **PREFLIGHT}) as response:
        assert response.status == 204
        assert await response.read() == b""
        assert "Content-Length" not in response.headers
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Methods"] == methods
        assert "Idempotency-Key" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", ["/version", "/getall", "/nowhere", "/docs", "/docs/style.css"])
async def test_a_response_may_be_read_by_an_allowed_origin(shared_api: Client, path: str) -> None:
    """The headers are on every response, errors included, so that a page can read why it failed."""
    async with shared_api.get(path, headers={"Origin": ORIGIN}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://other.example", "null", "https://app.example.other", "HTTPS://APP.EXAMPLE"]
)
async def test_no_other_origin_is_allowed(shared_api: Client, origin: str) -> None:
    """Another origin gets no permission, and caches learn that the response depends on the origin."""
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        async with shared_api.request(method, "/version", headers={"Origin": origin, **headers}) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
            assert response.headers["Vary"] == "Origin"


async def test_a_streamed_list_may_be_read(shared_api: Client, owner: Owner) -> None:
    """A list in parts has the headers too."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'Ann', 1 FROM generate_series(1, $1)", PAGE_ROWS)
    async with shared_api.get("/getall", headers={"Origin": ORIGIN, "Authorization": "Bearer key"}) as response:
        assert len(await response.json()) > PAGE_ROWS
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in ", ".join(response.headers.getall("Vary")).split(", ")


async def test_without_origins_there_is_no_cors(api: Client) -> None:
    """By default, no response has a header of CORS, and OPTIONS is not allowed."""
    async with api.get("/get/1", headers={"Origin": ORIGIN}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Vary" not in response.headers
    async with api.options("/add", headers={"Origin": ORIGIN, **PREFLIGHT}) as response:
        assert response.status == 405


async def test_a_request_without_preflight_headers_is_no_preflight(shared_api: Client) -> None:
    """OPTIONS alone is still not allowed."""
    async with shared_api.options("/add", headers={"Origin": ORIGIN}) as response:
        assert response.status == 405
