"""The examples of the OpenAPI description are what the service answers."""

from collections.abc import Callable
from typing import Any, TypeAlias

from aiohttp import ClientSession

from svc.http.access import digest
from svc.http.messages import MAX_BODY_BYTES
from svc.site import openapi
from tests.conftest import Owner
from tests.service import Service

KEY = "a-key"
NEW = {"name": "Sofía", "money": "12.50"}
ONCE = {"Idempotency-Key": "once"}

_Key: TypeAlias = tuple[str, str]  # a path template, and a status
_Request: TypeAlias = tuple[str, dict[str, Any]]  # a URL, and what is sent to it

# In this order: the second use of an Idempotency-Key comes after the first.
REQUESTS: dict[_Key, _Request] = {
    ("/getall", "200"): ("/getall", {}),
    ("/getall", "400"): ("/getall?limit=5000", {}),
    ("/add", "201"): ("/add", {"json": NEW, "headers": ONCE}),
    ("/add", "400"): ("/add", {"json": {**NEW, "money": "12.505"}}),
    ("/add", "413"): ("/add", {"data": b" " * (MAX_BODY_BYTES + 1)}),
    ("/add", "415"): ("/add", {"data": "Sofía", "headers": {"Content-Type": "text/plain"}}),
    ("/add", "422"): ("/add", {"json": {**NEW, "money": "13"}, "headers": ONCE}),
    ("/get/{id}", "200"): ("/get/1", {}),
    ("/get/{id}", "400"): ("/get/first", {}),
    ("/get/{id}", "404"): ("/get/6", {}),
    ("/healthz", "200"): ("/healthz", {}),
    ("/healthz", "400"): ("/healthz?verbose", {}),
    ("/readyz", "200"): ("/readyz", {}),
    ("/readyz", "400"): ("/readyz?verbose", {}),
    ("/version", "200"): ("/version", {}),
    ("/version", "400"): ("/version?verbose", {}),
}
WITHOUT_KEY: dict[_Key, _Request] = {
    ("/getall", "401"): ("/getall", {}),
    ("/add", "401"): ("/add", {"json": NEW}),
    ("/get/{id}", "401"): ("/get/1", {}),
}
WITHOUT_DATABASE: dict[_Key, _Request] = {
    ("/getall", "503"): ("/getall", {}),
    ("/add", "503"): ("/add", {"json": NEW}),
    ("/get/{id}", "503"): ("/get/1", {}),
    ("/readyz", "503"): ("/readyz", {}),
}
WITH_A_LOCKED_TABLE: dict[_Key, _Request] = {
    ("/getall", "504"): ("/getall", {}),
    ("/add", "504"): ("/add", {"json": NEW}),
    ("/get/{id}", "504"): ("/get/1", {}),
}


async def test_each_example_is_a_response_of_the_service(serve: Callable[..., Service], owner: Owner) -> None:
    """Each response of the description has one, and the service gives it, down to its request id."""
    examples = described_examples()
    request_id = examples["/get/{id}", "404"]["application/problem+json"]["request_id"]
    build = examples["/version", "200"]["application/json"]["build"]
    keys = digest(KEY).hex()
    service = serve(API_KEY_HASHES=keys, BUILD=build)
    hasty = serve(API_KEY_HASHES=keys, DB_STATEMENT_SECONDS="0.5")
    without_database = serve(API_KEY_HASHES=keys, DATABASE_URL="postgresql://127.0.0.1:1/clients")
    identity = {"X-Request-Id": request_id}
    key = {"Authorization": f"Bearer {KEY}"}

    async with (
        ClientSession(service.url, headers={**identity, **key}) as caller,
        ClientSession(service.url, headers=identity) as anonymous,
        ClientSession(hasty.url, headers={**identity, **key}) as late,
        ClientSession(without_database.url, headers={**identity, **key}) as unlucky,
    ):
        service.wait_until_ready()
        responses = await get_all(caller, REQUESTS)
        responses |= await get_all(anonymous, WITHOUT_KEY)
        responses |= await get_all(unlucky, WITHOUT_DATABASE)
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            responses |= await get_all(late, WITH_A_LOCKED_TABLE)

    assert responses == examples


def described_examples() -> dict[_Key, Any]:
    """The example of each response in the description, by its content type."""
    return {
        (path, status): {content_type: content["example"] for content_type, content in response["content"].items()}
        for path, operations in openapi.describe(requires_key=True)["paths"].items()
        for operation in operations.values()
        for status, response in operation["responses"].items()
    }


async def get_all(session: ClientSession, requests: dict[_Key, _Request]) -> dict[_Key, Any]:
    """Sends each request. Returns the response to each, by path template and by the status that the service gave."""
    responses = {}
    for (path, _), (url, sent) in requests.items():
        async with session.request("POST" if path == "/add" else "GET", url, **sent) as response:
            body = await response.json(content_type=None)
            responses[path, str(response.status)] = {response.content_type: body}
    return responses
