"""Starting, draining, stopping; workers; a real process each time."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector

from ops.common.process import Service
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Owner
from tests.svc.logs import lines

Start = Callable[..., Service]


def status_of(url: str, method: str = "GET") -> int:
    """One request on a connection of its own."""

    async def ask() -> int:
        async with ClientSession() as session, session.request(method, url) as answer:
            return answer.status

    return asyncio.run(ask())


async def test_sigterm_drains(serve: Start) -> None:
    """After SIGTERM: not ready, still serving with Connection: close for DRAIN_SECONDS, then gone with status 0."""
    service = serve(DRAIN_SECONDS="1")
    async with ClientSession() as session:
        async with session.get(f"{service.url}/get/1") as before:
            assert before.headers.get("Connection") != "close"
        service.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        async with session.get(f"{service.url}/readyz") as ready, session.get(f"{service.url}/get/1") as served:
            assert (ready.status, served.status) == (503, 200)
            assert served.headers["Connection"] == "close"
        assert await asyncio.to_thread(service.process.wait, 10) == 0
        with pytest.raises(ClientConnectionError):
            await session.get(f"{service.url}/healthz")


async def test_what_is_in_flight_is_finished(serve: Start, owner: Owner) -> None:
    """A request that waits for the database while the service stops gets its answer, and its connection is closed."""
    service = serve(DRAIN_SECONDS="0")
    async with ClientSession() as session:
        async with owner.transaction():
            await owner.execute("LOCK TABLE clients")
            add = asyncio.create_task(session.post(f"{service.url}/add", params={"name": "Late", "money": "1"}))
            await asyncio.sleep(0.5)
            service.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert service.process.poll() is None
        answer = await add

        assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert await asyncio.to_thread(service.process.wait, 10) == 0
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Late'") == 1


async def test_no_request_fails_while_the_service_drains(serve: Start) -> None:
    """Under load, SIGTERM costs no answer to callers who go elsewhere when told."""
    service = serve(DRAIN_SECONDS="1")
    statuses: list[int] = []
    draining = asyncio.Event()

    async def ask(session: ClientSession) -> None:
        while True:
            async with session.get(f"{service.url}/get/1") as answer:
                statuses.append(answer.status)
                if draining.is_set() and answer.headers.get("Connection") == "close":
                    return

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        callers = [asyncio.create_task(ask(session)) for _ in range(32)]
        await asyncio.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        draining.set()
        await asyncio.gather(*callers)

    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert await asyncio.to_thread(service.process.wait, 10) == 0


def test_ctrl_c_waits_for_no_balancer(serve: Start) -> None:
    """SIGINT stops without the drain's wait."""
    service = serve(DRAIN_SECONDS="60")

    assert service.stop(signal.SIGINT, seconds=5) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_at_once(serve: Start, workers: str) -> None:
    """Who asks twice does not wait for the drain, and nothing is left."""
    service = serve(DRAIN_SECONDS="60", WORKERS=workers)
    family = service.workers()
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    service.stop(signal.SIGTERM, seconds=5)

    assert not psutil.wait_procs(family, 5)[1]


def test_workers_share_the_port_and_are_replaced(serve: Start) -> None:
    """WORKERS=2 forks two; one that is killed is replaced; the parent's SIGTERM ends them all."""
    service = serve(WORKERS="2", DRAIN_SECONDS="0")
    first = service.workers()
    assert len(first) == 2

    first[0].kill()
    end = time.monotonic() + 10
    while len(service.workers()) < 2 or first[0] in service.workers():
        assert time.monotonic() < end, service.output
        time.sleep(0.05)
    family = service.workers()
    time.sleep(1.5)  # its short life was followed by a pause, and then it starts

    assert {status_of(f"{service.url}/readyz") for _ in range(20)} == {200}
    assert service.stop() == 0
    assert not psutil.wait_procs(family, 5)[1]


def test_workers_do_not_outlive_their_parent(serve: Start) -> None:
    """A parent that is killed leaves no worker behind."""
    service = serve(WORKERS="2", DRAIN_SECONDS="0")
    family = service.workers()
    service.process.kill()
    service.process.wait()

    assert not psutil.wait_procs(family, 10)[1]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_said_to_be(database_settings: DatabaseSettings, workers: str) -> None:
    """A taken port ends the start with a sentence and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        service = Service({"DATABASE_URL": database_settings.dsn, "PORT": port, "WORKERS": workers})
        try:
            assert service.process.wait(20) == 1
            assert f"cannot listen on 127.0.0.1 port {port}: " in service.output
            assert "Traceback" not in service.output
        finally:
            service.end()


def test_the_service_starts_without_its_database(serve: Start) -> None:
    """A database that is away is no reason not to start: the service says 503 until it is there."""
    service = serve(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert status_of(f"{service.url}/healthz") == 200
    assert status_of(f"{service.url}/readyz") == 503
    assert status_of(f"{service.url}/get/1") == 503


def test_an_idle_connection_does_not_hold_up_the_stop(serve: Start) -> None:
    """A caller who keeps a connection and says nothing is closed on."""
    service = serve(DRAIN_SECONDS="0")
    with socket.create_connection(("127.0.0.1", service.port)) as idle:
        assert service.stop(seconds=5) == 0
        assert idle.recv(1) == b""


def test_no_output_is_lost_or_odd(serve: Start) -> None:
    """A whole life prints the greeting, its four lines and its metrics, and no warning or traceback."""
    service = serve(DRAIN_SECONDS="0")
    assert status_of(f"{service.url}/get/1") == 200
    service.stop()
    greeting, log = service.output.splitlines()[:4], service.output.splitlines()[4:]

    assert [line.split()[0] for line in greeting] == ["API", "Docs", "Keys", "Data"]
    records = [json.loads(line) for line in log]
    events = [record[names.EVENT] for record in records if "_aws" not in record]
    # A request's line is up to 20 ms late, so it may stand behind the signal that came right after its answer.
    late = [names.STARTED, names.STOPPING, names.REQUEST, names.STOPPED]
    assert events in (late, [names.STARTED, names.REQUEST, names.STOPPING, names.STOPPED]), service.output
    assert lines.documents(service.output) == [record for record in records if "_aws" in record]
