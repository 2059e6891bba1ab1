"""The saved queries: each is valid, and finds what it is for in the log of a real run."""

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from aiohttp import ClientSession

from ops.common.process import ROOT
from ops.oncall import insights
from ops.oncall.insights import Table
from ops.oncall.logs import LINES, METRICS, LogStore, Record, Value
from svc.http.access import digest
from svc.logs import names
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases
from tests.patience import PATIENCE_SECONDS
from tests.service import Service
from tests.svc.logs import lines
from tests.svc.postgres.locks import wait_for_locks

pytestmark = pytest.mark.slow

KEY: Final = "correct-horse"
FILES: Final = {file.stem: file for file in (ROOT / "ops" / "cloudwatch" / "queries").glob("*.txt")}
EACH: Final = pytest.mark.parametrize("name", sorted(FILES))

Groups: TypeAlias = dict[str, list[Record]]


def group_of(name: str) -> str:
    """The log group that a query's comments name."""
    (group,) = re.findall(r"^# group: (.*)$", FILES[name].read_text(), re.MULTILINE)
    return str(group)


def run(name: str, groups: Groups) -> Table:
    """The result of a query. Its placeholders become the IDs of the request that failed with a 500."""
    (failed,) = (one for one in groups[LINES] if one["status"] == 500)
    query = FILES[name].read_text()
    for placeholder in ("REQUEST-ID", "TRACE-ID"):
        query = query.replace(placeholder, str(failed["trace_id"]))
    return insights.run(insights.parse(query), groups[group_of(name)])


def column(table: Table, name: str) -> list[Value]:
    return [row[table.columns.index(name)] for row in table.rows]


@pytest.fixture(scope="module")
def log(postgres: EmbeddedPostgres, databases: Databases) -> Iterator[list[str]]:
    """The log lines of a run that contains everything that the queries look for."""
    database = asyncio.run(databases.new())
    service = Service(
        {
            "DATABASE_URL": postgres.dsn(SERVICE_ROLE, database),
            "WORKERS": "2",
            "LOG_FORMAT": "json",
            "LOG_LINES_PER_SECOND": "0",  # a line for each request
            "METRICS_INTERVAL": "1",
            "DRAIN_SECONDS": "0",
            "TRUSTED_PROXIES": "127.0.0.1",
            "API_KEY_HASHES": f"billing:{digest(KEY).hex()}",
            "MAX_CONCURRENT": "8",
            "MAX_QUEUE": "1",
            "DB_ACQUIRE_SECONDS": "0.2",
            "DB_POOL_SIZE": "1",
            "DB_STATEMENT_SECONDS": "5",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.node.name=node-1,k8s.cluster.name=olimac",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # no one listens there, so a library logs an error
            "OTEL_TRACES_SAMPLER": "always_on",
        }
    )
    try:
        service.wait_until_listening()
        asyncio.run(_use(service, postgres, database))
        service.stop()
        yield [json.dumps(record) for record in lines.records(service.output)]
    finally:
        service.end()
        asyncio.run(databases.drop(database))


@pytest.fixture(scope="module")
def groups(log: list[str]) -> Groups:
    """The records of each log group."""
    store = LogStore()
    for line in log:
        store.add(json.loads(line), line)
    return {group: store.recent(group, 0, float("inf")) for group in (LINES, METRICS)}


async def _use(service: Service, postgres: EmbeddedPostgres, database: str) -> None:
    await _started(service, 2)
    service.workers()[0].kill()
    await _started(service, 3)  # the new one too
    owner = await asyncpg.connect(postgres.dsn(database=database))
    for path in ("get/1", "getall", "get/999", "get/x", "add?name=A&money=1"):
        await _request(service, path)
    async with owner.transaction():
        await owner.execute("LOCK TABLE clients")
        # The ids differ because equal ones would share an item of the batch.
        stuck = asyncio.gather(*(_request(service, f"get/{number}") for number in range(6)))
        await wait_for_locks(owner, 1)
        # In a worker whose batch is stuck, some of these wait for the database, and the others for a slot.
        await asyncio.gather(stuck, *(_request(service, f"get/{number}") for number in range(6, 40)))
    await owner.execute("ALTER TABLE clients RENAME TO others")
    await owner.execute("CREATE VIEW clients AS SELECT id, name, money / 0 AS money FROM others")
    await owner.execute("GRANT SELECT ON clients TO clients_service")
    await _request(service, "get/1")
    await owner.execute("DROP VIEW clients")
    await _request(service, "get/1")
    await _request(service, "readyz")
    await owner.execute("ALTER TABLE others RENAME TO clients")
    await owner.close()
    await asyncio.to_thread(postgres.stop)
    await _request(service, "get/1")
    postgres.start()  # not in a thread: the server exits with the thread that started it
    async with asyncio.timeout(PATIENCE_SECONDS):
        while names.DATABASE_RECOVERED not in service.output:  # logged by the worker that noticed the outage
            await _request(service, "get/1")


async def _started(service: Service, workers: int) -> None:
    """Waits until so many workers have started."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.output.count(f'"event":"{names.STARTED}"') < workers:  # noqa: ASYNC110 - they write to a file
            await asyncio.sleep(0.05)


async def _request(service: Service, path: str) -> None:
    method = "POST" if path.startswith("add") else "GET"
    headers = {"Authorization": f"Bearer {KEY}"}
    if path == "getall":
        headers |= {"X-Request-Id": "its-callers-own", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with ClientSession(service.url, headers=headers) as session, session.request(method, f"/{path}") as response:
        await response.read()


# The files.


def test_there_are_queries() -> None:
    """There are at least 20 queries, with names in lower case."""
    assert len(FILES) >= 20
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in FILES)


@EACH
def test_comments_describe_a_query_and_name_its_group(name: str) -> None:
    """A file starts with comments: sentences, the last of which may say what no result means, then the log group."""
    description, _, query = FILES[name].read_text().partition(f"# group: {group_of(name)}\n")

    assert group_of(name) in {LINES, METRICS}
    assert all(re.fullmatch(r"# (if empty: )?[A-Z].*[.?]", line) for line in description.splitlines())
    assert description
    assert "#" not in query
    assert query.endswith("\n")
    assert max(map(len, query.splitlines())) <= 120


def test_each_event_is_in_a_query() -> None:
    """A query filters by each event of the service's catalogue."""
    queries = " ".join(file.read_text() for file in FILES.values())

    assert [event for event in names.EVENTS if f'"{event}"' not in queries] == []


# The results in a real run.


@EACH
def test_a_query_reads_existing_fields(name: str, groups: Groups) -> None:
    """Each field that a query reads is in a record of its group; a name that it defines is not."""
    query = insights.parse(FILES[name].read_text())
    records = groups[group_of(name)]
    read = insights.fields_of(query)
    defined = set(insights.run(query, ()).columns) - read

    assert [field for field in read if all(record[field] is None for record in records)] == []
    assert [field for field in defined if any(record[field] is not None for record in records)] == []


@EACH
def test_a_query_finds_something(name: str, groups: Groups) -> None:
    """A query finds rows, and no column is empty in all of them."""
    table = run(name, groups)

    assert table.rows
    assert [one for one in table.columns if set(column(table, one)) == {None}] == []


def test_requests_are_counted_as_they_are_logged(log: list[str], groups: Groups) -> None:
    """The counts by route, by status and by caller equal those of the request lines."""
    requests = lines.requests("\n".join(log))
    routes, refused = Counter(one["route"] for one in requests), [one for one in requests if one["status"] >= 400]
    latencies, errors, callers = (run(name, groups) for name in ("latency-by-route", "errors-by-route", "callers"))

    assert _summed(latencies, "route") == routes
    assert _summed(run("latency-breakdown", groups), "route") == routes
    assert _summed(errors, "status") == Counter(one["status"] for one in refused)
    assert _summed(callers, "who") == Counter(one.get("caller", one["client"]) for one in requests)
    assert set(column(callers, "who")) == {"billing", "127.0.0.1"}  # a probe has no key
    assert sum(map(int, map(str, column(callers, "refused_or_failed")))) == len(refused)
    assert sum(map(int, map(str, column(callers, "bytes_sent")))) == sum(one["bytes"] for one in requests)


def _summed(table: Table, by: str) -> dict[Any, int]:
    summed: Counter[Any] = Counter()
    for value, requests in zip(column(table, by), column(table, "requests"), strict=True):
        summed[value] += int(str(requests))
    return summed


def test_a_fault_leads_to_its_request_and_traceback(groups: Groups) -> None:
    """The query for faults finds all kinds, and the ID of one finds its line and its traceback."""
    faults, failed = run("faults", groups), run("one-request", groups)

    assert set(column(faults, "error")) >= {
        *("DatabaseBusy", "DatabaseNotMigrated", "DatabaseUnavailable", "NotReady", "QueryTimedOut", "RowRefused"),
        "ServiceBusy",
    }
    assert set(column(faults, "status")) == {500, 503, 504}
    assert sorted(map(str, column(failed, "event"))) == [names.REQUEST, names.REQUEST_FAILED]
    assert any("DivisionByZeroError" in str(text) for text in column(failed, "exception"))
    (trace,) = set(column(failed, "xray_trace_id")) - {None}
    assert trace in column(faults, "xray_trace_id")
    assert column(run("failures", groups), "route") == ["/get/{id}"]


def test_outages_and_exits_are_found_in_order(groups: Groups) -> None:
    """The queries find the database's outage and recovery, the worker that was killed, and the stop of all workers."""
    outages, restarts = run("database-outages", groups), run("restarts", groups)

    *recovered, unavailable, _, _, first = column(outages, "event")
    assert names.DATABASE_RECOVERED in recovered
    assert (unavailable, first) == (names.DATABASE_UNAVAILABLE, names.STATEMENT_REFUSED)
    assert names.NOT_READY in column(outages, "event")[-3:]
    assert set(column(restarts, "exit_status")) == {None, -9}
    assert set(column(restarts, "signal")) == {None, "SIGTERM"}
    assert set(column(restarts, "event")) == {
        *(names.STARTED, names.STOPPING, names.STOPPED, names.WORKER_EXITED),
    }


def test_metrics_are_grouped_by_pod_and_build(groups: Groups) -> None:
    """The results have the pod and the build of the documents."""
    host = socket.gethostname()
    assert set(column(run("noisy-pod", groups), "pod")) == {f"{host}-1", f"{host}-2"}
    assert set(column(run("deployments", groups), "build")) == {"development"}
    assert column(run("dropped-lines", groups), "lines_dropped") == [0, 0]
    assert {"get", "page"} <= set(column(run("round-trips", groups), "Operation"))
