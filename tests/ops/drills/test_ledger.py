"""The ledger finds every difference between what was acknowledged and what the table has."""

from typing import Any

import pytest

from ops.drills import flood, harness
from ops.drills.ledger import Add, Ledger, Row
from tests.conftest import Owner


def acknowledged(ledger: Ledger, client_id: int) -> Add:
    """Returns an add that was sent once and acknowledged."""
    add = ledger.new()
    add.tries = 1
    ledger.acknowledge(add, client_id)
    return add


def test_a_correct_table_has_no_violations() -> None:
    """An acknowledged add is in the table. An unacknowledged one may be there once or not at all."""
    ledger = Ledger("drill")
    add, stored, absent, unsent = acknowledged(ledger, 5), ledger.new(), ledger.new(), ledger.new()
    stored.tries = absent.tries = 1
    ledger.check(add, {"id": 5, "name": add.name, "money": add.money})

    audit = ledger.audit([(5, add.name, add.money), (6, stored.name, stored.money)])

    assert not any(audit.violations.values())
    assert (audit.acknowledged, audit.unacknowledged) == (1, 2)
    assert unsent.tries == 0


@pytest.mark.parametrize(
    ("stored", "violations"),
    [
        ([], {"lost"}),
        ([(7, "drill 2", "{}")], {"lost"}),
        ([(6, "drill 2", "{}"), (7, "drill 2", "{}")], {"duplicated"}),
        ([(6, "drill 2", "{}"), (7, "never sent", "1.00")], {"unexpected"}),
        ([(6, "drill 2", "{}0")], {"lost", "unexpected"}),
    ],
    ids=["lost", "another id", "duplicated", "unexpected", "another amount"],
)
def test_the_audit_finds_each_difference(stored: list[Row], violations: set[str]) -> None:
    """A row that differs from its acknowledged add is one violation of each kind that applies."""
    ledger = Ledger("drill")
    good, bad = acknowledged(ledger, 5), acknowledged(ledger, 6)

    rows = [(client_id, name, money.format(bad.money)) for client_id, name, money in stored]
    audit = ledger.audit([(5, good.name, good.money), *rows])

    assert {kind for kind, count in audit.violations.items() if count} == violations
    assert all(len(getattr(audit, kind)) == 1 for kind in violations)


@pytest.mark.parametrize("found", [None, {"id": 5, "name": "another", "money": "1.00"}])
def test_a_get_that_differs_from_an_acknowledged_add_is_stale(found: object) -> None:
    """A get is stale if it finds nothing or something else."""
    ledger = Ledger("drill")
    add = acknowledged(ledger, 5)
    ledger.check(add, found)

    assert ledger.audit([(5, add.name, add.money)]).violations == dict.fromkeys(
        ("lost", "duplicated", "unexpected", "contradicted"), 0
    ) | {"stale": 1}


def test_two_ids_for_one_add_are_a_contradiction() -> None:
    """The same id twice is none."""
    ledger = Ledger("drill")
    first, second = acknowledged(ledger, 5), acknowledged(ledger, 6)
    ledger.acknowledge(first, 5)
    ledger.acknowledge(second, 7)

    audit = ledger.audit([(5, first.name, first.money), (6, second.name, second.money)])

    assert audit.contradicted == [second.name]
    assert audit.acknowledged == 2


async def test_the_audit_compares_amounts_of_a_real_table(owner: Owner) -> None:
    """PostgreSQL returns amounts as they were sent. The audit finds a deleted and a duplicated row."""
    ledger = Ledger("drill")
    insert = "INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id"
    for _ in range(50):
        add = ledger.new()
        add.tries = 1
        ledger.acknowledge(add, await owner.fetchval(insert, add.name, add.money))

    async def rows() -> list[Any]:
        found = await owner.fetch(harness._ROWS, harness.SEEDED, flood.NAME)
        return [(row["id"], row["name"], row["money"]) for row in found]

    assert not any(ledger.audit(await rows()).violations.values())
    await owner.execute("DELETE FROM clients WHERE name = 'drill 7'")
    await owner.execute("INSERT INTO clients (name, money) SELECT name, money FROM clients WHERE name = 'drill 8'")
    audit = ledger.audit(await rows())
    assert (audit.lost, audit.duplicated, audit.unexpected) == (["drill 7"], ["drill 8"], [])
