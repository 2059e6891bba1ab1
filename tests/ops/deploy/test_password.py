"""python -m ops rotate-password: the service gets a new password of its database, without a refused request."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from ops.deploy import common, database
from ops.deploy.kubernetes import Kubernetes, secret_data
from ops.rehearsal import kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object
from ops.rehearsal.steps import IMAGE, ROOT
from svc.postgres.embedded import EmbeddedPostgres
from svc.postgres.settings import SERVICE_ROLES
from tests.ops.deploy.fixtures import (
    Account,
    Kubectl,
    MockAws,
    NoLoadBalancers,
    Result,
    Run,
    prepare_database,
    running_cluster,
    running_database,
)
from tests.ops.deploy.requests import Callers, deploy
from tests.ops.deploy.test_database import secret

pytestmark = [pytest.mark.slow, pytest.mark.deployment]

Command = Callable[..., Result]


@pytest.fixture(name="server")
def run_server(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it, behind a TLS proxy at the address that RDS returns."""
    with running_database(mock_aws) as server:
        yield server


@pytest.fixture(name="controllers")
def make_controllers(tmp_path: Path) -> Controllers:
    return Controllers({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())


@pytest.fixture(name="cluster")
def run_cluster(
    mock_aws: MockAws,
    account: Account,
    controllers: Controllers,
    server: EmbeddedPostgres,
    production_objects: list[Object],
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the service, and its real pods, which hardly keep a connection open."""
    with running_cluster(mock_aws, account, controllers.running) as cluster:
        prepare_database(mock_aws, account, server)
        deploy(account, production_objects, {"DRAIN_SECONDS": "3", "DB_IDLE_SECONDS": "0.1"})
        yield cluster


@pytest.fixture(name="command")
def make_command(run: Run, mock_aws: MockAws, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command with the database's CA certificates."""
    monkeypatch.setattr(common, "poll_seconds", 0.4)  # polls start kubectl, which slows the Jobs down
    return lambda *arguments: run(*arguments, "--authority", str(mock_aws.ca.certificate))


def can_log_in(server: EmbeddedPostgres, user: str, password: str) -> bool:
    """Whether the role can log in over TCP, where a password is needed."""

    async def connect() -> bool:
        port = int(re.findall(r"port=(\d+)", server.dsn())[0])
        try:
            connection = await asyncpg.connect(
                host="127.0.0.1", port=port, user=user, password=password, database="clients", ssl=False
            )
        except asyncpg.InvalidPasswordError:
            return False
        await connection.close()
        return True

    return asyncio.run(connect())


def test_no_request_is_refused_while_the_password_changes(
    server: EmbeddedPostgres,
    cluster: kubernetes.Cluster,
    account: Account,
    controllers: Controllers,
    command: Command,
    kubectl: Kubectl,
) -> None:
    """From one role to the other, and on after a run that failed: each request is served, and old passwords refused.

    That run had written the Secret and ended. The next one first moves the pods, whose role it would give a new
    password.
    """
    used = [secret(cluster)]
    with Callers(controllers).calling() as callers:
        callers.wait_for(2, 201)
        first = command("rotate-password")
        used.append(secret(cluster))
        callers.wait_for(2, 201)
        used.append(_rotate_and_fail(account))
        second = command("rotate-password")
        used.append(secret(cluster))
        callers.wait_for(2, 201)

    assert (first.status, first.stderr, second.status, second.stderr) == (0, "", 0, "")
    assert (callers.statuses("add"), callers.statuses("get")) == ({201}, {200})
    roles = ["clients_service", "clients_service_b", "clients_service", "clients_service_b"]
    assert [one["DB_USERNAME"] for one in used] == roles
    assert len({one["DB_PASSWORD"] for one in used}) == 4
    accepted = [can_log_in(server, one["DB_USERNAME"], one["DB_PASSWORD"]) for one in used]
    assert accepted == [False, False, False, True]
    arguments = " ".join(argument for call in kubectl.calls() for argument in call.arguments)
    for one in used:
        assert one["DB_PASSWORD"] not in first.stdout + second.stdout + arguments + server.log.read_text()


def _rotate_and_fail(account: Account) -> dict[str, str]:
    """Does what the command does up to the Secret; returns the Secret's content, which no pod has yet."""
    found = Kubernetes(account.outputs)
    jobs = database.Jobs(found, account.outputs, IMAGE, _ca(found))
    before = secret_data(found.get("clients", "secret", "database"))
    written = {**before, "DB_USERNAME": "clients_service", "DB_PASSWORD": "of-the-failed-run"}
    jobs.migrate(database.find(account.outputs), written)
    found.apply(database._secret("database", written))
    return written


def _ca(cluster: Kubernetes) -> str:
    found = cluster.get("clients", "configmap", "database-ca")
    assert found
    bundle: str = found["data"]["ca.pem"]
    return bundle


def test_the_roles_are_those_of_the_service() -> None:
    """Its migrations know no others."""
    assert database.SERVICE_ROLES == SERVICE_ROLES


def test_a_cluster_without_the_service_is_an_error(mock_aws: MockAws, account: Account, command: Command) -> None:
    """Nothing was deployed yet."""
    with running_cluster(mock_aws, account):
        result = command("rotate-password")

    assert result.status == 1
    assert result.stderr == "error: there is no deployment clients-api in clients: deploy the service first\n"
