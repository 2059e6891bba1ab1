"""Every JSON body is written in one style, and ends with a line break for terminals."""

import json

import pytest

from svc.clients.store import PAGE_ROWS
from svc.http.lifecycle import Lifecycle
from tests.conftest import Client, Owner
from tests.svc.http.test_http import send


def check_style(body: bytes) -> None:
    """UTF-8 without spaces between the values, and one line break, at the end."""
    compact = json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":"))
    assert body == f"{compact}\n".encode(errors="backslashreplace")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/getall", 200),
        ("GET", "/getall?limit=2", 200),
        ("GET", "/getall?after=4", 200),
        ("GET", "/getall?limit=no", 400),
        ("GET", "/get/1", 200),
        ("GET", "/get/9", 404),
        ("POST", "/add?name=Sofía&money=1", 201),
        ("POST", "/add?name=Sofía&money=uno€", 400),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/version", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nothing", 404),
        ("DELETE", "/get/1", 405),
    ],
)
async def test_a_body_is_compact_and_ends_with_a_line_break(api: Client, method: str, path: str, status: int) -> None:
    """Whether PostgreSQL or the service wrote it; and a HEAD has the length of the GET's body."""
    response = await api.request(method, path)
    body = await response.read()

    assert response.status == status
    check_style(body)
    assert response.headers["Content-Length"] == str(len(body))
    if method == "GET":
        head = await api.head(path)
        assert (head.headers["Content-Length"], await head.read()) == (str(len(body)), b"")


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_long_list_is_compact_and_ends_with_a_line_break(api: Client, owner: Owner, coding: str) -> None:
    """One line break, wherever the list is cut into pages."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'Sofía', n FROM generate_series(1, $1) n", PAGE_ROWS)
    for path in ("/getall", f"/getall?limit={PAGE_ROWS}"):
        response = await api.get(path, headers={"Accept-Encoding": coding})

        assert response.headers.get("Content-Encoding", "identity") == coding
        check_style(await response.read())


async def test_a_problem_before_the_routes_ends_with_a_line_break(api: Client) -> None:
    """Of what is not HTTP, and of an unknown field whose name is not even Unicode."""
    raw = await send(api, b"nonsense\r\n\r\n")
    response = await api.post("/add", data=b'{"\\ud800":1}', headers={"Content-Type": "application/json"})

    check_style(raw.partition(b"\r\n\r\n")[2])
    body = await response.read()
    check_style(body)
    assert b'"field":"\\ud800"' in body


async def test_a_problem_of_readiness_ends_with_a_line_break(api: Client, lifecycle: Lifecycle) -> None:
    """The service is not ready while it drains."""
    lifecycle.draining = True
    response = await api.get("/readyz")

    assert response.status == 503
    check_style(await response.read())
