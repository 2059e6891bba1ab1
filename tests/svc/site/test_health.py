"""Liveness, readiness and version."""

from svc import __version__
from svc.http.lifecycle import Lifecycle
from svc.postgres.embedded import EmbeddedPostgres
from tests.conftest import Client, Owner


async def test_healthz_says_that_the_process_lives(api: Client) -> None:
    """GET /healthz is 200."""
    assert (await api.get("/healthz")).status == 200


async def test_readyz_says_that_requests_are_welcome(api: Client) -> None:
    """GET /readyz is 200 while the database answers."""
    assert (await api.get("/readyz")).status == 200


async def test_version_says_what_is_running(api: Client) -> None:
    """GET /version has the version and the build."""
    assert await (await api.get("/version")).json() == {"version": __version__, "build": "tests"}


async def test_draining_is_not_ready_but_alive(api: Client, lifecycle: Lifecycle) -> None:
    """While the service drains, /readyz is 503 with the reason, and each answer closes its connection."""
    lifecycle.draining = True
    ready, alive, client = await api.get("/readyz"), await api.get("/healthz"), await api.get("/get/1")

    assert (ready.status, alive.status, client.status) == (503, 200, 200)
    assert (await ready.json(content_type=None))["detail"] == "The service is shutting down."
    assert ready.headers["Retry-After"] == "1"
    assert {answer.headers["Connection"] for answer in (ready, alive, client)} == {"close"}


async def test_a_lost_database_is_not_ready_but_alive(api: Client, postgres: EmbeddedPostgres) -> None:
    """Without its database the service says 503 with Retry-After, names no host, and lives."""
    postgres.stop()
    try:
        ready, alive, client = await api.get("/readyz"), await api.get("/healthz"), await api.get("/get/1")
    finally:
        postgres.start()

    assert (ready.status, alive.status, client.status) == (503, 200, 503)
    for answer in (ready, client):
        assert answer.headers["Retry-After"] == "1"
        assert str(postgres.data) not in await answer.text()


async def test_a_database_without_its_tables_is_not_ready(api: Client, owner: Owner) -> None:
    """A database that is not migrated is said to be the reason."""
    await owner.execute("ALTER TABLE clients RENAME TO others")
    response = await api.get("/readyz")

    assert response.status == 503
    assert "not migrated" in (await response.json(content_type=None))["detail"]
