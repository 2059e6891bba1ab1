"""The API's contract, over HTTP and on PostgreSQL."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from svc.clients.model import NewClient, parse_money, parse_name, print_money
from tests.conftest import Client, Owner
from tests.svc.clients.test_model import CENTS, VISIBLE
from tests.svc.postgres.locks import wait_for_locks

SEEDED = [
    {"id": 1, "name": "Andres", "money": "200.00"},
    {"id": 2, "name": "Camilo", "money": "300.00"},
    {"id": 3, "name": "Laura", "money": "400.00"},
    {"id": 4, "name": "Felipe", "money": "400.00"},
]


async def request_raw(api: Client, method: str, path: str, **options: Any) -> ClientResponse:
    """Sends a request without any change to its path and query."""
    return await api.session.request(method, URL(f"http://127.0.0.1:{api.port}{path}", encoded=True), **options)


async def problem(api: Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Sends a request and returns the response's body, which must be a problem."""
    response = await request_raw(api, method, path, **options)
    body: dict[str, Any] = await response.json(content_type="application/problem+json")
    assert body["status"] == response.status
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert {"type", "title", "detail"} <= body.keys()
    return body


async def test_getall_gives_all_clients_in_order_of_id(api: Client) -> None:
    """GET /getall is a JSON array of all clients."""
    response = await api.get("/getall")

    assert response.status == 200
    assert response.content_type == "application/json"
    assert await response.json() == SEEDED


async def test_getall_without_clients_is_an_empty_array(api: Client, owner: Owner) -> None:
    """GET /getall of an empty table is []."""
    await owner.execute("TRUNCATE clients")

    assert await (await api.get("/getall")).json() == []
    assert await (await api.get("/getall?limit=5")).json() == []


@pytest.mark.parametrize(
    ("query", "ids", "next_page"),
    [
        ("limit=2", [1, 2], "?limit=2&after=2"),
        ("limit=2&after=2", [3, 4], None),
        ("limit=1&after=1", [2], "?limit=1&after=2"),
        ("after=3", [4], None),
        ("limit=1000", [1, 2, 3, 4], None),
        ("after=0&limit=4", [1, 2, 3, 4], None),
        ("after=99999999999999999999", [], None),
    ],
)
async def test_getall_gives_one_page(api: Client, query: str, ids: list[int], next_page: str | None) -> None:
    """With limit or after, the response has one page, and a Link to the next page where there is one."""
    response = await api.get(f"/getall?{query}")

    assert response.status == 200
    assert [client["id"] for client in await response.json()] == ids
    assert response.headers.get("Link") == (f'<{next_page}>; rel="next"' if next_page else None)


async def test_the_links_lead_to_every_client_once(api: Client, owner: Owner) -> None:
    """Pages do not overlap, and no client is missing."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'c' || n, n FROM generate_series(1, 100) n")
    found, path = [], "/getall?limit=7"
    while path:
        response = await api.get(path)
        found += [client["id"] for client in await response.json()]
        path = URL(response.links["next"]["url"]).path_qs if response.links else ""  # aiohttp resolves it

    assert found == list(range(1, 105))


async def test_getall_streams_more_than_one_page(api: Client, owner: Owner) -> None:
    """GET /getall of several pages is one array, sent in chunks."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'c' || n, n FROM generate_series(1, 3500) n")
    response = await api.get("/getall")

    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert [client["id"] for client in await response.json()] == list(range(1, 3505))


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=", "after=-1", "after=x", "page=2"])
async def test_getall_rejects_invalid_parameters(api: Client, query: str) -> None:
    """An invalid limit or after, or another parameter, is a 400 that names the field."""
    rejected = await problem(api, "GET", f"/getall?{query}")

    assert rejected["status"] == 400
    assert rejected["field"] == query.partition("=")[0]


async def test_get_gives_one_client(api: Client) -> None:
    """GET /get/<id> is the client's object."""
    response = await api.get("/get/1")

    assert response.status == 200
    assert await response.json() == SEEDED[0]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/get/5", 404),
        ("/get/9223372036854775807", 404),
        ("/get/9223372036854775808", 404),
        ("/get/" + "9" * 5000, 404),
        ("/get/0", 400),
        ("/get/-1", 400),
        ("/get/x", 400),
        ("/get/1.0", 400),
        ("/get/%D9%A3", 400),
        ("/get/%00", 400),
        ("/get/%FF", 400),
        ("/get/1%20", 400),
        ("/get/1%2F2", 404),
        ("/get/", 404),
        ("/get", 404),
        ("/get/1/", 404),
        ("/nowhere", 404),
        ("/getall/", 404),
        ("//getall", 404),
    ],
)
async def test_get_of_a_missing_client_or_path(api: Client, path: str, status: int) -> None:
    """A missing client or path is 404, and an invalid id is 400."""
    assert (await problem(api, "GET", path))["status"] == status


async def test_a_percent_encoded_path_is_the_same_path(api: Client) -> None:
    """In a path, %67 is g."""
    response = await request_raw(api, "GET", "/%67et/%31")

    assert await response.json() == SEEDED[0]


async def test_add_by_query(api: Client) -> None:
    """POST /add?name=&money= is 201 with the new id, and its URL in Location, relative to /add."""
    response = await api.post("/add", params={"name": " Sofía ", "money": "-12.5"})

    assert response.status == 201
    assert await response.json() == {"id": 5}
    assert response.headers["Location"] == "get/5"
    assert "Idempotency-Replayed" not in response.headers
    assert await (await api.get("/get/5")).json() == {"id": 5, "name": "Sofía", "money": "-12.50"}


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"name": "Sofía", "money": "12.50"}},
        {"json": {"name": "Sofía", "money": 12.5}},
        {"data": {"name": "Sofía", "money": "12.50"}},
        {"data": FormData({"name": "Sofía", "money": "12.50"}, charset="utf-8")},
        {"data": b'{"name":"Sof\\u00eda","money":12.50}', "headers": {"Content-Type": "application/json"}},
        {"params": {"name": "Sofía"}, "json": {"money": "12.50"}},
    ],
)
async def test_add_by_body(api: Client, body: dict[str, Any]) -> None:
    """The fields may be in a JSON object or a form, or some in the query and others in the body."""
    response = await api.post("/add", **body)

    assert response.status == 201
    assert await (await api.get("/get/5")).json() == {"id": 5, "name": "Sofía", "money": "12.50"}


async def test_a_json_number_keeps_every_digit(api: Client) -> None:
    """An amount with more digits than a float can represent is stored exactly."""
    body = b'{"name": "Rich", "money": 9999999999999999.99}'
    await api.post("/add", data=body, headers={"Content-Type": "application/json"})

    assert (await (await api.get("/get/5")).json())["money"] == "9999999999999999.99"


@pytest.mark.parametrize(
    ("number", "money"),
    [
        (b"1.23456789E7", "12345678.90"),
        (b"9.99999999999999999E15", "9999999999999999.99"),
        (b"-1.5e+3", "-1500.00"),
        (b"12345E-2", "123.45"),
        (b"0E99", "0.00"),
        (b"1E0000000003", "1000.00"),
    ],
)
async def test_a_json_number_may_have_an_exponent(api: Client, number: bytes, money: str) -> None:
    """Java, among others, writes large numbers so. The amount is exact."""
    body = b'{"name": "Rich", "money": %b}' % number
    response = await api.post("/add", data=body, headers={"Content-Type": "application/json"})

    assert response.status == 201
    assert (await (await api.get("/get/5")).json())["money"] == money


@pytest.mark.parametrize("value", [b"7", b'"7"', b"null", b"[7]", b'{"name": 7}'])
async def test_an_unknown_json_field_is_named_as_unknown(api: Client, value: bytes) -> None:
    """Its type does not matter."""
    body = b'{"name": "A", "money": 1, "id": %b}' % value
    rejected = await problem(api, "POST", "/add", data=body, headers=JSON_TYPE)

    assert (rejected["field"], "is unknown" in rejected["detail"]) == ("id", True)


JSON_TYPE = {"Content-Type": "application/json"}
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("query", "body", "headers", "status", "field"),
    [
        ("name=A", None, {}, 400, "money"),
        ("money=1", None, {}, 400, "name"),
        ("", None, {}, 400, "name"),
        ("name=&money=1", None, {}, 400, "name"),
        ("name=A&money=", None, {}, 400, "money"),
        ("name=A&money=1&name=B", None, {}, 400, "name"),
        ("name=A&money=1&money=1", None, {}, 400, "money"),
        ("name=A&money=1", b'{"name": "A"}', JSON_TYPE, 400, "name"),
        ("name=A", b"money=1&money=2", FORM_TYPE, 400, "money"),
        ("", b'{"name": "A", "name": "A", "money": 1}', JSON_TYPE, 400, "name"),
        ("name=A&money=1&id=7", None, {}, 400, "id"),
        ("", b'{"name": "A", "money": 1, "id": 7}', JSON_TYPE, 400, "id"),
        ("", b'{"name": 5, "money": 1}', JSON_TYPE, 400, "name"),
        ("", b'{"name": null, "money": 1}', JSON_TYPE, 400, "name"),
        ("", b'{"name": ["A"], "money": 1}', JSON_TYPE, 400, "name"),
        ("", b'{"name": "A", "money": true}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": NaN}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": Infinity}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": 1E-3}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": 1E16}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": 1E999999999}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": 1E-999999999}', JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": 1E' + b"9" * 10000 + b"}", JSON_TYPE, 400, "money"),
        ("", b'{"name": "A", "money": "1E3"}', JSON_TYPE, 400, "money"),
        ("name=A&money=1E3", None, {}, 400, "money"),
        ("", b'{"name": "\\ud800", "money": 1}', JSON_TYPE, 400, "name"),
        ("name=%00&money=1", None, {}, 400, "name"),
        ("name=%FF&money=1", None, {}, 400, "name"),
        ("name=%zz&money=1", None, {}, 400, "name"),
        ("name=100%&money=1", None, {}, 400, "name"),
        ("name=A&money=%D9%A3", None, {}, 400, "money"),
        ("name=A&money=+5", None, {}, 400, "money"),
        ("name=" + "a" * 151 + "&money=1", None, {}, 400, "name"),
        ("", b"name=%FF&money=1", FORM_TYPE, 400, "name"),
        ("", b"[]", JSON_TYPE, 400, None),
        ("", b'"name"', JSON_TYPE, 400, None),
        ("", b"{", JSON_TYPE, 400, None),
        ("", b"\xff\xfe", JSON_TYPE, 400, None),
        ("", b"[" * 15000, JSON_TYPE, 400, None),
        ("", b"{" + b" " * 20000 + b"}", JSON_TYPE, 413, None),
        ("", b"name: A", {"Content-Type": "text/yaml"}, 415, None),
        ("", b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415, None),
        ("", b"\x1f\x8b", {**JSON_TYPE, "Content-Encoding": "gzip"}, 415, None),
        ("", b"{}", {**JSON_TYPE, "Expect": "miracles"}, 417, None),
    ],
)
async def test_add_rejects_invalid_requests(
    api: Client, query: str, body: bytes | None, headers: dict[str, str], status: int, field: str | None
) -> None:
    """The response has the right status and the field's name, and no client is added."""
    rejected = await problem(api, "POST", f"/add?{query}", data=body, headers=headers)

    assert (rejected["status"], rejected.get("field")) == (status, field)
    assert await (await api.get("/getall")).json() == SEEDED


async def test_a_request_may_expect_100_continue(api: Client) -> None:
    """A request with Expect: 100-continue gets a 100 before its body, and the response after it."""
    response = await api.post("/add", json={"name": "A", "money": 1}, expect100=True)

    assert response.status == 201


async def test_two_clients_may_share_a_name(api: Client) -> None:
    """Names are not unique."""
    responses = [await api.post("/add", params={"name": "Ann", "money": "1"}) for _ in range(2)]

    assert [(await response.json())["id"] for response in responses] == [5, 6]


class TestIdempotencyKey:
    """A retry with the same key adds nothing."""

    @staticmethod
    async def add(api: Client, key: str, name: str = "Ann", money: str = "1") -> tuple[int, Any]:
        response = await TestIdempotencyKey.respond(api, key, name, money)
        return response.status, await response.json(content_type=None)

    @staticmethod
    async def respond(api: Client, key: str, name: str = "Ann", money: str = "1") -> ClientResponse:
        return await api.post("/add", params={"name": name, "money": money}, headers={"Idempotency-Key": key})

    async def test_a_retry_gets_the_first_response(self, api: Client) -> None:
        """A retry with the same key and fields gets 201 and the same id, and adds no client."""
        first = await self.add(api, "k-1")
        again = await self.add(api, "k-1", " Ann ", "1.00")

        assert first == again == (201, {"id": first[1]["id"]})
        assert len(await (await api.get("/getall")).json()) == 5

    @pytest.mark.parametrize(("name", "money"), [("Bob", "1"), ("Ann", "2")])
    async def test_other_fields_with_the_same_key_are_rejected(self, api: Client, name: str, money: str) -> None:
        """The same key with other fields is a 422, and adds nothing."""
        await self.add(api, "k-1")

        assert (await self.add(api, "k-1", name, money))[0] == 422
        assert len(await (await api.get("/getall")).json()) == 5

    async def test_concurrent_requests_add_one_client(self, api: Client) -> None:
        """Concurrent requests with one key all get the same id."""
        responses = await asyncio.gather(*(self.add(api, "k-1") for _ in range(20)))

        assert len({json.dumps(response) for response in responses}) == 1
        assert len(await (await api.get("/getall")).json()) == 5

    async def test_only_a_replay_is_marked(self, api: Client) -> None:
        """Of all requests with one key, concurrent or later, exactly one lacks Idempotency-Replayed: true."""
        responses = [
            *await asyncio.gather(*(self.respond(api, "k-1") for _ in range(20))),
            await self.respond(api, "k-1"),
        ]
        marks = [response.headers.get("Idempotency-Replayed") for response in responses]

        assert sorted(mark or "" for mark in marks) == ["", *["true"] * 20]
        assert "Idempotency-Replayed" not in (await self.respond(api, "k-1", "Bob")).headers
        assert "Idempotency-Replayed" not in (await self.respond(api, "k-2")).headers

    async def test_a_use_that_another_connection_was_first_with_is_a_replay(self, api: Client, owner: Owner) -> None:
        """A request that waited for an uncommitted use of its key is marked, too."""
        fingerprint = NewClient("Ann", Decimal(1)).fingerprint()
        async with owner.transaction():
            await owner.execute("INSERT INTO clients (id, name, money) VALUES (7, 'Ann', 1)")
            await owner.execute(
                "INSERT INTO idempotency_keys (key, fingerprint, client_id) VALUES ('k-1', $1, 7)", fingerprint
            )
            waiting = asyncio.create_task(self.respond(api, "k-1"))
            await wait_for_locks(owner, 1)
        response = await waiting

        assert await response.json() == {"id": 7}
        assert response.headers["Idempotency-Replayed"] == "true"

    async def test_other_keys_add_other_clients(self, api: Client) -> None:
        """Keys differ even where only the case differs."""
        assert (await self.add(api, "k-1"))[1] != (await self.add(api, "K-1"))[1]

    @pytest.mark.parametrize("key", ["", "a b", "a" * 256, "ключ"])
    async def test_an_invalid_key_is_rejected(self, api: Client, key: str) -> None:
        """A key is 1 to 255 visible ASCII characters."""
        assert (await self.add(api, key))[0] == 400

    async def test_key_and_client_are_stored_together(self, api: Client, owner: Owner) -> None:
        """Where the client cannot be stored, the key is not stored either."""
        await owner.execute("ALTER TABLE clients ADD CONSTRAINT no_ann CHECK (name <> 'Ann')")
        assert (await self.add(api, "k-1"))[0] == 500
        await owner.execute("ALTER TABLE clients DROP CONSTRAINT no_ann")

        assert (await self.add(api, "k-1"))[0] == 201


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/add", "POST"),
        ("POST", "/getall", "GET, HEAD"),
        ("DELETE", "/get/1", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("OPTIONS", "/add", "POST"),
    ],
)
async def test_another_method_is_405(api: Client, method: str, path: str, allowed: str) -> None:
    """A method that the path does not have is a 405, and Allow lists those that it has."""
    response = await api.request(method, path)

    assert response.status == 405
    assert response.headers["Allow"] == allowed
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ["/getall", "/get/1", "/healthz", "/", "/docs"])
async def test_head_is_get_without_the_body(api: Client, path: str) -> None:
    """HEAD has GET's status and headers, and no body."""
    head, get = await api.head(path), await api.get(path)

    assert (head.status, head.headers.get("Content-Length")) == (200, get.headers.get("Content-Length"))
    assert await head.read() == b""


async def test_head_of_several_pages_has_no_body(api: Client, owner: Owner) -> None:
    """HEAD /getall of several pages answers without them, and the connection serves the next request."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'c' || n, n FROM generate_series(1, 3500) n")
    head = await api.head("/getall")

    assert (head.status, head.headers.get("Content-Length"), await head.read()) == (200, None, b"")
    assert (await api.get("/get/1")).status == 200


@pytest.mark.parametrize("given", ["abc", "A-1_2.z", "x" * 128])
async def test_a_valid_request_id_is_kept(api: Client, given: str) -> None:
    """The response has the caller's X-Request-Id, also where it is an error."""
    for path in ("/get/1", "/nowhere"):
        assert (await api.get(path, headers={"X-Request-Id": given})).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "<b>"])
async def test_an_invalid_request_id_is_replaced(api: Client, given: str) -> None:
    """An invalid X-Request-Id is replaced by a new one."""
    new = (await api.get("/get/1", headers={"X-Request-Id": given})).headers["X-Request-Id"]

    assert new != given
    assert len(new) == 32


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(VISIBLE, min_size=1, max_size=40), cents=CENTS)
async def test_every_client_is_read_as_it_was_added(api: Client, name: str, cents: int) -> None:
    """PostgreSQL returns every name and amount exactly as they were parsed."""
    money = f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"
    response = await api.post("/add", json={"name": name, "money": money})
    stored = await (await api.get(f"/{response.headers['Location']}")).json()

    assert (stored["name"], stored["money"]) == (parse_name(name), print_money(parse_money(money)))
