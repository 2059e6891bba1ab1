"""A route handles a bounded number of requests at once, and callers take turns where more of them wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import BaseTestServer, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from svc import app
from svc.answers import run
from svc.errors import ServiceBusy
from svc.http.access import Access, ApiKey, digest
from svc.http.lifecycle import Lifecycle
from svc.http.messages import Request
from svc.http.proxies import Proxies
from svc.http.slots import Slots, give_up_slot, without_slot
from svc.logs import names
from svc.postgres.settings import DatabaseSettings
from svc.process.settings import ServerSettings
from svc.settings import Settings
from tests.conftest import Client, Log, Owner, ServedApp
from tests.patience import PATIENCE_SECONDS, PATIENT_QUEUE
from tests.service import Service
from tests.svc.http import test_hostile as hostile
from tests.svc.postgres.locks import wait_for_locks

NEVER = 3600.0  # seconds


@dataclass
class FakeRequest:
    """What slots know of a request."""

    caller: str
    is_connected: bool = True
    slots: Slots | None = None
    slot_seconds: float = 0.0


def new_slots(slots: int = 1, max_queue: int = 100, max_wait_seconds: float = NEVER) -> Slots:
    return Slots(slots, max_queue, max_wait_seconds, lambda request: request.caller)


class Handled:
    """Requests, in the order in which they got their slot. Each holds it until it is ended."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self._holding: list[Request] = []

    async def start(self, caller: str, is_connected: bool = True) -> "asyncio.Task[None]":
        """Starts a request, which takes a slot or waits for one."""
        task = asyncio.create_task(self._handle(cast(Request, FakeRequest(caller, is_connected))))
        await settle()
        return task

    async def _handle(self, request: Request) -> None:
        try:
            await self.slots.take(request)
        except asyncio.CancelledError:
            give_up_slot(request)  # as Dispatcher does at the end of each request
            raise
        self.order.append(request.caller)
        self._holding.append(request)

    async def end(self, count: int = 1) -> None:
        """Ends the requests that have held their slots for longest."""
        for _ in range(count):
            give_up_slot(self._holding.pop(0))
            await settle()


async def settle() -> None:
    """Lets all tasks run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_request_waits_without_a_task() -> None:
    """In a crowd most requests wait, and a task for each would be a large part of their CPU time."""
    slots = new_slots()
    first, second = (cast(Request, FakeRequest(caller)) for caller in ("a", "b"))
    await slots.take(first)
    handling = slots.take(second)
    tasks = [run(handling, lambda: tasks.append(run(handling, pytest.fail)))]
    give_up_slot(first)
    await settle()

    assert second.slots is slots
    assert tasks == [None, None]


async def test_freed_slots_go_to_callers_in_turn() -> None:
    handled = Handled(new_slots())
    for caller in ("greedy",) * 5 + ("ann",) * 2 + ("bob",):
        await handled.start(caller)
    await handled.end(8)
    assert handled.order == ["greedy", "greedy", "ann", "bob", "greedy", "ann", "greedy", "greedy"]
    assert handled.slots.free == 1


async def test_as_many_requests_as_slots_are_handled_at_once() -> None:
    handled = Handled(new_slots(slots=3))
    for _ in range(5):
        await handled.start("ann")
    assert len(handled.order) == 3
    await handled.end(5)
    assert (len(handled.order), handled.slots.free) == (5, 3)


async def test_who_waits_too_long_is_refused() -> None:
    handled = Handled(new_slots(max_wait_seconds=0.05))
    first, second = await handled.start("ann"), await handled.start("bob")
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ServiceBusy):
            await second
    await handled.end()
    await handled.start("bob")  # the slot of the first, which is free
    assert (first.done(), handled.order) == (True, ["ann", "bob"])


async def test_a_caller_may_have_so_many_waiting_requests() -> None:
    handled = Handled(new_slots(max_queue=2))
    waiting = [await handled.start("greedy") for _ in range(4)]
    assert [task.done() for task in waiting] == [True, False, False, True]
    assert isinstance(waiting[3].exception(), ServiceBusy)
    other = await handled.start("ann")
    assert not other.done()
    await handled.end(4)
    assert handled.order == ["greedy", "greedy", "ann", "greedy"]


async def test_no_slot_is_lost_to_who_left() -> None:
    handled = Handled(new_slots())
    await handled.start("ann")
    gone = await handled.start("bob", is_connected=False)
    cancelled, last = await handled.start("carol"), await handled.start("dave")
    cancelled.cancel()
    await settle()
    await handled.end()
    assert isinstance(gone.exception(), ConnectionError)
    assert (last.done(), handled.order) == (True, ["ann", "dave"])


async def test_a_request_that_is_cancelled_as_it_gets_its_slot_passes_it_on() -> None:
    handled = Handled(new_slots())
    await handled.start("ann")
    cancelled, last = await handled.start("bob"), await handled.start("carol")
    give_up_slot(handled._holding.pop())
    cancelled.cancel()  # before it runs
    await settle()
    assert (cancelled.cancelled(), last.done(), handled.order) == (True, True, ["ann", "carol"])


async def test_who_waits_for_its_caller_leaves_its_slot_to_others() -> None:
    handled = Handled(new_slots())
    reading = cast(Request, FakeRequest("slow"))
    await handled.slots.take(reading)
    async with without_slot(reading):
        await handled.start("ann")
        assert handled.order == ["ann"]
        freed = asyncio.get_running_loop().call_later(0.01, lambda: give_up_slot(handled._holding.pop()))
    assert (reading.slots, freed.cancelled(), handled.slots.free) == (handled.slots, False, 0)
    assert reading.slot_seconds > 0


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "cancel", "leave"]), st.sampled_from("abc")), max_size=60))
def test_slots_are_conserved(steps: list[tuple[str, str]]) -> None:
    """Whatever happens, no slot is lost, none is given twice, and no one waits while one is free."""

    async def run() -> None:
        handled = Handled(new_slots(slots=2))
        tasks: list[tuple[asyncio.Task[None], FakeRequest]] = []
        for action, caller in steps:
            waiting = [each for each in tasks if not each[0].done()]
            if action == "start":
                request = FakeRequest(caller)
                tasks.append((asyncio.create_task(handled._handle(cast(Request, request))), request))
            elif action == "end" and handled._holding:
                give_up_slot(handled._holding.pop())
            elif action == "cancel" and waiting:
                waiting[0][0].cancel()
            elif action == "leave" and waiting:
                waiting[-1][1].is_connected = False
            if ord(caller) % 2:  # several steps in one turn of the event loop, too
                await settle()
        await settle()
        assert len(handled._holding) + handled.slots.free == 2
        assert all(task.done() for task, _ in tasks) or handled.slots.free == 0
        while handled._holding:
            await handled.end()
        assert handled.slots.free == 2
        results = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert all(each is None or isinstance(each, ConnectionError | asyncio.CancelledError) for each in results)

    asyncio.run(run())


@pytest.fixture
async def narrow(
    database_settings: DatabaseSettings,
    lifecycle: Lifecycle,
    log: Log,
    aiohttp_client: Callable[[BaseTestServer], Awaitable[Client]],
) -> AsyncIterator[Client]:
    """A client of a service that handles one request of each route at once, and lets two wait."""
    settings = Settings(ServerSettings(host="0.0.0.0"), max_concurrent=1, max_queue=2, database=database_settings)
    async with app.build(settings, lifecycle, log.writer) as server:
        client = await aiohttp_client(ServedApp(server))
        yield client
        await client.close()


@asynccontextmanager
async def stuck_add(api: Client, owner: Owner) -> AsyncIterator["asyncio.Task[ClientResponse]"]:
    """An add that waits for a lock of its table while the context is open."""
    async with owner.transaction():
        await owner.execute("LOCK TABLE clients IN SHARE MODE")
        add = asyncio.create_task(api.post("/add?name=Ann&money=1"))
        await wait_for_locks(owner, 1)
        yield add
        assert not add.done()


async def test_no_route_waits_for_another(narrow: Client, owner: Owner) -> None:
    """While an add holds the only slot of adds, everything else is answered: reads, probes, refusals."""
    async with stuck_add(narrow, owner) as add:
        for path in ("/get/1", "/getall", "/healthz", "/readyz", "/version", "/openapi.json"):
            assert (await narrow.get(path)).status == 200
        assert (await narrow.get("/nowhere")).status == 404
    assert (await add).status == 201


async def test_a_wait_for_a_slot_is_in_the_log(
    narrow: Client, owner: Owner, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, queued = Slots.queue, asyncio.Event()

    async def record(slots: Slots, request: Request) -> None:
        queued.set()
        await queue(slots, request)

    monkeypatch.setattr(Slots, "queue", record)
    async with stuck_add(narrow, owner) as first:
        second = asyncio.create_task(narrow.post("/add?name=Bob&money=1"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await queued.wait()
    assert [(await first).status, (await second).status] == [201, 201]
    logged: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(logged) < 2:  # lines are collected for 20 ms
            await asyncio.sleep(0.01)
            logged += [line for line in log.read() if line.get(names.EVENT) == names.REQUEST]
    assert [names.SLOT_MS in line for line in logged] == [False, True]
    assert 0 < logged[1][names.SLOT_MS] <= logged[1][names.DURATION_MS]


async def test_who_may_not_wait_gets_503(narrow: Client, owner: Owner) -> None:
    async with stuck_add(narrow, owner) as first:
        waiting = [asyncio.create_task(narrow.post(f"/add?name=Carol&money={number}")) for number in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        refused = await done.pop()
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert (await refused.json())["title"] == "Service busy"
    statuses = sorted([(await first).status, *[(await task).status for task in waiting]])
    assert statuses == [201, 201, 201, 503]
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Carol'") == 2


ADD = b"POST /add?name=Dora&money=%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /get/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
WITH_BODY = (
    b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n",
    b'{"name":"Dora","money":"2"} ',
)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((ADD % 1, GET, ADD % 2), [201, 200, 201]),
        ((ADD % 1 + GET + ADD % 2,), [201, 200, 201]),
        ((GET + ADD % 1, ADD % 2), [200, 201, 201]),
        ((*WITH_BODY, ADD % 3), [201, 201]),
        ((ADD % 1, b"nonsense\r\n\r\n"), [201, 400]),
        ((ADD % 1, GET[:9], GET[9:]), [201, 200]),
        (
            (ADD % 1, GET.replace(b"Host", b"Connection: upgrade\r\nUpgrade: x\r\nHost") + GET, ADD % 2),
            [201, 200, 200, 201],
        ),
    ],
)
async def test_what_follows_a_request_that_waits_waits_behind_it(
    narrow: Client, owner: Owner, parts: tuple[bytes, ...], expected: list[int]
) -> None:
    """However it arrives, and also where the caller closes its side meanwhile."""
    async with hostile.connect(narrow.port) as caller:
        async with stuck_add(narrow, owner) as first:
            for part in parts:
                caller[1].write(part)
                await hostile.let_service_read()
            caller[1].write_eof()
            await hostile.let_service_read()
        assert (await first).status == 201
        assert hostile.statuses(await hostile.read_to_end(caller)) == expected


async def test_who_leaves_while_its_request_waits_is_in_the_log(narrow: Client, owner: Owner, log: Log) -> None:
    async with stuck_add(narrow, owner) as first:
        async with hostile.connect(narrow.port) as caller:
            caller[1].write(ADD % 4711)
            await hostile.let_service_read()
            hostile.reset_at_end(caller)
        waiting = asyncio.create_task(narrow.post("/add?name=Bob&money=1"))
    assert [(await first).status, (await waiting).status] == [201, 201]
    (left,) = [line for line in await hostile.logged(log, 3) if line["status"] == 499]
    assert 0 < left[names.SLOT_MS] <= left[names.DURATION_MS]
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE money = 4711") == 0


async def test_who_waits_when_the_service_stops_is_answered(serve: Callable[..., Service], owner: Owner) -> None:
    service = serve(**PATIENT_QUEUE, MAX_CONCURRENT="1", DRAIN_SECONDS="0")
    responses: list[int] = []

    async def add(number: int) -> None:
        async with hostile.connect(service.port) as caller:
            caller[1].write(ADD % number)
            responses.extend(hostile.statuses(await hostile.read_to_end(caller)))

    async with owner.transaction():
        await owner.execute("LOCK TABLE clients IN SHARE MODE")
        adds = [asyncio.create_task(add(number)) for number in range(5)]
        await wait_for_locks(owner, 1)
        service.process.terminate()
        await hostile.until(lambda: names.STOPPING in service.output)
    await asyncio.gather(*adds)
    assert responses == [201] * 5
    assert await asyncio.to_thread(service.process.wait, PATIENCE_SECONDS) == 0


async def test_who_sends_a_body_slowly_holds_no_slot(narrow: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", narrow.port)
    head = b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n"
    writer.write(head + b'{"name": "Slow",')
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.sleep(0.05)
        assert (await narrow.post("/add?name=Quick&money=1")).status == 201
        writer.write(b' "money": "1"}')
        assert b" 201 " in await reader.readline()
    writer.close()


def test_a_caller_is_known_by_its_key_or_else_by_its_network() -> None:
    access = Access([ApiKey(digest("correct-horse"), "billing")])

    def caller(key: str) -> str:
        return access.caller(make_mocked_request("GET", "/", {"Authorization": f"Bearer {key}"}))  # type: ignore[arg-type]

    assert (caller("correct-horse"), caller("another")) == ("billing", "")
    assert access.caller(make_mocked_request("GET", "/")) == ""  # type: ignore[arg-type]
    assert Access([]).caller(make_mocked_request("GET", "/")) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "network"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("", "")],
)
def test_the_addresses_of_an_ipv6_network_are_one_caller(peer: str, network: str) -> None:
    request = make_mocked_request("GET", "/")
    request.peer = peer
    assert Proxies([]).caller(request) == network  # type: ignore[arg-type]
