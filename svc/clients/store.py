"""The questions asked of the database: get one, add one, pages of all."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from svc.clients.model import NewClient
from svc.errors import KeyReused, NoSuchClient
from svc.postgres import queries
from svc.postgres.batching import Batcher, Limits, OnRoundTrip
from svc.postgres.database import Database
from svc.postgres.settings import DatabaseSettings

PAGE_ROWS: Final = 1000  # some 50 KB: enough to make round trips cheap, little enough to keep memory flat
_MAX_BATCH_SIZE: Final = 128  # questions in a round trip; more gains little, and makes the first wait for the last

_GET: Final = queries.read("get")
_PAGE: Final = queries.read("page")
_ADD: Final = queries.read("add")
_READY: Final = queries.read("ready")


@dataclass(frozen=True, slots=True)
class Page:
    """Clients in order of id.

    Attributes:
        objects: their JSON objects joined by commas, in UTF-8; empty where there are none.
        last_id: the last one's id; 0 where there are none.
        more: whether clients follow.
    """

    objects: bytes
    last_id: int
    more: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Add:
    """A client to be added. No two are equal: who adds the same fields twice gets two clients."""

    client: NewClient
    key: str | None


@dataclass(frozen=True, slots=True)
class _Added:
    id: int
    same_fields: bool


ObserveRoundTrips = Callable[[str, str, str], OnRoundTrip | None]


def no_op(_operation: str, _summary: str, _sql: str) -> None:
    """Watches no trips."""


class Store:
    """The clients in PostgreSQL. What is asked at the same time goes there together.

    Args:
        database: where they are.
        settings: its bounds.
        observe: given an operation's name, its SQL in short, and its SQL, who is told of its trips.
    """

    def __init__(self, database: Database, settings: DatabaseSettings, observe: ObserveRoundTrips = no_op) -> None:
        self._database = database
        # Half of the connections each for reads and adds, so that neither waits for the other. Of three it is two: then
        # one that hangs holds up no kind, and one kind that hangs leaves one to the others.
        limits = Limits(
            max_in_flight=(settings.pool_size + 1) // 2,
            max_batch_size=_MAX_BATCH_SIZE,
            max_round_trip_seconds=settings.statement_seconds / 4,  # far from the end of what a statement may take
            max_queue=settings.max_queue,
            max_wait_seconds=settings.acquire_seconds,
            deadline_seconds=settings.answer_seconds,
        )
        self._gets = Batcher(self._get, limits, observe("get", "SELECT clients", _GET))
        self._adds = Batcher(self._add, limits, observe("add", "INSERT clients", _ADD))
        self._pages = Batcher(self._page, replace(limits, max_batch_size=1), observe("page", "SELECT clients", _PAGE))

    async def get(self, client_id: int) -> bytes:
        """The client as a JSON object in UTF-8; NoSuchClient where there is none."""
        found = await self._gets.submit(client_id)
        if found is None:
            raise NoSuchClient
        return found

    async def add(self, client: NewClient, key: str | None = None) -> int:
        """The id of the client, once it is stored; with an idempotency key, of the one stored by its first use.

        Raises:
            KeyReused: the first use had other fields.
        """
        added = await self._adds.submit(_Add(client, key))
        if not added.same_fields:
            raise KeyReused
        return added.id

    async def page(self, after: int, limit: int = PAGE_ROWS) -> Page:
        """Up to `limit` clients whose ids come after `after`."""
        return await self._pages.submit((after, limit))

    async def pages(self, after: int = 0) -> AsyncGenerator[Page, None]:
        """All clients whose ids come after `after`, page by page.

        Each page is a query of its own, so a slow reader holds no connection, and sees the clients that
        are there when it gets to their place.
        """
        more = True
        while more:
            page = await self.page(after)
            after, more = page.last_id, page.more
            yield page

    async def check(self) -> None:
        """Raises where the database could not answer the questions above."""
        await self._database.value(_READY)

    # Arrays are sent as text[], the one kind that asyncpg knows beforehand. For any other, it asks a new connection's
    # server in eight round trips before the first question, and all of them want it at once after an outage.

    async def _get(self, ids: Sequence[int]) -> list[bytes | None]:
        rows = await self._database.rows(_GET, [str(client_id) for client_id in ids])
        found = {row["id"]: row["object"] for row in rows}
        return [found.get(client_id) for client_id in ids]

    async def _add(self, adds: Sequence[_Add]) -> list[_Added]:
        rows = await self._database.rows(
            _ADD,
            [add.client.name for add in adds],
            [str(add.client.money) for add in adds],
            [add.key for add in adds],
            [rf"\x{add.client.fingerprint().hex()}" if add.key is not None else None for add in adds],
        )
        return [_Added(row["id"], row["same_fields"]) for row in rows]

    async def _page(self, questions: Sequence[tuple[int, int]]) -> list[Page]:
        (question,) = questions
        (row,) = await self._database.rows(_PAGE, *question)
        return [Page(row["objects"], row["last_id"] or 0, row["more"])]
