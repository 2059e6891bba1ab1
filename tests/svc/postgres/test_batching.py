"""Natural batching: its rules without a database, and its promises on PostgreSQL."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from aiohttp import ClientSession

from svc.clients.model import NewClient
from svc.clients.store import Added, Store, _Add
from svc.errors import DatabaseBusy, DatabaseUnavailable, KeyReused, QueryTimedOut, RowRefused
from svc.postgres import database
from svc.postgres.batching import Batcher, Limits
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Owner
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.postgres.locks import wait_for_locks

LIMITS = Limits(
    max_in_flight=1,
    max_batch_size=128,
    large_batch_size=128,
    max_round_trip_seconds=60,
    max_wait_seconds=60,
    deadline_seconds=120,
)
ADDS = 5_000
MAX_CALLS = 64


class Doubler:
    """A fake statement whose result for a number is its double. It records its batches, and waits for `go`.

    Attributes:
        batches: the batches that were sent to it.
        go: lets the batches finish.
        refused: the numbers whose batches fail.
        error: what they fail with.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.refused: set[int] = set()
        self.error: type[Exception] = RowRefused

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.go.wait()
        if self.refused & set(items):
            raise self.error
        return [2 * item for item in items]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


async def settle() -> None:
    """Lets the tasks run until each waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_items_that_arrive_during_a_round_trip_share_the_next_batch(doubler: Doubler) -> None:
    """The first item is sent at once and alone; those that arrive during its round trip share a batch."""
    batcher = Batcher("test", doubler, LIMITS)
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    others = [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 4)]
    await settle()
    doubler.go.set()

    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert doubler.batches == [[1], [2, 3, 4]]


async def test_equal_items_in_an_unsent_batch_are_sent_once(doubler: Doubler) -> None:
    """Equal items share a place in the batch, and each caller gets the result."""
    batcher = Batcher("test", doubler, LIMITS)
    calls = [asyncio.create_task(batcher.submit(1))]
    await settle()
    calls += [asyncio.create_task(batcher.submit(number)) for number in (2, 2, 2)]
    await settle()
    doubler.go.set()

    assert await asyncio.gather(*calls) == [2, 4, 4, 4]
    assert doubler.batches == [[1], [2]]


async def test_an_item_does_not_join_a_batch_that_was_sent(doubler: Doubler) -> None:
    """An item is sent again even if an equal one is in flight, whose result may be older than this item."""
    batcher = Batcher("test", doubler, LIMITS)
    calls = [asyncio.create_task(batcher.submit(1))]
    await settle()
    calls.append(asyncio.create_task(batcher.submit(1)))
    await settle()
    doubler.go.set()
    await asyncio.gather(*calls)

    assert doubler.batches == [[1], [1]]


async def test_at_most_max_in_flight_batches_are_in_flight(doubler: Doubler) -> None:
    """As many full batches as allowed are in flight, none larger than allowed, and none at the end."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_batch_size=2, max_in_flight=3))
    batcher._round_trip_seconds = 10
    calls = [asyncio.create_task(batcher.submit(number)) for number in range(7)]
    await settle()
    assert doubler.batches == [[0, 1], [2, 3], [4, 5]]

    doubler.go.set()
    await asyncio.gather(*calls)
    assert doubler.batches[3:] == [[6]]
    assert not batcher._in_flight


async def test_one_sender_is_enough_while_it_keeps_up(doubler: Doubler) -> None:
    """While a batch is in flight for no longer than usual, further items wait for the next batch."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_in_flight=3))
    batcher._round_trip_seconds = 10
    calls = [asyncio.create_task(batcher.submit(1))]
    await settle()
    calls += [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
    await settle()
    assert doubler.batches == [[1]]

    doubler.go.set()
    await asyncio.gather(*calls)
    assert doubler.batches == [[1], [2, 3]]


async def test_a_sender_that_is_no_longer_needed_ends() -> None:
    """Two senders start for two full batches; the first to finish leaves the few waiting items to the other."""
    gates = {1: asyncio.Event(), 3: asyncio.Event(), 5: asyncio.Event()}
    batches: list[list[int]] = []

    async def send(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        await gates[items[0]].wait()
        return list(items)

    batcher = Batcher("test", send, replace(LIMITS, max_batch_size=2, max_in_flight=2))
    batcher._round_trip_seconds = 10
    calls = [asyncio.create_task(batcher.submit(number)) for number in (1, 2, 3, 4, 5)]
    await settle()
    gates[1].set()
    await settle()
    assert batches == [[1, 2], [3, 4]]

    gates[3].set()
    await settle()
    assert batches == [[1, 2], [3, 4], [5]]
    gates[5].set()
    assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5]


async def test_a_stuck_batch_does_not_delay_later_items() -> None:
    """While one batch takes much longer than usual, another sender sends all items that arrive."""
    release_first = asyncio.Event()

    async def send(items: Sequence[int]) -> list[int]:
        if 1 in items:
            await release_first.wait()
        await asyncio.sleep(0)
        return [2 * item for item in items]

    batcher = Batcher("test", send, replace(LIMITS, max_in_flight=2))
    batcher._round_trip_seconds = 0.001
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await asyncio.gather(*(batcher.submit(number) for number in (2, 3, 4))) == [4, 6, 8]
        assert await batcher.submit(5) == 10
    assert not first.done()

    release_first.set()
    assert await first == 2
    assert not batcher._in_flight


async def test_an_item_behind_a_stuck_batch_is_sent_without_a_further_item() -> None:
    """A timer starts another sender once the batch in flight has taken too long."""
    never = asyncio.Event()

    async def send(items: Sequence[int]) -> list[int]:
        if 1 in items:
            await never.wait()
        return [2 * item for item in items]

    batcher = Batcher("test", send, replace(LIMITS, max_in_flight=2))
    batcher._round_trip_seconds = 0.01
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await batcher.submit(2) == 4
    first.cancel()


async def test_only_the_item_at_fault_fails(doubler: Doubler) -> None:
    """A failed batch is split until the item at fault is alone; all other items get their results."""
    batcher = Batcher("test", doubler, LIMITS)
    doubler.refused = {3, 6}
    doubler.go.set()
    results = await asyncio.gather(*(batcher.submit(number) for number in range(8)), return_exceptions=True)

    assert [result for result in results if isinstance(result, int)] == [0, 2, 4, 8, 10, 14]
    assert [type(results[number]) for number in (3, 6)] == [RowRefused, RowRefused]


@pytest.mark.parametrize("error", [DatabaseUnavailable, ValueError])
async def test_any_other_error_fails_the_whole_batch_at_once(doubler: Doubler, error: type[Exception]) -> None:
    """Where no item is at fault, nothing is sent again, since a write may have happened."""
    batcher = Batcher("test", doubler, LIMITS)
    doubler.refused, doubler.error = {3}, error
    doubler.go.set()
    results = await asyncio.gather(*(batcher.submit(number) for number in range(8)), return_exceptions=True)

    assert {type(result) for result in results} == {error}
    assert len(doubler.batches) == 1


@pytest.mark.parametrize("results", [[2], [2, 4, 6]])
async def test_a_wrong_number_of_results_is_an_error_of_the_whole_batch(results: list[int]) -> None:
    """No caller waits for ever, or gets the result of another."""

    async def send(_: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        return results

    batcher = Batcher("double", send, LIMITS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        found = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)

    assert [str(error) for error in found] == [f"double: {len(results)} results for 2 items"] * 2


async def test_a_cancelled_caller_drops_only_its_own_wait(doubler: Doubler) -> None:
    """The batch and callers with an equal item go on; an item whose callers are all cancelled is not sent."""
    batcher = Batcher("test", doubler, LIMITS)
    sent, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(1))
    await settle()
    queued, same, alone = (asyncio.create_task(batcher.submit(number)) for number in (2, 2, 3))
    await settle()
    for cancelled in (sent, queued, alone):
        cancelled.cancel()
    await settle()
    doubler.go.set()

    assert [await stays, await same] == [2, 4]
    assert doubler.batches == [[1], [2]]


async def test_an_item_that_would_wait_too_long_is_rejected_at_once(doubler: Doubler) -> None:
    """An item is not queued where the batches in flight and ahead of it take longer than it may wait."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_batch_size=1, max_wait_seconds=0.5))
    batcher._round_trip_seconds = 0.2
    calls = [asyncio.create_task(batcher.submit(1))]
    await settle()
    calls += [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
    await settle()
    with pytest.raises(DatabaseBusy):
        await batcher.submit(4)
    doubler.go.set()
    await asyncio.gather(*calls)


async def test_an_item_behind_stuck_batches_is_rejected_in_time(doubler: Doubler) -> None:
    """Where all batches in flight are stuck, an item is rejected after its longest wait, not once one is free."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_wait_seconds=0.1))
    batcher._round_trip_seconds = 0.01
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    started = time.monotonic()
    with pytest.raises(DatabaseBusy):
        await batcher.submit(2)
    assert time.monotonic() - started >= 0.1
    assert not first.done()

    doubler.go.set()
    assert await first == 2


async def test_a_batch_fails_at_its_deadline() -> None:
    """After its deadline a batch fails with QueryTimedOut, and the items behind it are sent."""
    never = asyncio.Event()

    async def send(items: Sequence[int]) -> list[int]:
        if 1 in items:
            await never.wait()
        return [2 * item for item in items]

    batcher = Batcher("test", send, replace(LIMITS, deadline_seconds=0.1))
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    batcher._limits = LIMITS  # the second item's deadline is far away
    second = asyncio.create_task(batcher.submit(2))
    with pytest.raises(QueryTimedOut):
        await first
    assert await second == 4


async def test_each_batch_in_flight_has_its_own_deadline(doubler: Doubler) -> None:
    """The batches whose deadlines have passed fail; one that was sent later has its result."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_batch_size=1, max_in_flight=3))
    calls = []
    for number, seconds in enumerate((0.05, 0.1, 3600)):
        batcher._limits = replace(batcher._limits, deadline_seconds=seconds)
        calls.append(asyncio.create_task(batcher.submit(number)))
        await settle()
    assert doubler.batches == [[0], [1], [2]]

    for late in calls[:2]:
        with pytest.raises(QueryTimedOut):
            await late
    doubler.go.set()
    assert await calls[2] == 4
    assert not batcher._in_flight


async def test_all_parts_of_a_split_batch_share_its_deadline() -> None:
    """The round trips that search for the items at fault end at the deadline of the first one."""
    sent = 0

    async def send(_: Sequence[int]) -> list[int]:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05)
        raise RowRefused

    batcher = Batcher("test", send, replace(LIMITS, deadline_seconds=0.2))
    results = await asyncio.gather(*(batcher.submit(number) for number in range(64)), return_exceptions=True)

    assert {type(result) for result in results} == {QueryTimedOut}
    assert sent <= 4


async def test_batches_that_take_too_long_become_smaller() -> None:
    """A slow database gets batches that it can result in time, and larger ones once it is fast again."""
    seconds_each = 0.0005
    sizes: list[int] = []

    async def send(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        await asyncio.sleep(seconds_each * len(items))
        return list(items)

    batcher = Batcher("test", send, replace(LIMITS, max_round_trip_seconds=0.01))
    await asyncio.gather(*(batcher.submit(number) for number in range(400)))
    assert sizes[:3] == [1, 128, 64] or sizes[:3] == [128, 64, 32]
    assert all(size * seconds_each < 0.015 for size in sizes[5:])

    seconds_each = 0
    # On a busy machine no batch is too slow, and no item too late, even where batches have shrunk to one item.
    batcher._limits = replace(LIMITS, max_wait_seconds=3600, deadline_seconds=3600)
    await asyncio.gather(*(batcher.submit(number) for number in range(5000)))
    assert sizes[-5:-1] == [128] * 4


async def test_callers_who_fill_no_batch_use_all_connections_of_a_slow_database() -> None:
    """With fewer callers than fit into a batch, batches that take too long become smaller, and two are in flight."""
    sizes: list[int] = []
    in_flight: list[int] = [0]

    async def send(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        in_flight.append(in_flight[-1] + 1)
        await asyncio.sleep(0.001 * len(items))
        in_flight.append(in_flight[-1] - 1)
        return list(items)

    batcher = Batcher("test", send, replace(LIMITS, max_in_flight=2, large_batch_size=32, max_round_trip_seconds=0.016))

    async def call(caller: int) -> None:
        for number in range(20):
            await batcher.submit(64 * number + caller)

    await asyncio.gather(*map(call, range(64)))
    assert max(sizes[-20:]) <= 32
    assert in_flight[-20:].count(2) >= 5


async def test_a_slow_network_does_not_make_batches_smaller() -> None:
    """Where batches that are not full take long, their size is not the reason, and items still share batches."""
    sizes: list[int] = []

    async def send(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        await asyncio.sleep(0.02)
        return list(items)

    batcher = Batcher("test", send, replace(LIMITS, max_round_trip_seconds=0.01))
    for _ in range(10):
        await asyncio.gather(*(batcher.submit(number) for number in range(64)))
    assert sum(sizes) == 640
    assert len(sizes) <= 20


async def test_an_item_that_waited_too_long_is_not_sent(doubler: Doubler) -> None:
    """An item that has waited too long in the queue is rejected, not sent late."""
    batcher = Batcher("test", doubler, replace(LIMITS, max_wait_seconds=0.05))
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    late = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.1)
    doubler.go.set()

    assert await first == 2
    with pytest.raises(DatabaseBusy):
        await late
    assert doubler.batches == [[1]]


def ann(money: str = "1") -> NewClient:
    return NewClient("Ann", Decimal(money))


async def test_a_key_in_one_batch_twice_adds_one_client(database_settings: DatabaseSettings, owner: Owner) -> None:
    """Adds with equal keys get the same id, or KeyReused for other fields; equal adds without a key add two clients."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        store = Store(connected, replace(database_settings, pool_size=1), MAX_CALLS)
        adds = [(ann(), "k"), (ann(), "k"), (ann("2"), "k"), (ann(), "j"), (ann(), None), (ann(), None)]
        results = await asyncio.gather(*(store.add(*add) for add in adds), return_exceptions=True)

    assert isinstance(results.pop(2), KeyReused)
    ids = [result.id for result in results if isinstance(result, Added)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Ann'") == 4


async def test_a_stuck_add_delays_no_other_request(database_settings: DatabaseSettings, owner: Owner) -> None:
    """With three connections, as in the pods, an add that waits for a lock leaves two to adds, gets and pages."""
    settings = replace(database_settings, pool_size=3)
    async with database.connect(settings) as connected:
        store = Store(connected, settings, MAX_CALLS)
        await store.add(ann())
        async with owner.transaction():
            await owner.execute("INSERT INTO idempotency_keys VALUES ('locked', sha256(''), 1)")
            stuck = asyncio.create_task(store.add(ann(), "locked"))
            await wait_for_locks(owner, 1)
            for _ in range(10):
                await asyncio.gather(store.add(ann()), store.get(1), store.page(0))
            assert not stuck.done()
        with pytest.raises(KeyReused):
            await stuck


async def test_a_row_that_the_database_refuses_fails_alone(database_settings: DatabaseSettings, owner: Owner) -> None:
    """The other adds of its batch succeed."""
    await owner.execute("ALTER TABLE clients ADD CONSTRAINT no_bob CHECK (name <> 'Bob')")
    async with database.connect(database_settings) as connected:
        store = Store(connected, database_settings, MAX_CALLS)
        clients = [NewClient(name, Decimal(1)) for name in ("Ann", "Bob", "Cleo", "Dan", "Eve")]
        results = await asyncio.gather(*(store.add(client) for client in clients), return_exceptions=True)

    assert [isinstance(result, RowRefused) for result in results] == [False, True, False, False, False]
    stored = await owner.fetch("SELECT name FROM clients WHERE id > 4 ORDER BY name")
    assert [row["name"] for row in stored] == ["Ann", "Cleo", "Dan", "Eve"]


async def test_batches_of_the_same_keys_never_deadlock(database_settings: DatabaseSettings, owner: Owner) -> None:
    """Two batches with the same keys in opposite orders lock the keys in the same order."""
    claim = "INSERT INTO idempotency_keys VALUES ('m', sha256(''), 1)"
    async with database.connect(database_settings) as one, database.connect(database_settings) as other:
        stores = [Store(one, database_settings, MAX_CALLS), Store(other, database_settings, MAX_CALLS)]
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(claim)
        # Each batch locks its keys up to the one in the middle, which is locked here. In opposite orders, each would
        # then hold the other's next key.
        batches = [
            asyncio.create_task(store._add([_Add(ann(), key) for key in keys]))
            for store, keys in zip(stores, ("amz", "zma"), strict=True)
        ]
        await wait_for_locks(owner, 2)
        await transaction.rollback()
        forward, backward = await asyncio.gather(*batches)

    assert [added.id for added in forward] == [added.id for added in backward[::-1]]
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Ann'") == 3


async def test_every_acknowledged_add_is_read_back(serve: Callable[..., Service]) -> None:
    """Each of 10,000 added clients is found by a get that another worker may serve, and has its own id."""
    service = serve(WORKERS="2")
    ids: list[int] = []
    numbers = iter(range(ADDS))

    async def add_and_read(adder: ClientSession, reader: ClientSession) -> None:
        for number in numbers:
            fields = {"name": f"racer {number}", "money": "1"}
            async with adder.post(f"{service.url}/add", params=fields) as response:
                assert response.status == 201
                client_id = (await response.json())["id"]
            async with reader.get(f"{service.url}/get/{client_id}") as response:
                assert (await response.json())["name"] == f"racer {number}"
            ids.append(client_id)

    async with ClientSession() as adder, ClientSession() as reader:
        await asyncio.gather(*(add_and_read(adder, reader) for _ in range(64)))
        async with reader.get(f"{service.url}/getall") as response:
            listed = [client["id"] for client in await response.json()]

    assert len(ids) == len(set(ids)) == ADDS
    assert listed == sorted(set(listed))
    assert set(ids) <= set(listed)
