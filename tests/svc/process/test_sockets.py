"""The addresses that the service listens on, IPv4 and IPv6, and the end of listening."""

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from svc.process import sockets
from tests.missing import missing
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.process.test_lifecycle import wait_for

CALLERS = 600  # aiohttp's own default lets 128 wait
Start = Callable[..., Service]
Listen = Callable[[str], list[socket.socket]]


@pytest.fixture
def _needs_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        missing(f"this machine has no IPv6: {error}")


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listens on a host and any free port; the sockets are closed with the test."""
    opened: list[socket.socket] = []

    def on(host: str) -> list[socket.socket]:
        opened.extend(sockets.listen(host, 0))
        return opened

    yield on
    sockets.close(opened)


def reaches(address: str, port: int) -> bool:
    """Whether a process listens on the address."""
    try:
        socket.create_connection((address, port), timeout=PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.usefixtures("_needs_ipv6")
@pytest.mark.parametrize(
    ("host", "is_on_ipv4", "is_on_ipv6"),
    [("::", True, True), ("0.0.0.0", True, False), ("::1", False, True), ("127.0.0.1", True, False)],
)
def test_a_host_has_its_families(listen: Listen, host: str, is_on_ipv4: bool, is_on_ipv6: bool) -> None:
    """`::` is each address of this machine, IPv6 and IPv4; any other address is only itself."""
    (listening,) = listen(host)
    port = listening.getsockname()[1]

    assert (reaches("127.0.0.1", port), reaches("::1", port)) == (is_on_ipv4, is_on_ipv6)


def test_a_name_is_each_of_its_addresses(listen: Listen) -> None:
    """All of them have the same port."""
    expected = {found[4][0] for found in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    names = [listening.getsockname() for listening in listen("localhost")]

    assert {name[0] for name in names} == expected
    assert len({name[1] for name in names}) == 1


@pytest.mark.usefixtures("_needs_ipv6")
@pytest.mark.parametrize("used", ["127.0.0.1", "::1"])
def test_a_port_in_use_in_one_family_is_an_error(used: str) -> None:
    """The service does not start with one family only."""
    family = socket.AF_INET6 if ":" in used else socket.AF_INET
    with socket.create_server((used, 0), family=family) as other, pytest.raises(sockets.CannotListen) as raised:
        sockets.listen("::", other.getsockname()[1])

    assert "cannot listen on :: port " in str(raised.value)


@pytest.mark.usefixtures("_needs_ipv6")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_callers_of_both_families_are_served(serve: Start, workers: str) -> None:
    """With HOST=::, an IPv4 caller is logged with its IPv4 address."""
    service = serve(HOST="::", WORKERS=workers, DRAIN_SECONDS="0")
    callers = ["127.0.0.1", "::1"]
    for address in callers:
        with socket.create_connection((address, service.port), timeout=PATIENCE_SECONDS) as caller:
            caller.sendall(b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert caller.recv(65536).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: len(lines.requests(service.output)) == len(callers))

    assert sorted(line["client"] for line in lines.requests(service.output)) == callers


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")
def test_handshakes_are_ignored_and_open_connections_are_not(listen: Listen) -> None:
    """A connection in the accept queue keeps its place, and its bytes; a new one is not established."""
    (listening,) = listen("127.0.0.1")
    address = listening.getsockname()
    with socket.create_connection(address) as early, socket.socket() as late:
        assert sockets.count_unaccepted(listening) == 1
        sockets.ignore_handshakes(listening)
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(address)
        early.sendall(b"request")
        with listening.accept()[0] as accepted:
            assert sockets.count_unaccepted(listening) == 0
            assert accepted.recv(100) == b"request"


@pytest.mark.slow
def test_hundreds_of_callers_may_connect_at_the_same_moment(serve: Start) -> None:
    """The kernel opens their connections while the service is too busy to accept them."""
    service = serve()
    service.process.send_signal(signal.SIGSTOP)
    address = "127.0.0.1", service.port
    with ExitStack() as callers:
        callers.callback(service.process.send_signal, signal.SIGCONT)
        for _ in range(CALLERS):
            callers.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
