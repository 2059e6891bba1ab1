"""The queries on clients: get one, add one, read all in pages."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from svc.clients.model import NewClient
from svc.errors import DatabaseNotMigrated, DatabaseRightsMissing, KeyReused, NoSuchClient
from svc.postgres import queries
from svc.postgres.batching import Batcher, Limits, OnRoundTrip, RoundTripObserver
from svc.postgres.database import Database
from svc.postgres.settings import DatabaseSettings

PAGE_ROWS: Final = 1000  # about 50 KB: round trips stay cheap, and memory stays flat
_MAX_BATCH_SIZE: Final = 128  # larger batches gain little, and their first item waits longer for the last

_GET: Final = queries.read("get")
_PAGE: Final = queries.read("page")
_ADD: Final = queries.read("add")
_ADD_WITHOUT_KEYS: Final = queries.read("add_without_keys")
_READY: Final = queries.read("ready")
_MISSING_MIGRATIONS: Final = queries.read("missing_migrations")
_NEEDED_MIGRATIONS: Final = queries.migrations()


@dataclass(frozen=True, slots=True)
class Page:
    """Clients in order of id.

    Attributes:
        objects: their JSON objects, joined by commas, in UTF-8; empty for an empty page.
        last_id: the last client's id; 0 for an empty page.
        more: whether more clients follow.
    """

    objects: bytes
    last_id: int
    more: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Add:
    """A client to add. No two are equal, since two adds of the same fields add two clients."""

    client: NewClient
    key: str | None


@dataclass(frozen=True, slots=True)
class Added:
    """The result of an add.

    Attributes:
        id: the client's id.
        same_fields: whether the fields are those of the key's first use; without a key, true.
        is_replay: whether the client was added by an earlier use of the key.
    """

    id: int
    same_fields: bool
    is_replay: bool


ObserveRoundTrips = Callable[[str, str, str], OnRoundTrip | None]


def no_op(_operation: str, _summary: str, _sql: str) -> None:
    """Observes no round trips."""


class Store:
    """The clients in PostgreSQL. Concurrent calls share round trips, which the `request` of each call records.

    Args:
        database: where the clients are stored.
        settings: the time-outs and the bounds.
        max_calls: the most calls of an operation at once.
        observe: takes an operation's name, a summary of its SQL, and the SQL; returns the hook for its round trips.
    """

    def __init__(
        self, database: Database, settings: DatabaseSettings, max_calls: int, observe: ObserveRoundTrips = no_op
    ) -> None:
        self._database = database
        # Each operation may use half of the connections, so that reads and adds do not wait for each other. Of three
        # connections, it may use two: then one stuck round trip blocks no operation, and an operation whose round trips
        # are all stuck leaves one connection to the others.
        max_in_flight = (settings.pool_size + 1) // 2
        limits = Limits(
            max_in_flight=max_in_flight,
            max_batch_size=_MAX_BATCH_SIZE,
            large_batch_size=max_calls // max_in_flight,  # so that all calls together fill all connections
            max_round_trip_seconds=settings.statement_seconds / 4,  # well below the statement's time-out
            max_wait_seconds=settings.acquire_seconds,
            deadline_seconds=settings.deadline_seconds,
        )
        self._gets = Batcher("get", self._get, limits, observe("get", "SELECT clients", _GET))
        # The spans of adds show this statement, also where a batch has no keys and runs the shorter one.
        self._adds = Batcher("add", self._add, limits, observe("add", "INSERT clients", _ADD))
        one_page = replace(limits, max_batch_size=1)
        self._pages = Batcher("page", self._page, one_page, observe("page", "SELECT clients", _PAGE))

    async def get(self, client_id: int, request: RoundTripObserver | None = None) -> bytes:
        """The client as a JSON object in UTF-8.

        Raises:
            NoSuchClient: no client has this id.
        """
        found = await self._gets.submit(client_id, request)
        if found is None:
            raise NoSuchClient
        return found

    async def add(self, client: NewClient, key: str | None = None, request: RoundTripObserver | None = None) -> Added:
        """Stores the client; with an idempotency key, only on the key's first use.

        Raises:
            KeyReused: the key was first used with other fields.
        """
        added = await self._adds.submit(_Add(client, key), request)
        if not added.same_fields:
            raise KeyReused
        return added

    async def page(self, after: int, limit: int = PAGE_ROWS, request: RoundTripObserver | None = None) -> Page:
        """At most `limit` clients, in order of id, from the first id after `after`."""
        return await self._pages.submit((after, limit), request)

    async def pages(self, after: int = 0, request: RoundTripObserver | None = None) -> AsyncGenerator[Page, None]:
        """All clients whose ids come after `after`, page by page.

        Each page is a separate query, so a slow reader holds no connection between pages. A page has the clients that
        exist at the time of its query.
        """
        more = True
        while more:
            page = await self.page(after, request=request)
            after, more = page.last_id, page.more
            yield page

    async def check(self) -> None:
        """Checks that the database has the schema that this build needs, and can serve the queries above.

        Raises:
            ServiceError: it cannot, for the reason that the error has.
        """
        if missing := await self._database.value(_MISSING_MIGRATIONS, _NEEDED_MIGRATIONS):
            lacks = f"it lacks migration {', '.join(missing)}"
            raise DatabaseNotMigrated(f"The database's schema is older than this build: {lacks}.")
        if not await self._database.value(_READY):
            raise DatabaseRightsMissing

    # Arrays of numbers are sent in their text form, which PostgreSQL parses in one step. Others are sent as text[], the
    # only array type whose codec asyncpg has built in. Any other type costs each new connection eight round trips
    # before its first query, and after an outage all connections would make them at once.

    async def _get(self, ids: Sequence[int]) -> list[bytes | None]:
        rows = await self._database.rows(_GET, _array(ids))
        found = {row["id"]: row["object"] for row in rows}
        return [found.get(client_id) for client_id in ids]

    async def _add(self, adds: Sequence[_Add]) -> list[Added]:
        fields = [add.client.name for add in adds], _array([add.client.money for add in adds])
        keys = [add.key for add in adds]
        if any(key is not None for key in keys):
            prints = [rf"\x{add.client.fingerprint().hex()}" if add.key is not None else None for add in adds]
            rows = await self._database.rows(_ADD, *fields, keys, prints)
        else:
            rows = await self._database.rows(_ADD_WITHOUT_KEYS, *fields)
        return [Added(row["id"], row["same_fields"], row["is_replay"]) for row in rows]

    async def _page(self, pages: Sequence[tuple[int, int]]) -> list[Page]:
        ((after, limit),) = pages  # one item in each batch
        (row,) = await self._database.rows(_PAGE, after, limit)
        return [Page(row["objects"], row["last_id"] or 0, row["more"])]


def _array(numbers: Sequence[int | Decimal]) -> str:
    """A PostgreSQL array of the numbers, in its text form."""
    return f"{{{','.join(map(str, numbers))}}}"
