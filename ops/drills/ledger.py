"""What callers wanted to store, what the service acknowledged, and whether the table agrees."""

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

Row = tuple[int, str, str]
"""A client in the table: id, name, and money as the API writes it."""


@dataclass(eq=False)
class Add:
    """A client that a caller wants to store. All its tries have the same Idempotency-Key.

    Attributes:
        name: unique to this add.
        money: as the API writes it.
        id: as the service acknowledged it; None before that.
        tries: how often it was sent.
    """

    name: str
    money: str
    id: int | None = None
    tries: int = 0

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return self.name.replace(" ", "-")

    @property
    def object(self) -> dict[str, object]:
        """What a get must return once it is acknowledged."""
        return {"id": self.id, "name": self.name, "money": self.money}


@dataclass
class Audit:
    """The ledger compared with the table. Each list must be empty.

    Attributes:
        acknowledged: number of acknowledged adds.
        unacknowledged: number of adds that were sent and never acknowledged. The table may have each once or not at
            all.
        lost: names of acknowledged adds that the table does not have, or has with another id or money.
        duplicated: names that the table has more than once.
        unexpected: names that no caller sent, or that have other money than was sent.
        stale: gets that did not return an add as it was acknowledged before they were sent.
        contradicted: names that were acknowledged twice, with different ids.
    """

    acknowledged: int
    unacknowledged: int
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)

    @property
    def violations(self) -> dict[str, int]:
        """The length of each list."""
        kinds = ("lost", "duplicated", "unexpected", "stale", "contradicted")
        return {kind: len(getattr(self, kind)) for kind in kinds}


class Ledger:
    """Records the adds of one drill.

    Args:
        title: the start of all their names.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._numbers = itertools.count(1)
        self._adds: dict[str, Add] = {}
        self._acknowledged: list[Add] = []
        self._stale: list[str] = []
        self._contradicted: list[str] = []

    def new(self) -> Add:
        """Returns a new add, to be sent."""
        money = Decimal(random.randrange(-(10**11), 10**11)).scaleb(-2)
        add = Add(f"{self._title} {next(self._numbers)}", f"{money:f}")
        self._adds[add.name] = add
        return add

    def acknowledge(self, add: Add, client_id: int) -> None:
        """Records that the service acknowledged the add with this id."""
        if add.id is None:
            add.id = client_id
            self._acknowledged.append(add)
        elif add.id != client_id:
            self._contradicted.append(add.name)

    def check(self, add: Add, found: object) -> None:
        """Checks the result of a get that was sent after the add was acknowledged. None means not found."""
        if found != add.object:
            self._stale.append(f"{add.name}: {found}")

    def random_acknowledged(self) -> Add | None:
        """Returns an acknowledged add: one of the newest, or any. None if there is none."""
        if not self._acknowledged:
            return None
        newest = len(self._acknowledged) - 1
        return self._acknowledged[random.choice((random.randint(0, newest), max(0, newest - random.randrange(16))))]

    def audit(self, rows: Iterable[Row]) -> Audit:
        """Compares the ledger with all clients that were added to the table since the drill started."""
        stored: dict[str, list[Row]] = {}
        for row in rows:
            stored.setdefault(row[1], []).append(row)
        sent = {name: add for name, add in self._adds.items() if add.tries}
        return Audit(
            acknowledged=len(self._acknowledged),
            unacknowledged=sum(add.id is None for add in sent.values()),
            lost=[a.name for a in self._acknowledged if (a.id, a.name, a.money) not in stored.get(a.name, [])],
            duplicated=[name for name, found in stored.items() if len(found) > 1],
            unexpected=[n for n, r in stored.items() if n not in sent or any(row[2] != sent[n].money for row in r)],
            stale=self._stale,
            contradicted=self._contradicted,
        )
