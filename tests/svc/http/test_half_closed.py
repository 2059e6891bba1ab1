"""A caller who closes its sending side still gets the responses to what it has sent, and then the connection closes."""

import json
import socket
from collections.abc import Callable

import pytest

from tests.conftest import Client, Log, Owner
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.http import test_hostile as hostile

GET = b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
ADD = b"POST /add?name=half&money=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
POST = b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n"
BODY = b'{"name":"half","money":1} '


async def half_close(api: Client, *parts: bytes) -> bytes:
    """Sends the parts one by one, closes the sending side, and returns what arrives until the service closes."""
    async with hostile.connect(api.port) as caller:
        for part in parts:
            await hostile.let_service_read()
            caller[1].write(part)
        caller[1].write_eof()
        return await hostile.read_to_end(caller)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((ADD,), [201]),
        ((POST + BODY,), [201]),
        ((POST, BODY), [201]),
        ((GET * 3,), [200] * 3),
        ((GET * 3 + GET[:9],), [200] * 3),
        ((GET + b"nonsense\r\n\r\n",), [400]),
        ((GET + POST + BODY,), [200, 201]),
        ((POST + BODY[:9],), [400]),
        ((POST, BODY[:9]), [400]),
        ((GET + POST + BODY[:9],), [200, 400]),
        ((POST.replace(b"/add", b"/nowhere"),), [404]),
        ((GET[:9],), []),
        ((), []),
    ],
)
async def test_what_has_arrived_is_answered(api: Client, parts: tuple[bytes, ...], expected: list[int]) -> None:
    """A body whose rest can no longer arrive is a 400, and an incomplete head is no request."""
    responses = await half_close(api, *parts)

    assert hostile.statuses(responses) == expected


async def test_a_request_that_waits_for_the_database_is_answered(api: Client, owner: Owner, log: Log) -> None:
    """The add is stored, so its caller learns of it."""
    async with hostile.connect(api.port) as caller:
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            caller[1].write(ADD)
            await hostile.let_service_read()
            caller[1].write_eof()
            await hostile.let_service_read()
        response = await hostile.read_to_end(caller)
    (line,) = await hostile.logged(log, 1)

    assert hostile.statuses(response) == [201]
    assert line["status"] == 201


async def test_a_list_is_streamed_to_its_end(api: Client, owner: Owner) -> None:
    """The list is longer than what the buffers hold, and the caller has closed its side before it reads."""
    add = "INSERT INTO clients (name, money) SELECT repeat('x', 150), n FROM generate_series(1, 5000) n"
    await owner.execute(add)
    response = await half_close(api, b"GET /getall HTTP/1.0\r\n\r\n")

    assert len(json.loads(response.partition(b"\r\n\r\n")[2])) > 5000


def test_the_service_as_a_process_answers_too(serve: Callable[..., Service]) -> None:
    """It runs on uvloop, whose sockets have an implementation of their own."""
    service = serve()
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS) as caller:
        caller.sendall(GET + POST + BODY)
        caller.shutdown(socket.SHUT_WR)
        while chunk := caller.recv(65536):
            received += chunk

    assert hostile.statuses(received) == [200, 201]
