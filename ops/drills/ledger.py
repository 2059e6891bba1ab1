"""What callers asked to be stored, what they were told, and whether the table agrees."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

Row = tuple[int, str, str]
"""A client in the table: id, name, and money as the API writes it."""


@dataclass(eq=False)
class Add:
    """A client that someone wants stored, under a key of its own however often it is tried.

    Attributes:
        name: no other add has it.
        money: as the API writes it.
        id: what the caller was told that it has; None until then.
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
        """What a look-up has to answer once it is acknowledged."""
        return {"id": self.id, "name": self.name, "money": self.money}


@dataclass
class Audit:
    """What the ledger and the table say of each other. All but the first two have to be empty.

    Attributes:
        acknowledged: how many adds were.
        unanswered: how many were sent and never acknowledged; of them, the table may hold each once or not at all.
        lost: names of acknowledged adds that the table lacks, or has with another id or money.
        doubled: names that are there more than once.
        strange: names that nobody sent, or with money that nobody sent with them.
        stale: look-ups that did not find what was acknowledged before they were sent, or found it different.
        contradicted: names that were acknowledged twice, with different ids.
    """

    acknowledged: int
    unanswered: int
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)

    @property
    def wrongs(self) -> dict[str, int]:
        """How many there are of all that must not be."""
        kinds = ("lost", "doubled", "strange", "stale", "contradicted")
        return {kind: len(getattr(self, kind)) for kind in kinds}


class Ledger:
    """Keeps account of one drill's adds.

    Args:
        title: begins all their names.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._numbers = itertools.count(1)
        self._adds: dict[str, Add] = {}
        self._acknowledged: list[Add] = []
        self._stale: list[str] = []
        self._contradicted: list[str] = []

    def new(self) -> Add:
        """An add that nobody has made."""
        money = Decimal(random.randrange(-(10**11), 10**11)).scaleb(-2)
        add = Add(f"{self._title} {next(self._numbers)}", f"{money:f}")
        self._adds[add.name] = add
        return add

    def acknowledge(self, add: Add, client_id: int) -> None:
        """Notes that the add's caller was told that it is stored, and its id."""
        if add.id is None:
            add.id = client_id
            self._acknowledged.append(add)
        elif add.id != client_id:
            self._contradicted.append(add.name)

    def check(self, add: Add, found: object) -> None:
        """Notes what a look-up that was sent after the add's acknowledgement found; None for no client."""
        if found != add.object:
            self._stale.append(f"{add.name}: {found}")

    def any(self) -> Add | None:
        """An add that was acknowledged, one of the newest or of all."""
        if not self._acknowledged:
            return None
        newest = len(self._acknowledged) - 1
        return self._acknowledged[random.choice((random.randint(0, newest), max(0, newest - random.randrange(16))))]

    def audit(self, rows: Iterable[Row]) -> Audit:
        """Compares the ledger with all clients of the table that were added since the drill began."""
        stored: dict[str, list[Row]] = {}
        for row in rows:
            stored.setdefault(row[1], []).append(row)
        sent = {name: add for name, add in self._adds.items() if add.tries}
        return Audit(
            acknowledged=len(self._acknowledged),
            unanswered=sum(add.id is None for add in sent.values()),
            lost=[a.name for a in self._acknowledged if (a.id, a.name, a.money) not in stored.get(a.name, [])],
            doubled=[name for name, count in Counter({n: len(r) for n, r in stored.items()}).items() if count > 1],
            strange=[n for n, r in stored.items() if n not in sent or any(row[2] != sent[n].money for row in r)],
            stale=self._stale,
            contradicted=self._contradicted,
        )
