"""The rules of natural batching, without a database; and what they promise, on PostgreSQL."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import asyncpg
import pytest
from aiohttp import ClientSession

from ops.common.process import Service
from svc.clients.model import NewClient
from svc.clients.store import Store, _Add
from svc.errors import DatabaseBusy, DatabaseUnavailable, KeyReused, QueryTimedOut
from svc.postgres import database
from svc.postgres.batching import Batcher, Limits
from svc.postgres.settings import DatabaseSettings
from tests.conftest import Owner

LIMITS = Limits(
    max_in_flight=1,
    max_batch_size=128,
    max_round_trip_seconds=60,
    max_queue=100,
    max_wait_seconds=60,
    deadline_seconds=120,
)


class Oracle:
    """Answers a number with its double, each batch when it is let go; records what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.refused: set[int] = set()
        self.error: type[Exception] = ValueError

    async def __call__(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        await self.go.wait()
        if self.refused & set(questions):
            raise self.error
        return [2 * question for question in questions]


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


async def settle() -> None:
    """Lets everything happen that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_asked_during_a_round_trip_goes_in_the_next(oracle: Oracle) -> None:
    """The first question goes out alone and at once; those behind it share a batch."""
    batcher = Batcher(oracle, LIMITS)
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    others = [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 4)]
    await settle()
    oracle.go.set()

    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert oracle.batches == [[1], [2, 3, 4]]


async def test_equal_questions_in_one_unsent_batch_are_one(oracle: Oracle) -> None:
    """Doubles share a place, and each of those who asked gets the answer."""
    batcher = Batcher(oracle, LIMITS)
    asked = [asyncio.create_task(batcher.submit(1))]
    await settle()
    asked += [asyncio.create_task(batcher.submit(number)) for number in (2, 2, 2)]
    await settle()
    oracle.go.set()

    assert await asyncio.gather(*asked) == [2, 4, 4, 4]
    assert oracle.batches == [[1], [2]]


async def test_a_question_joins_nothing_that_was_sent(oracle: Oracle) -> None:
    """An equal question on its way is asked again: its answer may be older than what was written since."""
    batcher = Batcher(oracle, LIMITS)
    asked = [asyncio.create_task(batcher.submit(1))]
    await settle()
    asked.append(asyncio.create_task(batcher.submit(1)))
    await settle()
    oracle.go.set()
    await asyncio.gather(*asked)

    assert oracle.batches == [[1], [1]]


async def test_no_more_batches_are_in_flight_than_allowed(oracle: Oracle) -> None:
    """max_in_flight full batches are in flight, none too large, and at the end none is left."""
    batcher = Batcher(oracle, replace(LIMITS, max_batch_size=2, max_in_flight=3))
    batcher._round_trip_seconds = 10
    asked = [asyncio.create_task(batcher.submit(number)) for number in range(7)]
    await settle()
    assert oracle.batches == [[0, 1], [2, 3], [4, 5]]

    oracle.go.set()
    await asyncio.gather(*asked)
    assert oracle.batches[3:] == [[6]]
    assert not batcher._in_flight


async def test_one_lane_does_while_it_can(oracle: Oracle) -> None:
    """While a batch is under way, and not for longer than usual, the others wait for the next, which is larger."""
    batcher = Batcher(oracle, replace(LIMITS, max_in_flight=3))
    batcher._round_trip_seconds = 10
    asked = [asyncio.create_task(batcher.submit(1))]
    await settle()
    asked += [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
    await settle()
    assert oracle.batches == [[1]]

    oracle.go.set()
    await asyncio.gather(*asked)
    assert oracle.batches == [[1], [2, 3]]


async def test_a_sender_that_is_no_longer_needed_ends() -> None:
    """Two senders start for two full batches; the first to finish leaves the few items that wait to the other."""
    gates = {1: asyncio.Event(), 3: asyncio.Event(), 5: asyncio.Event()}
    batches: list[list[int]] = []

    async def send(questions: Sequence[int]) -> list[int]:
        batches.append(list(questions))
        await gates[questions[0]].wait()
        return list(questions)

    batcher = Batcher(send, replace(LIMITS, max_batch_size=2, max_in_flight=2))
    batcher._round_trip_seconds = 10
    asked = [asyncio.create_task(batcher.submit(number)) for number in (1, 2, 3, 4, 5)]
    await settle()
    gates[1].set()
    await settle()
    assert batches == [[1, 2], [3, 4]]

    gates[3].set()
    await settle()
    assert batches == [[1, 2], [3, 4], [5]]
    gates[5].set()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]


async def test_a_batch_that_hangs_holds_up_nobody() -> None:
    """Where a batch takes much longer than usual, another lane takes what is asked meanwhile, again and again."""
    answer_the_first = asyncio.Event()

    async def send(questions: Sequence[int]) -> list[int]:
        if 1 in questions:
            await answer_the_first.wait()
        await asyncio.sleep(0)
        return [2 * question for question in questions]

    batcher = Batcher(send, replace(LIMITS, max_in_flight=2))
    batcher._round_trip_seconds = 0.001
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(batcher.submit(number) for number in (2, 3, 4))) == [4, 6, 8]
        assert await batcher.submit(5) == 10
    assert not first.done()

    answer_the_first.set()
    assert await first == 2
    assert not batcher._in_flight


async def test_nobody_has_to_come_for_the_one_behind_a_batch_that_hangs() -> None:
    """A question that came just after one that hangs is sent by another lane once that has taken too long."""
    never = asyncio.Event()

    async def send(questions: Sequence[int]) -> list[int]:
        if 1 in questions:
            await never.wait()
        return [2 * question for question in questions]

    batcher = Batcher(send, replace(LIMITS, max_in_flight=2))
    batcher._round_trip_seconds = 0.01
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    async with asyncio.timeout(5):
        assert await batcher.submit(2) == 4
    first.cancel()


async def test_one_bad_question_fails_alone(oracle: Oracle) -> None:
    """A batch that fails is split until the one at fault stands alone; its neighbours get their answers."""
    batcher = Batcher(oracle, LIMITS)
    oracle.refused = {3, 6}
    oracle.go.set()
    answers = await asyncio.gather(*(batcher.submit(number) for number in range(8)), return_exceptions=True)

    assert [answer for answer in answers if isinstance(answer, int)] == [0, 2, 4, 8, 10, 14]
    assert [type(answers[number]) for number in (3, 6)] == [ValueError, ValueError]


async def test_a_lost_database_fails_the_whole_batch_at_once(oracle: Oracle) -> None:
    """Where it is nobody's fault, nothing is sent again: a write may have happened."""
    batcher = Batcher(oracle, LIMITS)
    oracle.refused, oracle.error = {3}, DatabaseUnavailable
    oracle.go.set()
    answers = await asyncio.gather(*(batcher.submit(number) for number in range(8)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert len(oracle.batches) == 1


async def test_a_caller_who_goes_away_drops_its_own_wait_alone(oracle: Oracle) -> None:
    """Who cancels takes neither the batch nor who asked the same with it; and what nobody waits for is not sent."""
    batcher = Batcher(oracle, LIMITS)
    sent, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(1))
    await settle()
    queued, same, alone = (asyncio.create_task(batcher.submit(number)) for number in (2, 2, 3))
    await settle()
    for gone in (sent, queued, alone):
        gone.cancel()
    await settle()
    oracle.go.set()

    assert [await stays, await same] == [2, 4]
    assert oracle.batches == [[1], [2]]


async def test_the_queue_is_bounded(oracle: Oracle) -> None:
    """One question more than may wait is refused at once, and a double of one that waits is not."""
    batcher = Batcher(oracle, replace(LIMITS, max_queue=2))
    asked = [asyncio.create_task(batcher.submit(1))]
    await settle()
    asked += [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 3)]
    await settle()
    with pytest.raises(DatabaseBusy):
        await batcher.submit(4)
    oracle.go.set()

    assert await asyncio.gather(*asked) == [2, 4, 6, 6]


async def test_a_wait_that_would_be_too_long_is_refused_at_once(oracle: Oracle) -> None:
    """Where what is under way and the batches ahead take longer than a question may wait, it is not queued at all."""
    batcher = Batcher(oracle, replace(LIMITS, max_batch_size=1, max_wait_seconds=0.5))
    batcher._round_trip_seconds = 0.2
    asked = [asyncio.create_task(batcher.submit(1))]
    await settle()
    asked += [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
    await settle()
    with pytest.raises(DatabaseBusy):
        await batcher.submit(4)
    oracle.go.set()
    await asyncio.gather(*asked)


async def test_nobody_waits_longer_for_batches_that_hang(oracle: Oracle) -> None:
    """Where every lane hangs, who waits behind them is refused when its time is up, and not when a lane is free."""
    batcher = Batcher(oracle, replace(LIMITS, max_wait_seconds=0.1))
    batcher._round_trip_seconds = 0.01
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    began = time.monotonic()
    with pytest.raises(DatabaseBusy):
        await batcher.submit(2)
    assert 0.1 <= time.monotonic() - began < 0.2

    oracle.go.set()
    assert await first == 2


async def test_an_answer_is_not_waited_for_without_end(oracle: Oracle) -> None:
    """Beyond its time a batch is given up on, and what waits behind it gets its turn."""
    batcher = Batcher(oracle, replace(LIMITS, deadline_seconds=0.1))
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(batcher.submit(2))
    with pytest.raises(QueryTimedOut):
        await first
    oracle.go.set()
    assert await second == 4


async def test_a_batch_that_is_split_has_one_deadline() -> None:
    """The trips that look for the questions at fault take no longer, all together, than one that hangs may."""
    trips = 0

    async def send(_: Sequence[int]) -> list[int]:
        nonlocal trips
        trips += 1
        await asyncio.sleep(0.05)
        raise ValueError

    batcher = Batcher(send, replace(LIMITS, deadline_seconds=0.2))
    began = time.monotonic()
    answers = await asyncio.gather(*(batcher.submit(number) for number in range(64)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {QueryTimedOut}
    assert time.monotonic() - began < 0.3
    assert trips <= 4


async def test_batches_that_take_too_long_become_smaller() -> None:
    """A database that takes a while for each question is asked for what it can do in time, and later for more."""
    seconds_each = 0.002
    sizes: list[int] = []

    async def send(questions: Sequence[int]) -> list[int]:
        sizes.append(len(questions))
        await asyncio.sleep(seconds_each * len(questions))
        return list(questions)

    batcher = Batcher(send, replace(LIMITS, max_round_trip_seconds=0.04, max_queue=10_000))
    await asyncio.gather(*(batcher.submit(number) for number in range(400)))
    assert sizes[:3] == [1, 128, 64] or sizes[:3] == [128, 64, 32]
    assert all(size * seconds_each < 0.06 for size in sizes[5:])

    seconds_each = 0
    await asyncio.gather(*(batcher.submit(number) for number in range(5000)))
    assert sizes[-5:-1] == [128] * 4


async def test_a_slow_network_makes_no_batch_smaller() -> None:
    """Where small batches take long, it is not their size, and whoever waits still goes together."""
    sizes: list[int] = []

    async def send(questions: Sequence[int]) -> list[int]:
        sizes.append(len(questions))
        await asyncio.sleep(0.02)
        return list(questions)

    batcher = Batcher(send, replace(LIMITS, max_round_trip_seconds=0.01))
    for _ in range(10):
        await asyncio.gather(*(batcher.submit(number) for number in range(64)))
    assert sum(sizes) == 640
    assert len(sizes) <= 20


async def test_who_waited_too_long_is_not_sent(oracle: Oracle) -> None:
    """A question whose time ran out in the queue is refused, not answered late."""
    batcher = Batcher(oracle, replace(LIMITS, max_wait_seconds=0.05))
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    late = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.1)
    oracle.go.set()

    assert await first == 2
    with pytest.raises(DatabaseBusy):
        await late
    assert oracle.batches == [[1]]


def ann(money: str = "1") -> NewClient:
    return NewClient("Ann", Decimal(money))


async def test_doubles_of_a_key_in_one_batch_get_one_client(database_settings: DatabaseSettings, owner: Owner) -> None:
    """Equal keys in one statement: one client, one id; other fields are refused; keyless doubles are two clients."""
    async with database.connect(replace(database_settings, pool_size=1)) as connected:
        store = Store(connected, replace(database_settings, pool_size=1))
        adds = [(ann(), "k"), (ann(), "k"), (ann("2"), "k"), (ann(), "j"), (ann(), None), (ann(), None)]
        answers = await asyncio.gather(*(store.add(*add) for add in adds), return_exceptions=True)

    assert answers[0] == answers[1]
    assert isinstance(answers[2], KeyReused)
    assert len({answers[0], answers[3], answers[4], answers[5]}) == 4
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Ann'") == 4


async def test_an_add_that_hangs_holds_up_no_other(database_settings: DatabaseSettings, owner: Owner) -> None:
    """With three connections, as pods have: one that waits for a lock leaves others to adds, gets and pages."""
    settings = replace(database_settings, pool_size=3)
    async with database.connect(settings) as connected, owner.transaction():
        store = Store(connected, settings)
        await store.add(ann())
        await owner.execute("INSERT INTO idempotency_keys VALUES ('held', sha256(''), 1)")
        hanging = asyncio.create_task(store.add(ann(), "held"))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            for _ in range(10):
                await asyncio.gather(store.add(ann()), store.get(1), store.page(0))
        assert not hanging.done()
        with pytest.raises(QueryTimedOut):
            await hanging


async def test_one_row_that_the_database_refuses_fails_alone(database_settings: DatabaseSettings, owner: Owner) -> None:
    """A bad row in a batch of adds costs its neighbours nothing."""
    await owner.execute("ALTER TABLE clients ADD CONSTRAINT no_bob CHECK (name <> 'Bob')")
    async with database.connect(database_settings) as connected:
        store = Store(connected, database_settings)
        clients = [NewClient(name, Decimal(1)) for name in ("Ann", "Bob", "Cleo", "Dan", "Eve")]
        answers = await asyncio.gather(*(store.add(client) for client in clients), return_exceptions=True)

    assert [isinstance(answer, asyncpg.CheckViolationError) for answer in answers] == [False, True, False, False, False]
    stored = await owner.fetch("SELECT name FROM clients WHERE id > 4 ORDER BY name")
    assert [row["name"] for row in stored] == ["Ann", "Cleo", "Dan", "Eve"]


async def test_batches_of_the_same_keys_never_deadlock(database_settings: DatabaseSettings, owner: Owner) -> None:
    """Two workers whose batches hold the same keys in opposite orders take them in one order."""
    claim = "INSERT INTO idempotency_keys VALUES ('m', sha256(''), 1)"
    async with database.connect(database_settings) as one, database.connect(database_settings) as other:
        stores = [Store(one, database_settings), Store(other, database_settings)]
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(claim)
        # Each batch gets as far as the key in the middle, which is taken. Whoever holds the first key of the other's
        # then, holds it while waiting for the other.
        batches = [
            asyncio.create_task(store._add([_Add(ann(), key) for key in keys]))
            for store, keys in zip(stores, ("amz", "zma"), strict=True)
        ]
        await asyncio.sleep(0.3)
        await transaction.rollback()
        there, back = await asyncio.gather(*batches)

    assert there == back[::-1]
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Ann'") == 3


async def test_every_acknowledged_add_is_read_back(serve: Callable[..., Service]) -> None:
    """10,000 acknowledged adds, each read from another worker's connection right after: no miss, every id once."""
    service = serve(WORKERS="2")
    ids: list[int] = []
    names = iter(range(10_000))

    async def add_and_read(adder: ClientSession, reader: ClientSession) -> None:
        for number in names:
            fields = {"name": f"racer {number}", "money": "1"}
            async with adder.post(f"{service.url}/add", params=fields) as answer:
                assert answer.status == 201
                client_id = (await answer.json())["id"]
            async with reader.get(f"{service.url}/get/{client_id}") as answer:
                assert (await answer.json())["name"] == f"racer {number}"
            ids.append(client_id)

    async with ClientSession() as adder, ClientSession() as reader:
        await asyncio.gather(*(add_and_read(adder, reader) for _ in range(64)))
        async with reader.get(f"{service.url}/getall") as answer:
            listed = [client["id"] for client in await answer.json()]

    assert len(ids) == len(set(ids)) == 10_000
    assert listed == sorted(set(listed))
    assert set(ids) <= set(listed)
