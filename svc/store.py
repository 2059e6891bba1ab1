"""The questions asked of the database: get one, add one, pages of all."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from svc import queries
from svc.clients import NewClient
from svc.database import Database
from svc.errors import KeyReused, NoSuchClient

PAGE_ROWS: Final = 1000  # some 50 KB: enough to make round trips cheap, little enough to keep memory flat

_GET: Final = queries.read("get")
_PAGE: Final = queries.read("page")
_ADD: Final = queries.read("add")
_ADD_ONCE: Final = queries.read("add_once")
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


class Store:
    """The clients in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, client_id: int) -> bytes:
        """The client as a JSON object in UTF-8; NoSuchClient where there is none."""
        found: bytes | None = await self._database.value(_GET, client_id)
        if found is None:
            raise NoSuchClient
        return found

    async def add(self, client: NewClient) -> int:
        """The id of the client just added."""
        added: int = await self._database.value(_ADD, client.name, client.money)
        return added

    async def add_once(self, client: NewClient, key: str) -> int:
        """The id of the client that was added under this key, now or before.

        Raises:
            KeyReused: it was another client.
        """
        row = await self._database.row(_ADD_ONCE, client.name, client.money, key, client.fingerprint())
        assert row is not None, "the upsert always gives the key's row"
        if not row["same_fields"]:
            raise KeyReused
        added: int = row["id"]
        return added

    async def page(self, after: int, limit: int = PAGE_ROWS) -> Page:
        """Up to `limit` clients whose ids come after `after`."""
        row = await self._database.row(_PAGE, after, limit)
        assert row is not None, "an aggregate always gives a row"
        return Page(row["objects"], row["last_id"] or 0, row["more"])

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
