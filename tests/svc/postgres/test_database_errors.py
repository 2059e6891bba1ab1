"""Errors of the database: each becomes an error of the service's own, with the right status, cause and log line."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from aiohttp import ClientResponse

from svc.clients.model import NewClient
from svc.clients.store import Added, Store
from svc.errors import (
    DatabaseNotMigrated,
    DatabaseUnavailable,
    NoFreeId,
    QueryTimedOut,
    RowRefused,
    TransactionRolledBack,
)
from svc.logs import names
from svc.postgres import database, maintenance
from svc.postgres.batching import OnRoundTrip, RoundTrip
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import DatabaseSettings
from tests.conftest import SERVICE_ROLE, Client, Log, Owner
from tests.listening import listening
from tests.patience import PATIENCE_SECONDS
from tests.svc.postgres.locks import wait_for_locks

# Counts its calls, also those that are rolled back, and raises an error at the first ones.
REFUSE = """
CREATE SEQUENCE attempts;
CREATE FUNCTION refuse() RETURNS {returns} SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
  IF session_user = '{role}' AND nextval('attempts') <= {times} THEN
    RAISE EXCEPTION 'refused' USING ERRCODE = '{state}';
  END IF;
  {result}
END
$$;
"""
ALWAYS = 1_000_000


async def refuse_adds(owner: Owner, state: str, times: int = ALWAYS) -> None:
    """Lets so many statements that add clients fail with the SQLSTATE."""
    await owner.execute(
        REFUSE.format(returns="trigger", role=SERVICE_ROLE, state=state, times=times, result="RETURN NULL;")
    )
    await owner.execute("CREATE TRIGGER refuse BEFORE INSERT ON clients FOR EACH STATEMENT EXECUTE FUNCTION refuse()")


async def refuse_logins(owner: Owner, state: str) -> None:
    """Lets each login of the service's role fail with the SQLSTATE."""
    await owner.execute(REFUSE.format(returns="event_trigger", role=SERVICE_ROLE, state=state, times=ALWAYS, result=""))
    await owner.execute("CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION refuse()")


async def attempts(owner: Owner) -> int:
    called: int = await owner.fetchval("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts")
    return called


class Batches:
    """Records the round trips of a store."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def observe(self, _operation: str, _summary: str, _sql: str) -> OnRoundTrip:
        def add(round_trip: RoundTrip) -> None:
            self.sizes.append(round_trip.items)

        return add


@asynccontextmanager
async def opened(settings: DatabaseSettings) -> AsyncIterator[tuple[Store, Batches]]:
    """A store on one connection, and its round trips."""
    settings = replace(settings, pool_size=1)
    batches = Batches()
    async with database.connect(settings) as connected:
        yield Store(connected, settings, 64, batches.observe), batches


async def add_five(store: Store) -> list[Added | BaseException]:
    """Five adds in one batch."""
    adds = (store.add(NewClient(name, Decimal(1))) for name in ("Ann", "Bob", "Cleo", "Dan", "Eve"))
    return await asyncio.gather(*adds, return_exceptions=True)


@asynccontextmanager
async def altered_role(owner: Owner, change: str, undo: str) -> AsyncIterator[None]:
    """The role belongs to the whole server, and so to the tests that follow."""
    await owner.execute(f"ALTER ROLE {SERVICE_ROLE} {change}")
    try:
        yield
    finally:
        await owner.execute(f"ALTER ROLE {SERVICE_ROLE} {undo}")


@pytest.mark.parametrize("state", ["28000", "42501", "42P01", "40001", "55000", "57014", "58000", "P0001", "XX000"])
async def test_whatever_error_a_login_gets_there_is_no_database(
    database_settings: DatabaseSettings, owner: Owner, state: str
) -> None:
    """Any error before the connection is ready is DatabaseUnavailable; each batch tries one connection, unsplit."""
    await refuse_logins(owner, state)
    async with opened(database_settings) as (store, batches):
        results = await add_five(store)

    assert {type(result) for result in results} == {DatabaseUnavailable}
    assert batches.sizes == [5]
    assert await attempts(owner) == 1


@pytest.mark.parametrize(
    ("change", "undo"), [("NOLOGIN", "LOGIN"), ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1")], ids=["NOLOGIN", "limit"]
)
async def test_a_role_that_may_not_log_in_has_no_database(api: Client, owner: Owner, change: str, undo: str) -> None:
    """Requests get 503, and the next login after the change is served."""
    async with altered_role(owner, change, undo):
        responses = [await api.get("/get/1"), await api.post("/add?name=Ann&money=1"), await api.get("/readyz")]
        problems = [await response.json(content_type=None) for response in responses]
    assert [problem["title"] for problem in problems] == ["Database unavailable", "Database unavailable", "Not ready"]
    assert (await api.get("/get/1")).status == 200


@pytest.mark.parametrize(
    "change", ["REVOKE CONNECT ON DATABASE {0} FROM PUBLIC", "ALTER DATABASE {0} ALLOW_CONNECTIONS false"]
)
async def test_a_database_that_takes_no_connections_is_unavailable(
    api: Client, postgres: EmbeddedPostgres, test_database: str, change: str
) -> None:
    """Requests get 503 where the role may not connect (42501), or no one may (55000)."""
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(change.format(test_database))
    await connection.close()
    response = await api.get("/get/1")
    assert (response.status, (await response.json(content_type=None))["title"]) == (503, "Database unavailable")


def refusal(message: bytes) -> bytes:
    fields = b"SFATAL\0VFATAL\0C28000\0M" + message + b"\0\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


@pytest.mark.parametrize(
    "sent",
    [refusal("rôle".encode("latin-1")), b"HTTP/1.1 400 Bad Request\r\n\r\n", b""],
    ids=["latin-1", "HTTP", "EOF"],
)
async def test_a_server_that_is_not_understood_is_unavailable(database_settings: DatabaseSettings, sent: bytes) -> None:
    """So is a message in the server's own encoding, which it uses before the connection is ready."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(sent)

    async with listening(respond) as port:
        dsn = f"postgresql:///x?host=127.0.0.1&port={port}&user=x&sslmode=disable"
        async with database.connect(replace(database_settings, dsn=dsn)) as connected:
            with pytest.raises(DatabaseUnavailable):
                await connected.value("SELECT 1")


async def test_the_log_names_the_servers_that_cannot_be_reached(
    database_settings: DatabaseSettings, log: Log, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """The line has each host with its port, and not the password."""
    ports = unused_tcp_port_factory(), unused_tcp_port_factory()
    dsn = f"postgresql:///x?host=127.0.0.1,localhost&port={ports[0]},{ports[1]}&user=x&password=secret&sslmode=disable"
    async with database.connect(replace(database_settings, dsn=dsn)) as connected:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await connected.value("SELECT 1")
    (line,) = log.read()
    assert line["event"] == names.DATABASE_UNAVAILABLE
    assert line["server"] == f"127.0.0.1:{ports[0]},localhost:{ports[1]}"
    assert "secret" not in str(line)


# The SQLSTATE, the error of all callers, and the statements that are sent for a batch of five.
@pytest.mark.parametrize(
    ("state", "error", "statements"),
    [
        ("08006", DatabaseUnavailable, 1),
        ("25006", DatabaseUnavailable, 1),
        ("40003", DatabaseUnavailable, 1),
        ("53100", DatabaseUnavailable, 1),
        ("53ZZZ", DatabaseUnavailable, 1),
        ("57P03", DatabaseUnavailable, 1),
        ("58030", DatabaseUnavailable, 1),
        ("XX000", DatabaseUnavailable, 1),
        ("55P03", QueryTimedOut, 1),
        ("57014", QueryTimedOut, 1),
        ("25P04", QueryTimedOut, 1),
        ("3F000", DatabaseNotMigrated, 1),
        ("42883", DatabaseNotMigrated, 1),
        ("40001", TransactionRolledBack, 2),
        ("40P01", TransactionRolledBack, 2),
        ("40002", TransactionRolledBack, 2),
        ("22003", RowRefused, 9),
        ("23514", RowRefused, 9),
        ("22ZZZ", RowRefused, 9),
        ("42601", asyncpg.PostgresSyntaxError, 1),
        ("P0001", asyncpg.RaiseError, 1),
        ("0A000", asyncpg.FeatureNotSupportedError, 1),
        ("54001", asyncpg.StatementTooComplexError, 1),
        ("ZZZZZ", asyncpg.PostgresError, 1),
    ],
)
async def test_each_sqlstate_has_its_error(
    database_settings: DatabaseSettings, owner: Owner, state: str, error: type[Exception], statements: int
) -> None:
    """A batch is split only where one of its rows may be the cause, and sent again only where it was rolled back."""
    await refuse_adds(owner, state)
    async with opened(database_settings) as (store, _):
        results = await add_five(store)

    assert [isinstance(result, error) for result in results] == [True] * 5
    assert await attempts(owner) == statements
    assert len(set(results)) == (5 if error is RowRefused else 1)  # the callers of one statement share its error
    assert await owner.fetchval("SELECT count(*) FROM clients") == 4


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_a_statement_that_was_rolled_back_is_sent_once_more(
    database_settings: DatabaseSettings, owner: Owner, state: str
) -> None:
    """Where it then succeeds, its callers notice nothing."""
    await refuse_adds(owner, state, times=1)
    async with opened(database_settings) as (store, _):
        client_id = (await store.add(NewClient("Ann", Decimal(1)), "key")).id
        assert b'"Ann"' in await store.get(client_id)
    assert await attempts(owner) == 2
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE name = 'Ann'") == 1


async def test_a_retry_in_a_stricter_isolation_level_finds_its_first_use(
    database_settings: DatabaseSettings, owner: Owner
) -> None:
    """In repeatable read, the key that another transaction commits meanwhile is a serialization failure at first."""
    client = NewClient("Ann", Decimal(1))
    setting = "default_transaction_isolation"
    async with (
        altered_role(owner, f"SET {setting} = 'repeatable read'", f"RESET {setting}"),
        opened(database_settings) as (store, _),
    ):
        async with owner.transaction():
            await owner.execute("INSERT INTO idempotency_keys VALUES ('key', $1, 3)", client.fingerprint())
            retry = asyncio.create_task(store.add(client, "key"))
            await wait_for_locks(owner, 1)
        assert (await retry).id == 3


async def test_a_lock_timeout_is_a_time_out(database_settings: DatabaseSettings, owner: Owner) -> None:
    """A database whose lock_timeout is shorter than the service's own time-outs gives QueryTimedOut."""
    async with (
        altered_role(owner, "SET lock_timeout = '50ms'", "RESET lock_timeout"),
        opened(database_settings) as (store, _),
        owner.transaction(),
    ):
        await owner.execute("LOCK TABLE clients")
        with pytest.raises(QueryTimedOut):
            await store.get(1)


async def test_a_value_that_cannot_be_encoded_is_no_outage(database_settings: DatabaseSettings) -> None:
    """The driver refuses it before anything is sent."""
    async with database.connect(database_settings) as connected:
        with pytest.raises(RowRefused):
            await connected.value("SELECT $1::text", 5)
        assert not connected.is_unavailable


async def test_an_error_of_a_statement_ends_an_outage(
    database_settings: DatabaseSettings, owner: Owner, test_database: str
) -> None:
    """A database that refuses a statement is available."""
    await owner.execute(f"REVOKE CONNECT ON DATABASE {test_database} FROM PUBLIC")
    async with database.connect(database_settings) as connected:
        with pytest.raises(DatabaseUnavailable):
            await connected.value("SELECT 1")
        assert connected.is_unavailable
        await owner.execute(f"GRANT CONNECT ON DATABASE {test_database} TO PUBLIC")
        with pytest.raises(DatabaseNotMigrated):
            await connected.value("SELECT count(*) FROM missing")
        assert not connected.is_unavailable


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("ALTER TABLE clients RENAME TO others", "/get/1"),
        ("ALTER TABLE clients RENAME COLUMN money TO amount", "/get/1"),
        ("ALTER TABLE clients ALTER id DROP IDENTITY", "/add"),
        ("ALTER TABLE idempotency_keys RENAME TO others", "/add"),
        ("ALTER TABLE idempotency_keys DROP COLUMN fingerprint", "/add"),
        ("ALTER SCHEMA public RENAME TO other", "/getall"),
    ],
)
async def test_a_database_that_is_not_migrated_has_its_own_503(
    api: Client, owner: Owner, log: Log, change: str, path: str
) -> None:
    """Requests, /readyz and one line of the log have the cause."""
    await _refused(api, owner, log, change, path, "Database not migrated", "not migrated")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("REVOKE SELECT ON clients FROM clients_service", "/get/1"),
        ("REVOKE INSERT ON clients FROM clients_service", "/add"),
        ("REVOKE USAGE ON SEQUENCE clients_id_seq FROM clients_service", "/add"),
        ("REVOKE SELECT ON idempotency_keys FROM clients_service", "/add"),
        ("REVOKE INSERT ON idempotency_keys FROM clients_service", "/add"),
        ("REVOKE UPDATE (key) ON idempotency_keys FROM clients_service", "/add"),
    ],
)
async def test_missing_rights_have_their_own_503(api: Client, owner: Owner, log: Log, change: str, path: str) -> None:
    """Requests, /readyz and one line of the log have the cause."""
    await _refused(api, owner, log, change, path, "Database rights missing", "lacks rights")


async def _refused(api: Client, owner: Owner, log: Log, change: str, path: str, title: str, cause: str) -> None:
    await owner.execute(change)
    for _ in range(3):
        response = await (_add(api, "k") if path == "/add" else api.get(path))
        problem = await response.json(content_type=None)
        assert (response.status, problem["title"], response.headers["Retry-After"]) == (503, title, "1")
    logged = [line for line in log.read() if line["event"] == names.STATEMENT_REFUSED]
    assert len(logged) == 1
    assert "run python -m svc migrate" in logged[0]["detail"]

    ready = await api.get("/readyz")
    assert ready.status == 503
    assert cause in (await ready.json(content_type=None))["detail"]
    assert cause in next(line["detail"] for line in log.read() if line["event"] == names.NOT_READY)


async def test_an_unexpected_error_is_logged_once_for_each_statement(api: Client, owner: Owner, log: Log) -> None:
    """All its callers get 500 with their request's id, which is in the log; one of them has the traceback."""
    await refuse_adds(owner, "P0001")
    responses = await asyncio.gather(*(_add(api) for _ in range(20)))
    problems = [await response.json(content_type=None) for response in responses]
    assert {(problem["status"], problem["title"]) for problem in problems} == {(500, "Internal error")}

    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(line["event"] == names.REQUEST for line in lines) < len(responses):
            await asyncio.sleep(0.01)
            lines += log.read()
    failed = [line for line in lines if line["event"] == names.REQUEST_FAILED]
    logged = {line["trace_id"]: line["error"] for line in lines if line["event"] == names.REQUEST}
    assert len(failed) == await attempts(owner)
    assert logged == {problem["request_id"]: "RaiseError" for problem in problems}
    assert {line["request_id"] for line in failed} <= logged.keys()
    assert all("RaiseError: refused" in line["exception"] for line in failed)


# The four first clients and a fifth exist.
@pytest.mark.parametrize(
    "change",
    ["SELECT setval('clients_id_seq', 1)", "ALTER SEQUENCE clients_id_seq MAXVALUE 5"],
    ids=["behind its table", "at its end"],
)
async def test_a_sequence_without_a_free_id_has_its_own_503(api: Client, owner: Owner, log: Log, change: str) -> None:
    """New adds get 503, a line of the log for each statement names the remedy, and a replay still gets its response."""
    first = await (await _add(api, "k")).json()
    await owner.execute(change)

    added = [await _add(api), await _add(api), await _add(api, "new")]
    problems = [await response.json(content_type=None) for response in added]
    assert {(problem["status"], problem["title"]) for problem in problems} == {(503, "No free id")}
    assert all("id sequence" in problem["detail"] for problem in problems)
    replayed = await _add(api, "k")
    assert (replayed.status, await replayed.json()) == (201, first)
    logged = [line["detail"] for line in log.read() if line["event"] == names.STATEMENT_REFUSED]
    assert len(logged) == 2  # adds with keys and adds without
    assert all("SELECT setval('clients_id_seq', max(id)) FROM clients" in detail for detail in logged)

    await owner.execute("ALTER SEQUENCE clients_id_seq NO MAXVALUE")
    await owner.execute("SELECT setval('clients_id_seq', max(id)) FROM clients")
    assert [(await _add(api)).status, (await _add(api, "new")).status] == [201, 201]


async def test_a_sequence_that_is_behind_refuses_only_the_adds_that_meet_a_taken_id(
    database_settings: DatabaseSettings, owner: Owner
) -> None:
    """A replay and an add that then gets a free id succeed, even where their batch had a taken one."""
    async with opened(database_settings) as (store, batches):
        first = (await store.add(NewClient("Ann", Decimal(1)), "k")).id
        await owner.execute("SELECT setval('clients_id_seq', $1)", first - 2)  # the next two are taken
        adds = [("Bob", None), ("Cleo", "c"), ("Ann", "k"), ("Dan", None)]
        results = await asyncio.gather(*(store.add(NewClient(name, Decimal(1)), key) for name, key in adds))
        await owner.execute("SELECT setval('clients_id_seq', $1)", first + 1)
        with pytest.raises(NoFreeId):
            await store.add(NewClient("Eve", Decimal(1)))
    assert [result.is_replay for result in results] == [False, False, True, False]
    assert results[2].id == first
    assert batches.sizes == [1, 4, 2, 2, 1]
    stored = {row["name"]: row["id"] for row in await owner.fetch("SELECT * FROM clients WHERE id > $1", first)}
    assert stored == {"Bob": results[0].id, "Cleo": results[1].id, "Dan": results[3].id}


async def test_a_batch_of_replays_and_new_keys_keeps_its_order(
    database_settings: DatabaseSettings, owner: Owner
) -> None:
    """Known keys, new ones and adds without a key in one statement each get their own id."""
    async with opened(database_settings) as (store, _):
        known = [(await store.add(NewClient(f"old {key}", Decimal(1)), key)).id for key in ("a", "z")]
        adds = [("x", None), ("new", "m"), ("old z", "z"), ("x", None), ("old a", "a"), ("new", "m"), ("new n", "n")]
        results = await asyncio.gather(*(store.add(NewClient(name, Decimal(1)), key) for name, key in adds))
    ids = [result.id for result in results]
    assert [ids[4], ids[2]] == known
    assert ids[1] == ids[5]
    assert len(set(ids)) == 6
    assert [result.is_replay for result in results] == [False, False, True, False, True, True, False]
    assert await owner.fetchval("SELECT count(*) FROM clients WHERE id = ANY ($1)", ids) == 6


async def test_maintenance_that_loses_its_connection_ends_in_a_sentence(
    postgres: EmbeddedPostgres, test_database: str, owner: Owner
) -> None:
    """A connection that the server closes is a MaintenanceError at the next statement, whatever the driver raises."""
    others = "SELECT count(pg_terminate_backend(pid, $1)) FROM pg_stat_activity WHERE datname = $2 AND pid <> $3"

    async def lose_the_connection() -> None:
        async with maintenance._connection(postgres.dsn(database=test_database)) as connection:
            assert await owner.fetchval(others, 1000 * PATIENCE_SECONDS, test_database, owner.get_server_pid()) == 1
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not connection.is_closed():  # noqa: ASYNC110 - asyncpg has no event for it
                    await asyncio.sleep(0.01)
            await connection.execute("SELECT 1")

    with pytest.raises(maintenance.MaintenanceError, match="connection is closed"):
        await lose_the_connection()


def _add(api: Client, key: str | None = None) -> Awaitable[ClientResponse]:
    return api.post("/add?name=Ann&money=1", headers={"Idempotency-Key": key} if key else None)
