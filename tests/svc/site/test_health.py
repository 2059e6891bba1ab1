"""The health endpoints: liveness, readiness and version."""

from svc import __version__
from svc.http.lifecycle import Lifecycle
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import Client, Owner


async def test_a_running_service_is_alive(api: Client) -> None:
    """GET /healthz is 200."""
    assert (await api.get("/healthz")).status == 200


async def test_a_service_with_a_database_is_ready(api: Client) -> None:
    """GET /readyz is 200 while the database answers."""
    assert (await api.get("/readyz")).status == 200


async def test_version_has_the_version_and_the_build(api: Client) -> None:
    """GET /version has the package's version and the configured build."""
    assert await (await api.get("/version")).json() == {"version": __version__, "build": "tests"}


async def test_a_draining_service_is_alive_but_not_ready(api: Client, lifecycle: Lifecycle) -> None:
    """While the service drains, /readyz is 503 with the reason, and each response closes its connection."""
    lifecycle.draining = True
    ready, alive, client = await api.get("/readyz"), await api.get("/healthz"), await api.get("/get/1")

    assert (ready.status, alive.status, client.status) == (503, 200, 200)
    assert (await ready.json(content_type=None))["detail"] == "The service is shutting down."
    assert ready.headers["Retry-After"] == "1"
    assert {response.headers["Connection"] for response in (ready, alive, client)} == {"close"}


async def test_without_its_database_the_service_is_alive_but_not_ready(api: Client, postgres: EmbeddedPostgres) -> None:
    """While the database is unavailable, responses are 503 with Retry-After and do not reveal the database's host."""
    postgres.stop()
    try:
        ready, alive, client = await api.get("/readyz"), await api.get("/healthz"), await api.get("/get/1")
    finally:
        postgres.start()

    assert (ready.status, alive.status, client.status) == (503, 200, 503)
    assert "unavailable" in (await ready.json(content_type=None))["detail"]
    for response in (ready, client):
        assert response.headers["Retry-After"] == "1"
        assert str(postgres.data) not in await response.text()


async def test_a_service_that_was_ready_stays_so_without_its_database(
    api: Client, postgres: EmbeddedPostgres, lifecycle: Lifecycle
) -> None:
    """GET /readyz is 200 with the problem: a balancer without instances could not say it. A drain ends that."""
    assert await (await api.get("/readyz")).json() == {"status": "ready"}
    postgres.stop()
    try:
        ready, client = await api.get("/readyz"), await api.get("/get/1")
        lifecycle.draining = True
        draining = await api.get("/readyz")
    finally:
        postgres.start()

    assert (ready.status, client.status, draining.status) == (200, 503, 503)
    problem = "The database is unavailable, or does not answer in time."
    assert await ready.json() == {"status": "ready", "problem": problem}


async def test_a_service_with_a_database_that_is_not_migrated_is_not_ready(api: Client, owner: Owner) -> None:
    """GET /readyz is 503, and its detail has the reason."""
    await owner.execute("ALTER TABLE clients RENAME TO others")
    response = await api.get("/readyz")

    assert response.status == 503
    assert "not migrated" in (await response.json(content_type=None))["detail"]


async def test_a_service_whose_schema_is_older_than_its_build_is_not_ready(api: Client, owner: Owner) -> None:
    """GET /readyz is 503 and names the migrations that are missing, until the database has them."""
    (removed,) = await owner.fetch("DELETE FROM schema_migrations WHERE version = '0002' RETURNING version")
    older = await api.get("/readyz")
    await owner.execute("INSERT INTO schema_migrations VALUES ($1)", removed["version"])
    current = await api.get("/readyz")

    assert (older.status, current.status) == (503, 200)
    detail = (await older.json(content_type=None))["detail"]
    assert detail == "The database's schema is older than this build: it lacks migration 0002."


async def test_a_service_whose_schema_is_newer_than_its_build_is_ready(api: Client, owner: Owner) -> None:
    """GET /readyz is 200: the build before a migration serves until the next one is rolled out."""
    await owner.execute("INSERT INTO schema_migrations VALUES ('9999')")

    assert (await api.get("/readyz")).status == 200


async def test_a_service_with_a_read_only_database_is_ready(api: Client, owner: Owner, test_database: str) -> None:
    """GET /readyz is 200, since gets are served."""
    await owner.execute(f"ALTER DATABASE {test_database} SET default_transaction_read_only = on")

    assert (await api.get("/readyz")).status == 200
    assert (await api.post("/add?name=Ann&money=1")).status == 503
