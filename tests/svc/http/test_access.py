"""Access control: with API keys configured, only callers with a valid key may use the API."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest

import pytest
from aiohttp import ClientSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.common.process import ROOT
from svc.http import access
from svc.http.access import ApiKey
from svc.logs import names
from svc.settings import Settings, read
from svc.site import openapi
from tests.conftest import Client, Owner
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.clients.test_contract import problem, request_raw
from tests.svc.http.test_http import CLOSE, send
from tests.svc.logs import lines
from tests.svc.telemetry import otlp
from tests.svc.telemetry.otlp import collecting

KEY, NEXT_KEY, EXPIRED_KEY = "correct-horse", "battery_staple", "yesterday"
ODD_KEYS = [b"\xff\xfe", "ключ".encode(), b'"quoted" key, with a comma']

ENDPOINTS = [("GET", "/getall"), ("GET", "/getall?limit=2"), ("POST", "/add?name=Ann&money=1"), ("GET", "/get/1")]
MISSING = 'Bearer realm="clients"'
REFUSED = 'Bearer realm="clients", error="invalid_token"'


@pytest.fixture
def api_keys() -> tuple[ApiKey, ...]:
    expired = ApiKey(access.digest(EXPIRED_KEY), "expired", time.time() - 1)
    keys = (KEY.encode(), NEXT_KEY.encode(), *ODD_KEYS)
    return (*(ApiKey(sha256(key).digest(), f"caller-{number}") for number, key in enumerate(keys)), expired)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def add_with(api: Client, authorization: bytes) -> bytes:
    """The response to an add with these bytes as its Authorization header."""
    head = b"POST /add?name=Ann&money=1 HTTP/1.1\r\n" + CLOSE
    return await send(api, head + b"Content-Length: 0\r\nAuthorization: " + authorization + b"\r\n\r\n")


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("key", [KEY, NEXT_KEY])
async def test_each_key_opens_each_endpoint(api: Client, method: str, path: str, key: str) -> None:
    """Several keys may be valid, so that a key can be replaced without downtime."""
    assert (await api.request(method, path, headers=bearer(key))).status in (200, 201)


@pytest.mark.parametrize(("method", "path"), [*ENDPOINTS, ("GET", "/get/x"), ("GET", "/getall?limit=x")])
async def test_every_endpoint_requires_a_key(api: Client, method: str, path: str) -> None:
    """Without one, the response is a 401 that says how to send a key, whatever else is wrong with the request."""
    before = await (await api.get("/getall", headers=bearer(KEY))).json()
    response = await request_raw(api, method, path)
    body = await problem(api, method, path)

    assert response.status == body["status"] == 401
    assert response.headers["WWW-Authenticate"] == MISSING
    assert body["title"] == "Key missing"
    assert "Bearer <key>" in body["detail"]
    assert await (await api.get("/getall", headers=bearer(KEY))).json() == before


async def test_head_requires_a_key_like_get(api: Client) -> None:
    """HEAD without a key is a 401."""
    assert (await api.head("/get/1")).status == 401
    assert (await api.head("/get/1", headers=bearer(KEY))).status == 200


@pytest.mark.parametrize("given", ["", "Basic dTpw", "Digest x", KEY, f"Bearer{KEY}", f"Bearer,{KEY}", f"Token {KEY}"])
async def test_another_scheme_counts_as_no_key(api: Client, given: str) -> None:
    """The 401 asks for a bearer token and names no error code (RFC 6750, section 3.1)."""
    response = await api.get("/get/1", headers={"Authorization": given})

    assert (response.status, response.headers["WWW-Authenticate"]) == (401, MISSING)


@pytest.mark.parametrize(
    "key",
    [
        *("", " ", "wrong", KEY[:-1], KEY + "x", KEY.upper(), f"{KEY} {NEXT_KEY}", f"{KEY},{NEXT_KEY}", f'"{KEY}"'),
        *(sha256(KEY.encode()).hexdigest(), "x" * 8000, "é", "🔑", "%63orrect-horse"),
    ],
)
async def test_a_wrong_key_is_refused(api: Client, key: str) -> None:
    """The response is a 401 that does not repeat the key."""
    response = await api.get("/get/1", headers=bearer(key))
    body = await response.json(content_type="application/problem+json")

    assert (response.status, response.headers["WWW-Authenticate"]) == (401, REFUSED)
    assert (body["title"], body["detail"]) == ("Key refused", "The API key is not valid.")


async def test_an_expired_key_is_refused_by_its_own_problem(api: Client) -> None:
    """Its caller learns that the key was valid, so that it asks for a new one."""
    response = await api.get("/get/1", headers=bearer(EXPIRED_KEY))
    body = await response.json(content_type="application/problem+json")

    assert (response.status, response.headers["WWW-Authenticate"]) == (401, REFUSED)
    assert body["type"] == "tag:olimac.link,2026:clients/key-expired"
    assert body["title"] == "Key expired"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR", "Bearer ", "Bearer  "])
async def test_the_scheme_is_case_insensitive(api: Client, scheme: str) -> None:
    """Nor does the number of spaces after it matter (RFC 9110, section 11.4)."""
    assert (await api.get("/get/1", headers={"Authorization": f"{scheme} {KEY}"})).status == 200


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_key_may_have_any_bytes(api: Client, key: bytes) -> None:
    """Bytes outside ASCII, even invalid UTF-8, are hashed as they arrive."""
    assert (await add_with(api, b"Bearer " + key)).startswith(b"HTTP/1.1 201 ")
    assert (await add_with(api, b"Bearer " + key[:-1])).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("second", [KEY, NEXT_KEY, "wrong"])
async def test_several_keys_at_once_are_refused(api: Client, second: str) -> None:
    """Two Authorization headers are ambiguous, so they are a 401 even where both keys are valid."""
    response = await add_with(api, f"Bearer {KEY}\r\nAuthorization: Bearer {second}".encode())

    assert response.startswith(b"HTTP/1.1 401 ")
    assert REFUSED.encode() in response
    assert b"given twice" in response


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n")), is_bearer=st.booleans())
async def test_random_bytes_are_no_key(api: Client, given: bytes, is_bearer: bool) -> None:
    """The response is a 401, or a 400 where the bytes are invalid HTTP."""
    response = await add_with(api, b"Bearer " * is_bearer + given)

    assert response.split(b" ", 2)[1] in (b"401", b"400")


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/version", "/", "/docs", "/docs/docs.js", "/docs/style.css", "/openapi.json"]
)
@pytest.mark.parametrize("headers", [{}, bearer("wrong")])
async def test_probes_and_pages_require_no_key(api: Client, path: str, headers: dict[str, str]) -> None:
    """They contain no data of clients."""
    assert (await api.get(path, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/get/", 404), ("POST", "/getall", 405), ("GET", "/add", 405)],
)
async def test_unknown_paths_and_methods_require_no_key(api: Client, method: str, path: str, status: int) -> None:
    """Paths and methods are public, since /openapi.json lists them."""
    assert (await problem(api, method, path))["status"] == status


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 5", b"Content-Length: 99999999", b"Content-Length: 5\r\nExpect: 100-continue"]
)
@pytest.mark.parametrize("key", [b"", b"Authorization: Bearer wrong\r\n"])
async def test_the_key_is_checked_before_the_body_arrives(api: Client, headers: bytes, key: bytes) -> None:
    """An add without a valid key is refused at once, without a 100 Continue."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /add HTTP/1.1\r\nHost: x\r\n" + key + headers + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 401 ")


async def test_the_key_is_checked_before_the_body_is_parsed(api: Client) -> None:
    """Without a key, valid and invalid JSON are a 401."""
    for body in (b"{", b'{"name": "Ann", "money": 1}'):
        headers = {"Content-Type": "application/json"}
        assert (await problem(api, "POST", "/add", data=body, headers=headers))["status"] == 401
        response = await api.post("/add", data=body, headers={**headers, **bearer(KEY)})
        assert response.status == (400 if body == b"{" else 201)


async def test_a_long_list_is_streamed_only_with_a_key(api: Client, owner: Owner) -> None:
    """GET /getall of several pages is complete with a key, and does not start without one."""
    await owner.execute("INSERT INTO clients (name, money) SELECT 'c' || n, n FROM generate_series(1, 3500) n")
    count = await owner.fetchval("SELECT count(*) FROM clients")

    assert len(await (await api.get("/getall", headers=bearer(KEY))).json()) == count
    assert (await api.get("/getall")).status == 401


@pytest.mark.parametrize("key", [KEY, NEXT_KEY, "wrong", "", "x" * 8000])
async def test_every_hash_is_compared(
    api: Client, api_keys: tuple[ApiKey, ...], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key is compared with all hashes in constant time, so the time reveals nothing about them."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(access, "compare_digest", compare)
    await api.get("/get/1", headers=bearer(key))

    assert compared == [(sha256(key.encode()).digest(), known.hash) for known in api_keys]


async def test_openapi_describes_which_operations_require_a_key(api: Client) -> None:
    """In /openapi.json, exactly the operations that are a 401 without a key have a security requirement."""
    described = await (await api.get("/openapi.json")).json()

    assert described == openapi.describe(requires_key=True)
    assert described["components"]["securitySchemes"]["key"].items() >= {"type": "http", "scheme": "bearer"}.items()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            status = (await api.request(method, path.replace("{id}", "1"))).status
            is_locked = "security" in operation
            assert (status == 401) == is_locked
            assert ("401" in operation["responses"]) == is_locked


@pytest.mark.parametrize("api_keys", [()])
@pytest.mark.parametrize("headers", [{}, bearer("any"), {"Authorization": "Basic dTpw"}])
async def test_without_configured_keys_the_api_is_open(api: Client, headers: dict[str, str]) -> None:
    """No key is required, described or checked."""
    for method, path in ENDPOINTS:
        assert (await api.request(method, path, headers=headers)).status in (200, 201)
    described = await (await api.get("/openapi.json")).json()

    assert described["security"] == []
    assert "securitySchemes" not in described["components"]
    assert "401" not in json.dumps(described)


Start = Callable[..., Service]


async def test_keys_are_never_exported(serve: Start) -> None:
    """Logs, metrics, traces and responses contain neither keys nor hashes. Refused requests are recorded as errors."""
    hashes = [access.digest(key).hex() for key in (KEY, NEXT_KEY)]
    responses = []
    with collecting("http/protobuf") as collector:
        service = serve(
            API_KEY_HASHES=", ".join(hashes),
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
            OTEL_TRACES_SAMPLER="always_on",
            TRACES_PER_SECOND="0",
            **collector.variables,
        )
        async with ClientSession() as session:
            for headers in (bearer(KEY), bearer(NEXT_KEY), bearer("Rumpelstiltskin"), {}):
                async with session.get(f"{service.url}/get/1", headers=headers) as response:
                    responses.append(f"{response.headers} {await response.text()}")
        await collector.wait_for(4 + 2)  # of requests and of batches
        assert await asyncio.to_thread(service.stop) == 0

    logged = [(line["status"], line.get("error")) for line in lines.requests(service.output)]
    documents = lines.documents(service.output)
    everything = " ".join([service.output, str(collector.spans), str(collector.resources), *responses]).lower()
    assert logged == [(200, None), (200, None), (401, "KeyRefused"), (401, "KeyMissing")]
    assert lines.counts(documents)["/get/{id}", "GET", "4xx"] == 2
    assert lines.total(documents, names.ERRORS) == 2
    assert len(collector.spans) == 4 + 2
    for secret in (KEY, NEXT_KEY, "Rumpelstiltskin", *hashes, access.digest("Rumpelstiltskin").hex()):
        assert secret.lower() not in everything


async def test_the_callers_name_is_recorded(serve: Start) -> None:
    """It is in the log line, in the span and in a metric, also where the key has expired, and never without a key."""
    hashes = {key: access.digest(key).hex() for key in (KEY, NEXT_KEY, EXPIRED_KEY)}
    with collecting("http/protobuf") as collector:
        service = serve(
            API_KEY_HASHES=f"billing:{hashes[KEY]},{hashes[NEXT_KEY]},old:{hashes[EXPIRED_KEY]}:2026-01-31",
            LOG_FORMAT="json",
            DRAIN_SECONDS="0",
            OTEL_TRACES_SAMPLER="always_on",
            TRACES_PER_SECOND="0",
            **collector.variables,
        )
        async with ClientSession() as session:
            for headers in (bearer(KEY), bearer(KEY), bearer(NEXT_KEY), bearer(EXPIRED_KEY), bearer("wrong"), {}):
                async with session.get(f"{service.url}/get/1", headers=headers) as response:
                    await response.read()
        await collector.wait_for(6 + 3)
        assert await asyncio.to_thread(service.stop) == 0

    logged = [(line.get(names.CALLER), line["status"], line.get("error")) for line in lines.requests(service.output)]
    counted = {
        document[names.CALLER_DIMENSION]: lines.values(document, names.REQUESTS)
        for document in lines.documents(service.output)
        if names.CALLER_DIMENSION in document
    }
    users = Counter(otlp.attributes(span.attributes).get(names.ENDUSER_ID, "-") for span in collector.spans)
    prefix = hashes[NEXT_KEY][:8]
    assert logged == [
        *(("billing", 200, None), ("billing", 200, None), (prefix, 200, None), ("old", 401, "KeyExpired")),
        *((None, 401, "KeyRefused"), (None, 401, "KeyMissing")),
    ]
    assert counted == {"billing": [2], prefix: [1], "old": [1]}
    assert users == {"billing": 2, prefix: 1, "old": 1, "-": 2 + 3}  # 2 requests without a valid key, and 3 batches


@pytest.mark.parametrize(
    ("variables", "greeting", "keys"),
    [
        ({}, "Keys  none: the API is open to everyone who can reach it", 0),
        ({"API_KEY_HASHES": access.digest(KEY).hex()}, "Keys  1 accepted", 1),
        ({"API_KEY_HASHES": f"{access.digest(KEY).hex()},{access.digest(NEXT_KEY).hex()}"}, "Keys  2 accepted", 2),
    ],
)
def test_the_start_shows_whether_the_api_is_open(
    serve: Start, variables: dict[str, str], greeting: str, keys: int
) -> None:
    """The greeting and the log contain the number of accepted keys."""
    service = serve(LOG_FORMAT="json", DRAIN_SECONDS="0", **variables)
    service.stop()
    (started,) = [line for line in lines.records(service.output) if line.get("event") == names.STARTED]

    assert greeting in service.output.splitlines()
    assert started[names.API_KEYS] == keys


def make_key(*name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "svc", "key", *name]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_new_key_comes_with_its_hash() -> None:
    """`python -m svc key` prints both and nothing else, and works with missing or wrong settings."""
    runs = [make_key(), make_key(API_KEY_HASHES="nonsense", PORT="x")]

    for done in runs:
        (_, key), (_, hashed) = (line.split() for line in done.stdout.splitlines())
        assert done.stdout == f"Key   {key}\nHash  {hashed}\n"
        assert (done.returncode, done.stderr) == (0, "")
        assert len(key) == 43  # 256 bits
        assert sha256(key.encode()).hexdigest() == hashed
    assert runs[0].stdout != runs[1].stdout


@pytest.mark.slow
def test_a_new_key_may_have_its_callers_name() -> None:
    """`python -m svc key NAME` prints the hash as API_KEY_HASHES takes it, and refuses what is not a name."""
    key, named = (line.split()[1] for line in make_key("billing").stdout.splitlines())
    refused = make_key("two words")

    assert [(made.hash, made.caller) for made in read({"API_KEY_HASHES": named}).api_key_hashes] == [
        (sha256(key.encode()).digest(), "billing")
    ]
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "a name has 1 to 32 letters, digits, '.', '_' or '-'" in refused.stderr


async def test_a_new_key_is_accepted_where_its_hash_is_configured(serve: Start) -> None:
    """API_KEY_HASHES takes the printed hash, and every worker accepts the key."""
    key, hashed = (line.split()[1] for line in make_key().stdout.splitlines())
    service = serve(API_KEY_HASHES=hashed, WORKERS="2")
    for status, headers in [(200, bearer(key)), (401, {})] * 20:
        # Each request has its own connection, so that both workers get some.
        async with ClientSession() as session, session.get(f"{service.url}/get/1", headers=headers) as response:
            assert response.status == status


def test_the_repr_of_settings_has_no_hashes() -> None:
    """Printed settings reveal no hash."""
    shown = repr(Settings(api_key_hashes=(ApiKey(access.digest(KEY), "caller"),)))

    assert access.digest(KEY).hex() not in shown
    assert repr(access.digest(KEY)) not in shown
