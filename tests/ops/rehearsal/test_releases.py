"""The releases of a rehearsal: what each changes, and what their callers must not see."""

import ssl
from pathlib import Path

import asyncpg
import pytest

from ops.rehearsal import images, traffic
from ops.rehearsal.images import migrations
from ops.rehearsal.steps import BAD_MIGRATION, IMAGE, NEVER_READY, ROOT, SECOND
from ops.rehearsal.traffic import Traffic
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import Owner


async def test_each_release_fails_where_it_should(tmp_path: Path, owner: Owner) -> None:
    """The second's migration only adds, the next one's fails, and the last one's readiness asks for too much."""
    sources = images.write(tmp_path / "images")
    second, bad = migrations(sources[SECOND]), migrations(sources[BAD_MIGRATION])
    (new,), (failing,) = second - migrations(sources[IMAGE]), bad - second

    def statement(image: str, version: str) -> str:
        (file,) = (sources[image] / "sql" / "migrations").glob(f"{version}_*.sql")
        return file.read_text()

    await owner.execute(statement(SECOND, new))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await owner.execute(statement(BAD_MIGRATION, failing))
    with pytest.raises(asyncpg.UndefinedColumnError):
        await owner.execute((sources[NEVER_READY] / "sql" / "queries" / "ready.sql").read_text())
    assert migrations(sources[NEVER_READY]) == second
    assert sources[IMAGE] == ROOT


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (Traffic(requests=5), ""),
        (Traffic(), "no request was sent"),
        (Traffic(requests=5, failures=["GET /get/1: 503"]), "1 failed: ['GET /get/1: 503']"),
        (Traffic(requests=5, lost=[7]), "1 acknowledged clients are lost: [7]"),
        (Traffic(requests=5, without_schema=["b"]), "1 responses came from a build without its schema: ['b']"),
    ],
)
def test_what_callers_must_not_see_is_a_problem(seen: Traffic, problem: str) -> None:
    """The message has examples."""
    assert seen.problem() == problem


def test_a_build_is_compared_with_the_schema_before_its_response() -> None:
    """A newer schema is fine."""
    seen = Traffic()
    tls = ssl.create_default_context()
    callers = traffic._Callers(seen, "https://127.0.0.1:1", "none.example", tls, "", {"old": {"1"}, "new": {"1", "2"}})
    callers._check_schema("old", {"1", "2"})
    callers._check_schema("new", {"1", "2"})
    before = list(seen.without_schema)
    callers._check_schema("new", {"1"})

    assert before == []
    assert seen.without_schema == ["new without 2"]
    assert seen.builds == {"old": 1, "new": 2}


async def test_requests_that_fail_and_clients_that_are_lost_are_counted(
    postgres: EmbeddedPostgres, test_database: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens at the address; a client that was acknowledged is not in the database."""
    monkeypatch.setattr(traffic, "_ROUNDS", 1)
    seen = Traffic(added=[1, 999_999])
    tls = ssl.create_default_context()
    dsn = postgres.dsn(database=test_database)
    callers = traffic._Callers(seen, "https://127.0.0.1:1", "none.example", tls, dsn, {})
    rounds = iter([False] * 4 + [True] * 4)
    await callers.run(lambda: next(rounds))

    assert await owner.fetchval("SELECT count(*) FROM clients WHERE id = 1") == 1
    assert (seen.requests, len(seen.failures), seen.lost) == (12, 12, [999_999])
    assert seen.failures[0].startswith("GET /get/1: Client")
