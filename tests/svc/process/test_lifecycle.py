"""Starting, draining and stopping, with one worker and with several; each test starts a process."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator

import psutil
import pytest
from aiohttp import ClientSession, TCPConnector

from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.process import server
from tests.conftest import Owner
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines

Start = Callable[..., Service]

LONG_DRAIN = "600"  # longer than any test waits


def status_of(url: str, method: str = "GET") -> int:
    """The status of one request on a new connection."""

    async def request() -> int:
        async with ClientSession() as session, session.request(method, url) as response:
            return response.status

    return asyncio.run(request())


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def accepts_connections(port: int) -> bool:
    """Whether a process listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def count_of(service: Service, event: str) -> int:
    """How often the service has logged an event."""
    return sum(record.get(names.EVENT) == event for record in lines.records(service.output))


def wait_until_ended(processes: Iterable[psutil.Process]) -> None:
    """Waits until processes have ended. Those whose parent was killed may stay zombies for a while."""

    def has_ended(process: psutil.Process) -> bool:
        try:
            return process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(lambda: all(has_ended(process) for process in processes))


@pytest.fixture
def default_sighup() -> Iterator[None]:
    """The tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGHUP, 1), (signal.SIGHUP, 2)], ids=lambda one: str(int(one))
)
async def test_a_signal_starts_the_drain(serve: Start, number: signal.Signals, workers: int) -> None:
    """While it drains, the service is not ready, but answers requests and closes their connections."""
    service = serve(DRAIN_SECONDS=LONG_DRAIN, WORKERS=str(workers))
    await asyncio.to_thread(wait_for, lambda: count_of(service, names.STARTED) == workers)
    async with ClientSession() as session:
        async with session.get(f"{service.url}/get/1") as before:
            assert before.headers.get("Connection") != "close"
        service.process.send_signal(number)
        await asyncio.to_thread(wait_for, lambda: count_of(service, names.STOPPING) == workers)
        async with session.get(f"{service.url}/readyz") as ready, session.get(f"{service.url}/get/1") as served:
            assert (ready.status, served.status) == (503, 200)
            assert served.headers["Connection"] == "close"


async def test_a_request_in_flight_is_completed(serve: Start, owner: Owner) -> None:
    """A request that waits for the database during the shutdown gets its response, and its connection is closed."""
    service = serve(DRAIN_SECONDS="0")
    async with ClientSession() as session, asyncio.timeout(PATIENCE_SECONDS):
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            add = asyncio.create_task(session.post(f"{service.url}/add", params={"name": "Late", "money": "1"}))
            while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
            service.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(wait_for, lambda: not accepts_connections(service.port))
            assert service.process.poll() is None
        response = await add

        assert (response.status, response.headers["Connection"]) == (201, "close")
        assert await asyncio.to_thread(service.process.wait, PATIENCE_SECONDS) == 0
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Late'") == 1


async def test_no_request_fails_while_the_service_drains(serve: Start) -> None:
    """Callers who use a connection until its response says to close it see no error."""
    service = serve(DRAIN_SECONDS=LONG_DRAIN)
    statuses: list[int] = []
    is_draining = False

    async def request_until_closed(session: ClientSession) -> None:
        while True:
            async with session.get(f"{service.url}/get/1") as response:
                statuses.append(response.status)
                if is_draining and response.headers.get("Connection") == "close":
                    return
                if len(statuses) > 100:
                    many.set()

    many = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS), ClientSession(connector=TCPConnector(limit=0)) as session:
        callers = [asyncio.create_task(request_until_closed(session)) for _ in range(32)]
        await many.wait()
        is_draining = True
        service.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*callers)

    assert set(statuses) == {200}


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_caller_who_has_connected_is_cut_at_the_end_of_the_drain(serve: Start, workers: str) -> None:
    """Of 64 callers with a new connection for each request, each gets its response, or cannot connect.

    The service waits 2 s for the last of them, so one that needed longer itself, on a busy machine, may be cut.
    """
    service = serve(DRAIN_SECONDS="0.5", WORKERS=workers)
    statuses: list[int] = []
    cut: list[bytes] = []
    many = asyncio.Event()

    async def request_until_refused() -> None:
        while True:
            started = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                try:
                    writer.write(b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    response = await reader.read()
                finally:
                    writer.close()
            except ConnectionRefusedError:
                return
            except OSError as error:
                response = repr(error).encode()
            if response.startswith(b"HTTP/1.1 200 OK\r\n"):
                statuses.append(200)
            elif time.monotonic() - started < server._MAX_LAST_SECONDS:
                cut.append(response)
            if len(statuses) > 500:
                many.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        callers = [asyncio.create_task(request_until_refused()) for _ in range(64)]
        await many.wait()
        service.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*callers)

    assert cut == []
    assert await asyncio.to_thread(service.process.wait, PATIENCE_SECONDS) == 0


def test_after_the_drain_idle_connections_are_closed(serve: Start) -> None:
    """An idle connection does not delay the end of the process, whose status is 0."""
    service = serve(DRAIN_SECONDS="0.3")
    with socket.create_connection(("127.0.0.1", service.port)) as idle:
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started >= 0.3
        assert idle.recv(1) == b""


def test_ctrl_c_ends_without_a_drain(serve: Start) -> None:
    """SIGINT does not wait for load balancers."""
    service = serve(DRAIN_SECONDS=LONG_DRAIN)

    assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_at_once(serve: Start, workers: int) -> None:
    """A second SIGTERM ends the drain and all processes."""
    service = serve(DRAIN_SECONDS=LONG_DRAIN, WORKERS=str(workers))
    family = service.workers()
    wait_for(lambda: count_of(service, names.STARTED) == workers)
    service.process.send_signal(signal.SIGTERM)
    wait_for(lambda: count_of(service, names.STOPPING) == workers)
    service.stop()

    wait_until_ended(family)


def test_workers_share_the_port_and_are_replaced(serve: Start) -> None:
    """A worker that is killed is replaced; SIGTERM to the parent ends all workers."""
    service = serve(WORKERS="2", DRAIN_SECONDS="0")
    wait_for(lambda: count_of(service, names.STARTED) == 2)
    first = service.workers()
    assert len(first) == 2

    first[0].kill()
    wait_for(lambda: count_of(service, names.STARTED) == 3)
    family = service.workers()

    assert len(family) == 2
    assert first[0] not in family
    wait_for(lambda: {status_of(f"{service.url}/readyz") for _ in range(20)} == {200})
    assert service.stop() == 0
    wait_until_ended(family)


def test_workers_end_with_their_parent(serve: Start) -> None:
    """A parent that is killed leaves no worker."""
    service = serve(WORKERS="2", DRAIN_SECONDS="0")
    family = service.workers()
    service.process.kill()
    service.process.wait()

    wait_until_ended(family)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_an_error(database_settings: DatabaseSettings, workers: str) -> None:
    """The service ends with status 1 and a message without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        service = Service({"DATABASE_URL": database_settings.dsn, "PORT": port, "WORKERS": workers})
        try:
            assert service.process.wait(PATIENCE_SECONDS) == 1
            assert f"cannot listen on 127.0.0.1 port {port}: " in service.output
            assert "Traceback" not in service.output
        finally:
            service.end()


def test_the_service_starts_without_its_database(serve: Start) -> None:
    """While the database is unavailable, the service runs and responds with 503."""
    service = serve(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert status_of(f"{service.url}/healthz") == 200
    assert status_of(f"{service.url}/readyz") == 503
    assert status_of(f"{service.url}/get/1") == 503


def test_the_output_is_complete_and_has_nothing_else(serve: Start) -> None:
    """From start to end, the service prints the greeting, its log lines and its metrics, and no warning."""
    service = serve(DRAIN_SECONDS="0")
    assert status_of(f"{service.url}/get/1") == 200
    service.stop()
    greeting, log = service.output.splitlines()[:4], service.output.splitlines()[4:]

    assert [line.split()[0] for line in greeting] == ["API", "Docs", "Keys", "Data"]
    records = [json.loads(line) for line in log]
    events = [record[names.EVENT] for record in records if "_aws" not in record]
    # A request is logged up to 20 ms after its response, and the signal may arrive in between.
    late = [names.STARTED, names.STOPPING, names.REQUEST, names.STOPPED]
    assert events in (late, [names.STARTED, names.REQUEST, names.STOPPING, names.STOPPED]), service.output
    assert lines.documents(service.output) == [record for record in records if "_aws" in record]
