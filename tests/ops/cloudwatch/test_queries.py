"""The queries for people on call: each is understood, and finds what it is for in what the service really tells."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from aiohttp import ClientSession

from ops.common.process import ROOT, Service
from ops.oncall import insights
from ops.oncall.insights import Table
from ops.oncall.logs import APPLICATION, METRICS, LogStore, Record, Value
from svc.logs import names
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import SERVICE_ROLE, Databases
from tests.svc.logs import lines

FILES: Final = {file.stem: file for file in (ROOT / "ops" / "cloudwatch" / "queries").glob("*.txt")}
EACH: Final = pytest.mark.parametrize("name", sorted(FILES))

Groups: TypeAlias = dict[str, list[Record]]


def seen(told: Iterable[str]) -> Groups:
    """The log's groups, of the lines of a real run."""
    store = LogStore()
    for line in told:
        store.add(json.loads(line), line)
    return {group: store.recent(group, 0, float("inf")) for group in (APPLICATION, METRICS)}


def group_of(name: str) -> str:
    """The group that a query's comments name."""
    (group,) = re.findall(r"^# group: (.*)$", FILES[name].read_text(), re.MULTILINE)
    return str(group)


def ask(name: str, groups: Groups) -> Table:
    """What a query finds, with what people put in: the ids of a request that met an error of the service's own."""
    (failed,) = (one for one in groups[APPLICATION] if one["log_processed.status"] == 500)
    query = FILES[name].read_text()
    for place, field in (("REQUEST-ID", "log_processed.request_id"), ("TRACE-ID", "log_processed.xray_trace_id")):
        query = query.replace(place, str(failed[field]))
    return insights.run(insights.parse(query), groups[group_of(name)])


def column(table: Table, name: str) -> list[Value]:
    return [row[table.columns.index(name)] for row in table.rows]


@pytest.fixture(scope="module")
def told(postgres: EmbeddedPostgres, databases: Databases) -> Iterator[list[str]]:
    """The lines of a run in which all happens that queries are for."""
    database = asyncio.run(databases.new())
    service = Service(
        {
            "DATABASE_URL": postgres.dsn(SERVICE_ROLE, database),
            "WORKERS": "2",
            "LOG_FORMAT": "json",
            "METRICS_INTERVAL": "1",
            "DRAIN_SECONDS": "0",
            "MAX_QUEUE": "1",
            "DB_STATEMENT_SECONDS": "1",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1,k8s.node.name=node-1,k8s.cluster.name=olimac",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # where nobody listens, which a library will tell
            "OTEL_TRACES_SAMPLER": "always_on",
        }
    )
    try:
        service.wait_until_listening()
        asyncio.run(_happen(service, postgres, database))
        service.stop()
        yield [json.dumps(record) for record in lines.records(service.output)]
    finally:
        service.end()
        asyncio.run(databases.drop(database))


@pytest.fixture(scope="module", name="groups")
def group_what_was_told(told: list[str]) -> Groups:
    return seen(told)


async def _happen(service: Service, postgres: EmbeddedPostgres, database: str) -> None:
    service.workers()[0].kill()
    await asyncio.sleep(2)  # its short life is followed by a pause; then another one serves
    owner = await asyncpg.connect(postgres.dsn(database=database))
    for path in ("get/1", "getall", "get/999", "get/x", "add?name=A&money=1"):
        await _ask(service, path)
    async with owner.transaction():
        await owner.execute("LOCK TABLE clients")
        # Equal questions are asked once, so these differ.
        await asyncio.gather(*(_ask(service, f"get/{number}") for number in range(20)))
    await owner.execute("ALTER TABLE clients RENAME TO others")
    await _ask(service, "get/1")
    await _ask(service, "readyz")
    await owner.execute("ALTER TABLE others RENAME TO clients")
    await owner.close()
    await asyncio.to_thread(postgres.stop)
    await _ask(service, "get/1")
    postgres.start()  # here, not in a thread: the server ends with the thread that started it
    async with asyncio.timeout(30):
        while names.DATABASE_RECOVERED not in service.output:  # told by the worker that missed it
            await _ask(service, "get/1")
    await asyncio.sleep(1.5)  # metrics are told each second


async def _ask(service: Service, path: str) -> None:
    method = "POST" if path.startswith("add") else "GET"
    async with ClientSession() as session, session.request(method, f"{service.url}/{path}") as answer:
        await answer.read()


# What a file says.


def test_there_are_queries() -> None:
    """With names as people type them."""
    assert len(FILES) >= 20
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in FILES)


@EACH
def test_a_file_says_what_it_answers_and_where_to_ask(name: str) -> None:
    """Its first lines are sentences for people and the log group; then there is nothing but the query."""
    said, _, query = FILES[name].read_text().partition(f"# group: {group_of(name)}\n")

    assert group_of(name) in {APPLICATION, METRICS}
    assert all(re.fullmatch(r"# [A-Z].*[.?]", line) for line in said.splitlines())
    assert said
    assert "#" not in query
    assert query.endswith("\n")
    assert max(map(len, query.splitlines())) <= 120


def test_each_event_is_looked_for() -> None:
    """An event that no query finds would be found by nobody."""
    asked = " ".join(file.read_text() for file in FILES.values())

    assert [event for event in names.EVENTS if f'"{event}"' not in asked] == []


# What it finds in a real run.


@EACH
def test_a_query_reads_what_the_service_tells(name: str, groups: Groups) -> None:
    """Each field that it reads is in a record of its group, and each name that it makes is no field's there."""
    query = insights.parse(FILES[name].read_text())
    records = groups[group_of(name)]
    read = insights.fields_of(query)
    made = set(insights.run(query, ()).columns) - read

    assert [field for field in read if all(record[field] is None for record in records)] == []
    assert [field for field in made if any(record[field] is not None for record in records)] == []


@EACH
def test_a_query_finds_something(name: str, groups: Groups) -> None:
    """There are rows, and no column is empty in all of them."""
    table = ask(name, groups)

    assert table.rows
    assert [one for one in table.columns if set(column(table, one)) == {None}] == []


def test_requests_are_counted_as_they_are_logged(told: list[str], groups: Groups) -> None:
    """Routes, statuses and callers add up to the requests' lines."""
    requests = lines.requests("\n".join(told))
    routes, refused = Counter(one["route"] for one in requests), [one for one in requests if one["status"] >= 400]
    latencies, errors, callers = (ask(name, groups) for name in ("latency-percentiles", "errors-by-route", "callers"))

    assert _summed(latencies, "log_processed.route") == routes
    assert _summed(ask("where-time-goes", groups), "log_processed.route") == routes
    assert _summed(errors, "log_processed.status") == Counter(one["status"] for one in refused)
    assert _summed(callers, "log_processed.client") == {"127.0.0.1": len(requests)}
    assert column(callers, "refused_or_failed") == [len(refused)]
    assert column(callers, "bytes_sent") == [sum(one["bytes"] for one in requests)]


def _summed(table: Table, by: str) -> dict[Any, int]:
    summed: Counter[Any] = Counter()
    for value, requests in zip(column(table, by), column(table, "requests"), strict=True):
        summed[value] += int(str(requests))
    return summed


def test_faults_lead_to_the_request_and_its_traceback(groups: Groups) -> None:
    """All kinds of them are there, and one's id finds its line and its traceback."""
    faults, failed = ask("faults", groups), ask("one-request", groups)

    assert set(column(faults, "log_processed.error")) >= {
        *("DatabaseBusy", "DatabaseUnavailable", "NotReady", "QueryTimedOut", "UndefinedTableError"),
    }
    assert set(column(faults, "log_processed.status")) == {500, 503, 504}
    assert sorted(map(str, column(failed, "log_processed.event"))) == [names.REQUEST, names.REQUEST_FAILED]
    assert any("UndefinedTableError" in str(text) for text in column(failed, "log_processed.exception"))
    (trace,) = set(column(failed, "log_processed.xray_trace_id")) - {None}
    assert trace in column(faults, "log_processed.xray_trace_id")
    assert column(ask("failures", groups), "log_processed.route") == ["/get/{id}"]


def test_outages_and_deaths_are_told_in_order(groups: Groups) -> None:
    """The database was not ready, away and back; a worker was killed, and all were told to stop."""
    outages, restarts = ask("database-outages", groups), ask("restarts", groups)

    assert column(outages, "log_processed.event")[-2:] == [names.DATABASE_UNAVAILABLE, names.NOT_READY]
    assert names.DATABASE_RECOVERED in column(outages, "log_processed.event")[:-2]
    assert set(column(restarts, "log_processed.exit_status")) == {None, -9}
    assert set(column(restarts, "log_processed.signal")) == {None, "SIGTERM"}
    assert set(column(restarts, "log_processed.event")) == {
        *(names.STARTED, names.STOPPING, names.STOPPED, names.WORKER_EXITED),
    }


def test_metrics_are_told_by_pod_and_build(groups: Groups) -> None:
    """As the documents' own fields name them."""
    assert column(ask("noisy-pod", groups), "pod") == ["pod-1"]
    assert set(column(ask("deployments", groups), "build")) == {"development"}
    assert column(ask("dropped-lines", groups), "lines_dropped") == [0]
    assert {"get", "page"} <= set(column(ask("round-trips", groups), "Operation"))


# What holds it.


def test_a_line_is_kept_as_it_is_shipped(told: list[str], groups: Groups) -> None:
    """Fluent Bit puts a line of the service beside its pod; a document stays what it is, since CloudWatch reads it."""
    line = next(line for line in told if json.loads(line).get("event") == names.REQUEST)
    record = next(one for one in groups[APPLICATION] if one["log_processed.event"] == names.REQUEST)
    document = next(line for line in told if "_aws" in json.loads(line))

    assert json.loads(record.message) == {
        "time": json.loads(line)["timestamp"],
        "stream": "stdout",
        "log_processed": json.loads(line),
        "kubernetes": {
            "namespace_name": "clients",
            "container_name": "clients-api",
            "pod_name": record["kubernetes.pod_name"],
        },
    }
    assert str(record["@timestamp"]) == json.loads(line)["timestamp"].replace("T", " ").removesuffix("Z")
    assert groups[METRICS][0].message == document
    assert groups[METRICS][0].timestamp_ms == json.loads(document)["_aws"]["Timestamp"]


def test_the_oldest_give_way_also_in_their_traces() -> None:
    """A group keeps so many; a trace is found while there is a line of it."""
    store = LogStore(most=3)
    for number, trace in enumerate("abacaa"):
        record = {"event": "request", "timestamp": f"2026-01-01T12:00:00.00{number}Z", "trace_id": trace}
        store.add(record, json.dumps(record))

    def numbers(found: Iterable[Record]) -> list[int]:
        return [record.timestamp_ms % 1000 for record in found]

    assert numbers(store.recent(APPLICATION, 0, float("inf"))) == [3, 4, 5]
    assert numbers(store.of_trace("a")) == [4, 5]
    assert numbers(store.of_trace("c")) == [3]
    assert store.of_trace("b") == []
    noon_ms = 1_767_268_800_000
    assert numbers(store.recent(APPLICATION, noon_ms + 4, noon_ms + 5)) == [4]
    assert store.recent(METRICS, 0, float("inf")) == []


def test_what_is_no_event_of_the_log_is_left_out() -> None:
    """A recording has spans as well."""
    store = LogStore()
    store.add({"resourceSpans": []}, '{"resourceSpans": []}')

    assert store.recent(APPLICATION, 0, float("inf")) == store.recent(METRICS, 0, float("inf")) == []
