"""Invalid and unusual HTTP gets a problem or a closed connection, and never a 500."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svc.http.connection import MAX_LINE_BYTES
from tests.conftest import Client
from tests.patience import PATIENCE_SECONDS


async def send(api: Client, raw: bytes) -> bytes:
    """Sends bytes, and returns the response until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(raw)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    finally:
        writer.close()


CLOSE = b"Host: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"FETCH /getall HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /getall HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /getall HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /getall HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_LINE_BYTES + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_invalid_http_is_a_problem(api: Client, raw: bytes) -> None:
    """The parser's errors become problems with a request id, and close the connection."""
    response = await send(api, raw)
    head, _, body = response.partition(b"\r\n\r\n")

    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in head
    assert b"X-Request-Id" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize(
    ("version", "header", "expected"),
    [
        (b"1.1", b"", b""),
        (b"1.1", b"Connection: close\r\n", b"close"),
        (b"1.0", b"", b"close"),
        (b"1.0", b"Connection: keep-alive\r\n", b"keep-alive"),
    ],
)
async def test_the_caller_decides_whether_the_connection_stays_open(
    api: Client, version: bytes, header: bytes, expected: bytes
) -> None:
    """HTTP/1.1 keeps it open by default, and HTTP/1.0 closes it by default."""
    for path, end in ((b"/get/1", b"}\n"), (b"/getall?limit=2", b"]\n"), (b"/healthz", b"}\n")):
        raw = b"GET " + path + b" HTTP/" + version + b"\r\nHost: x\r\n" + header + b"\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(raw)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(end)
                if expected == b"close":
                    assert await reader.read() == b""
                else:
                    writer.write(raw)
                    assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()

        assert (b"\r\nConnection: " + expected in head) == bool(expected)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://elsewhere.example/get/1", b"200"),
        (b"/get/1#fragment", b"200"),
        (b"/get/1?", b"200"),
        (b"/get/1?x=%FF&%zz", b"400"),
        (b"/%67et/1", b"200"),
        (b"/get%2F1", b"404"),
        (b"/get%2f1", b"404"),
        (b"/get/1%2F", b"404"),
        (b"/get/%2F1", b"404"),
        (b"/docs/%2e%2e%2Fdocs.js", b"404"),
        (b"*", b"400"),
        (b"/\xff\xfe", b"400"),
        (b"/get/\xd9\xa3", b"400"),
        (b"/add?name=\xff&money=1", b"400"),
    ],
)
async def test_unusual_targets_have_a_response(api: Client, target: bytes, status: bytes) -> None:
    """Absolute URLs, fragments, and bytes outside ASCII have a definite result."""
    response = await send(api, b"GET " + target + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert response.split(b" ", 2)[1] == status


@pytest.mark.parametrize("method", [b"OPTIONS *", b"CONNECT x:80", b"TRACE /getall", b"PRI *"])
async def test_unknown_methods_are_refused(api: Client, method: bytes) -> None:
    """A method that no path has is a 4xx."""
    response = await send(api, method + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert response.split(b" ", 2)[1][:1] == b"4"


@pytest.mark.parametrize("name", [b"a\xffb", "Sofía".encode()])
async def test_raw_bytes_in_a_query_are_invalid_http(api: Client, name: bytes) -> None:
    """Bytes outside ASCII have to be percent-encoded, even where they are valid UTF-8."""
    response = await send(api, b"POST /add?name=" + name + b"&money=1 HTTP/1.1\r\n" + CLOSE + b"\r\n")

    assert response.split(b" ", 2)[1] == b"400"


async def test_an_invalid_chunked_body_is_a_problem(api: Client) -> None:
    """A body that does not match its headers is a 400."""
    head = b"POST /add HTTP/1.1\r\n" + CLOSE + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = await send(api, head + b"zz\r\n{}\r\n0\r\n\r\n")

    assert response.split(b" ", 2)[1] == b"400"


async def add(api: Client, head: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    """The response to a POST of the body, with these headers besides its length."""
    length = b"Content-Length: %d\r\n" % len(body)
    return await send(api, b"POST /add HTTP/" + version + b"\r\n" + CLOSE + head + length + b"\r\n" + body)


JSON_TYPE = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize("encoding", [b"identity", b"Identity", b"IDENTITY"])
async def test_a_body_that_is_not_compressed_may_have_an_encoding(api: Client, encoding: bytes) -> None:
    """The names of encodings have no case."""
    head = JSON_TYPE + b"Content-Encoding: " + encoding + b"\r\n"

    assert b" 201 Created\r\n" in await add(api, head, b'{"name": "a", "money": 1}')


async def test_json_may_start_with_a_byte_order_mark(api: Client) -> None:
    """Some editors and libraries write one, and a parser may ignore it (RFC 8259, section 8.1)."""
    assert b" 201 Created\r\n" in await add(api, JSON_TYPE, b'\xef\xbb\xbf{"name": "a", "money": 1}')


@pytest.mark.parametrize("expectation", [b"100-continue", b"other"])
async def test_http_1_0_has_no_expectations(api: Client, expectation: bytes) -> None:
    """Its callers do not know 100 Continue, and would take it for the response."""
    head = JSON_TYPE + b"Expect: " + expectation + b"\r\n"
    response = await add(api, head, b'{"name": "a", "money": 1}', b"1.0")

    assert response.startswith(b"HTTP/1.1 201 Created\r\n")


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/docs.js", "/openapi.json", "/healthz", "/readyz", "/version"])
async def test_unknown_query_fields_are_refused_on_every_path(api: Client, path: str) -> None:
    """A field that is misspelled, or sent to the wrong path, is not ignored silently anywhere."""
    for known in (path, "/get/1", "/getall"):
        async with api.get(f"{known}?verbose=1") as response:
            problem = await response.json()
            assert (response.status, problem["field"]) == (400, "verbose")


LINE = st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n"))
ESCAPED = st.binary(max_size=30).map(lambda raw: b"".join(b"%%%02X" % byte for byte in raw))
TARGET = st.one_of(
    LINE,
    st.builds(b"/get/%b".__mod__, ESCAPED),
    st.builds(b"/getall?%b=%b".__mod__, st.tuples(st.sampled_from([b"limit", b"after", b"%00"]), ESCAPED)),
    st.builds(b"/add?name=%b&money=%b".__mod__, st.tuples(ESCAPED, st.one_of(ESCAPED, st.just(b"1")))),
)
TYPES = st.sampled_from(
    [
        *(b"application/json", b"application/x-www-form-urlencoded", b"multipart/form-data"),
        *(b"text/plain; charset=\xff", b";"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "money", "id", ""]), inner),
)
BODY = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(b"name=%b&money=%b".__mod__, st.tuples(ESCAPED, LINE)),
)


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"]), target=TARGET, kind=TYPES, header=LINE, body=BODY)
async def test_no_input_is_a_server_error(
    api: Client, method: bytes, target: bytes, kind: bytes, header: bytes, body: bytes
) -> None:
    """Whatever bytes arrive, the status is below 500."""
    head = b"%b %b HTTP/1.1\r\n%bContent-Type: %b\r\n" % (method, target, CLOSE, kind)
    headers = b"X-Request-Id: %b\r\nIdempotency-Key: %b\r\nContent-Length: %d\r\n" % (header, header, len(body))
    response = await send(api, head + headers + b"\r\n" + body)

    assert 200 <= int(response.split(b" ", 2)[1]) < 500


async def test_pipelined_requests_are_answered_in_order(api: Client) -> None:
    """Two requests in one write get two responses."""
    get = b"GET /get/%d HTTP/1.1\r\nHost: x\r\n"
    response = await send(api, get % 1 + b"\r\n" + get % 2 + b"Connection: close\r\n\r\n")

    assert response.index(b"Andres") < response.index(b"Camilo")


@pytest.mark.parametrize("path", ["/get/1", "/getall", "/get/0", "/nowhere", "/healthz", "/", "/docs/docs.js"])
async def test_browsers_do_not_guess_the_type_of_a_response(api: Client, path: str) -> None:
    """A browser uses the Content-Type of every response, even where a name in it contains markup."""
    assert (await api.get(path)).headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/get/1", "/getall", "/getall?limit=1", "/get/0", "/add", "/healthz", "/"])
async def test_caches_do_not_store_responses(api: Client, path: str) -> None:
    """Names and amounts are only for the caller, and may change."""
    assert (await api.get(path)).headers["Cache-Control"] == "no-store"


async def test_responses_do_not_contain_versions(api: Client) -> None:
    """No Server header names the libraries."""
    assert "Server" not in (await api.get("/get/1")).headers
