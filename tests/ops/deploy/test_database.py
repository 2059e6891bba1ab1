"""python -m ops database: writes the database's Secrets into the cluster, and migrates and seeds it with a Job."""

import asyncio
import base64
import itertools
import json
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ops.deploy import common, database
from ops.deploy.common import aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.steps import IMAGE, ROOT
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.ops.deploy.fixtures import (
    NAMESPACE,
    Account,
    Kubectl,
    MockAws,
    NoLoadBalancers,
    Result,
    Run,
    all_objects,
    error_response,
    names,
    namespaced,
    replacing,
    running_cluster,
    running_database,
)

SEEDED = [("Andres", "200.00"), ("Camilo", "300.00"), ("Laura", "400.00"), ("Felipe", "400.00")]
Prepare = Callable[..., Result]


class CompletesJobs(Controllers):
    """Runs nothing, but reports each Job of the service's image as complete, for tests that need no database."""

    def _log(self, pod: str, container: str) -> str:
        return f"the log of {container} of {pod}"

    async def _run_job(self, store: Store, job: Object, *, is_deleted: bool) -> None:
        if not is_deleted and job["spec"]["template"]["spec"]["containers"][0]["image"] in self.images:
            pod = {"apiVersion": "v1", "kind": "Pod", **job["spec"]["template"]}
            pod["metadata"] |= {"name": "migrate-1", "namespace": "clients"}
            store.apply(kind_of("Pod"), pod)
            complete = [{"type": "Complete", "status": "True"}]
            store.set_status(kind_of("Job"), job, {"succeeded": 1, "conditions": complete})


@pytest.fixture(name="server", scope="module")
def run_server(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it, behind a TLS proxy at the address that RDS returns."""
    with running_database(mock_aws) as server:
        yield server


@pytest.fixture(name="empty_server")
def empty_the_server(server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server in its initial state: an empty database, and no role of the service."""

    async def empty() -> None:
        owner = await asyncpg.connect(server.dsn())
        await owner.execute("DROP DATABASE IF EXISTS clients WITH (FORCE)")
        await owner.execute("DROP ROLE IF EXISTS clients_service")
        await owner.execute("CREATE DATABASE clients")
        await owner.close()

    asyncio.run(empty())
    return server


@pytest.fixture(name="cluster")
def run_cluster(mock_aws: MockAws, account: Account, tmp_path: Path) -> Iterator[kubernetes.Cluster]:
    """Runs an empty cluster; it runs Jobs as processes."""
    controllers = Controllers({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running) as cluster:
        yield cluster


@pytest.fixture(name="job_completing_cluster")
def run_job_completing_cluster(mock_aws: MockAws, account: Account, tmp_path: Path) -> Iterator[kubernetes.Cluster]:
    """As `cluster`, but Jobs complete at once without running."""
    controllers = CompletesJobs({IMAGE: ROOT}, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running, [NAMESPACE]) as cluster:
        yield cluster


def create_secret(account: Account, mock_aws: MockAws, **more: str) -> dict[str, str]:
    """Creates the service's Secret as an earlier run did, with more keys; returns the rest of its content."""
    host, port = mock_aws.database
    address = {"DB_HOST": host, "DB_PORT": str(port), "DB_NAME": "clients"}
    data = {**address, "DB_USERNAME": "clients_service", "DB_PASSWORD": "earlier"}
    Kubernetes(account.outputs).apply(namespaced("Secret", "database", stringData={**data, **more}))
    return data


@pytest.fixture(name="prepare")
def make_prepare(run: Run, mock_aws: MockAws, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs the command."""
    monkeypatch.setattr(common, "poll_seconds", 0.4)  # polls start kubectl, which slows the Jobs down
    return lambda *more: run("database", "--image", IMAGE, "--authority", str(mock_aws.ca.certificate), *more)


def secret(cluster: kubernetes.Cluster, name: str = "database") -> dict[str, str]:
    """Returns the content of the Secret, empty if it does not exist."""
    found = [one for one in cluster.objects("secrets") if one["metadata"]["name"] == name]
    data = found[0]["data"] if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def clients(server: EmbeddedPostgres) -> list[tuple[Any, ...]]:
    """Returns name and money of all clients in the database."""

    async def fetch() -> list[tuple[Any, ...]]:
        owner = await asyncpg.connect(server.dsn(database="clients"))
        try:
            return [tuple(row) for row in await owner.fetch("SELECT name, money::text FROM clients ORDER BY id")]
        finally:
            await owner.close()

    return asyncio.run(fetch())


def execute_as_service(credentials: dict[str, str], mock_aws: MockAws, *statements: str) -> list[str]:
    """Executes each statement with the service's Secret; returns the name of each error, empty for success."""

    async def execute() -> list[str]:
        connection = await asyncpg.connect(
            host=credentials["DB_HOST"],
            port=int(credentials["DB_PORT"]),
            database=credentials["DB_NAME"],
            user=credentials["DB_USERNAME"],
            password=credentials["DB_PASSWORD"],
            ssl=ssl.create_default_context(cafile=mock_aws.ca.certificate),
        )
        errors = []
        for statement in statements:
            try:
                await connection.execute(statement)
                errors.append("")
            except asyncpg.PostgresError as error:
                errors.append(type(error).__name__)
        await connection.close()
        return errors

    return asyncio.run(execute())


# --- Success


def test_the_database_is_prepared_for_the_service(
    mock_aws: MockAws,
    cluster: kubernetes.Cluster,
    empty_server: EmbeddedPostgres,
    prepare: Prepare,
    run: Run,
    kubectl: Kubectl,
) -> None:
    """The Job migrates and seeds before there is any pod of the service, which then becomes ready on the database.

    No password is disclosed.
    """
    result = prepare()

    assert (result.status, result.stderr) == (0, "")
    host, port = mock_aws.database
    assert result.stdout.startswith(f"Database olimac: {host}:{port}/clients\n")
    assert "4 clients added" in result.stdout
    assert cluster.objects("deployments") == []
    credentials = secret(cluster)
    assert {**credentials, "DB_PASSWORD": ""} == {
        "DB_HOST": host,
        "DB_PORT": str(port),
        "DB_NAME": "clients",
        "DB_USERNAME": "clients_service",
        "DB_PASSWORD": "",
    }
    assert len(credentials["DB_PASSWORD"]) > 40
    assert names(cluster.objects("secrets")) == ["database"]
    assert clients(empty_server) == SEEDED
    refused = "InsufficientPrivilegeError"
    statements = ("SELECT FROM clients", "DROP TABLE clients", "DELETE FROM clients", "CREATE TABLE mine ()")
    assert execute_as_service(credentials, mock_aws, *statements) == ["", refused, refused, refused]
    for password in (mock_aws.owner_password, credentials["DB_PASSWORD"]):
        assert password not in result.stdout + result.stderr
        assert password not in empty_server.log.read_text()
        assert all(password not in argument for call in kubectl.calls() for argument in call.arguments)
    encoded = base64.b64encode(mock_aws.owner_password.encode()).decode()
    (with_password,) = [call for call in kubectl.calls() if encoded in call.stdin]
    assert json.loads(with_password.stdin)["metadata"]["name"] == "database-owner"

    applied = run("apply", "production", "--image", IMAGE)

    assert applied.status == 0, applied
    assert 'deployment "clients-api" successfully rolled out' in applied.stdout


def test_a_second_run_changes_nothing(
    cluster: kubernetes.Cluster, empty_server: EmbeddedPostgres, prepare: Prepare, mock_aws: MockAws
) -> None:
    """It keeps the password and all rows, also those that were added since."""
    prepare()
    credentials = secret(cluster)
    execute_as_service(credentials, mock_aws, "INSERT INTO clients (name, money) VALUES ('Valentina', 12.5)")

    result = prepare()

    assert result.status == 0
    assert secret(cluster) == credentials
    assert clients(empty_server) == [*SEEDED, ("Valentina", "12.50")]
    assert names(cluster.objects("jobs")) == ["migrate"]
    assert execute_as_service(credentials, mock_aws, "SELECT FROM clients") == [""]


def test_the_secret_gets_a_new_database_address(
    job_completing_cluster: kubernetes.Cluster, account: Account, prepare: Prepare, mock_aws: MockAws
) -> None:
    """It keeps the password, and loses a key that no build reads any more."""
    earlier = create_secret(account, mock_aws, DB_FORMER="dropped")
    account.database.endpoint = {**account.database.endpoint, "Address": "localhost"}

    result = prepare()

    assert result.status == 0
    assert secret(job_completing_cluster) == {**earlier, "DB_HOST": "localhost"}


def test_an_earlier_job_is_replaced(
    job_completing_cluster: kubernetes.Cluster, account: Account, prepare: Prepare
) -> None:
    """A Job cannot be changed, so one of an earlier image that still runs is recreated."""
    container = {"name": "old", "image": "old@sha256:0"}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "namespace": "clients"},
        "spec": {"backoffLimit": 0, "template": pod},
    }
    Kubernetes(account.outputs).apply(job)

    result = prepare()

    assert result.status == 0
    (found,) = job_completing_cluster.objects("jobs")
    assert [one["name"] for one in found["spec"]["template"]["spec"]["containers"]] == ["seed"]


# --- The Job fails


def test_a_failed_job_is_reported_and_can_run_again(
    empty_server: EmbeddedPostgres, cluster: kubernetes.Cluster, account: Account, prepare: Prepare, mock_aws: MockAws
) -> None:
    """With a wrong owner's password the log has the error and the owner's Secret is removed; then a run succeeds."""
    account.proxy.inject("GetSecretValue", [replacing(mock_aws.owner_password, "wrong")])

    failed = prepare()
    secrets_after_failure = names(cluster.objects("secrets"))
    result = prepare()

    assert failed.status == 1
    assert 'password authentication failed for user "postgres"' in failed.stdout
    assert failed.stderr == ("error: the Job migrate failed; see its log above. Nothing was dropped: run this again\n")
    assert secrets_after_failure == []
    assert result.status == 0
    assert clients(empty_server) == SEEDED


def test_a_lost_secret_is_recreated_with_a_new_password(
    empty_server: EmbeddedPostgres, cluster: kubernetes.Cluster, prepare: Prepare, mock_aws: MockAws
) -> None:
    """If the service's Secret does not exist, the role gets a new password, and all rows stay."""
    asyncio.run(maintenance.migrate(empty_server.dsn(database="clients"), "lost"))
    asyncio.run(maintenance.seed(empty_server.dsn(database="clients")))

    assert prepare().status == 0
    assert secret(cluster)["DB_PASSWORD"] != "lost"
    assert execute_as_service(secret(cluster), mock_aws, "SELECT FROM clients") == [""]
    assert clients(empty_server) == SEEDED


def test_the_owners_secret_is_removed_even_if_its_creation_reported_a_failure(
    job_completing_cluster: kubernetes.Cluster, kubectl: Kubectl, prepare: Prepare
) -> None:
    """The cluster created it, but the response was lost."""
    kubectl.fail_after('"database-owner"')

    result = prepare()

    assert result.status == 1
    assert result.stderr == "error: kubectl apply failed: error: the connection was lost\n"
    assert names(job_completing_cluster.objects("secrets")) == []


def test_the_wait_for_the_job_has_a_timeout(
    mock_aws: MockAws, account: Account, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing runs the Job, the command fails, and removes the owner's Secret."""
    monkeypatch.setattr(database, "_JOB_SECONDS", 0)
    with running_cluster(mock_aws, account, objects=[NAMESPACE]) as cluster:
        result = prepare()

        assert result.status == 1
        assert "Cannot show the Job's log: " in result.stdout
        assert "timed out after 0 s waiting for the Job migrate" in result.stderr
        assert names(cluster.objects("secrets")) == []


def test_a_signal_amid_the_migration_leaves_no_password(
    mock_aws: MockAws, account: Account, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the second signal that GitHub sends; the exit status is that of an interrupted command."""
    secrets_amid: list[str] = []

    def stop(cluster: Kubernetes, _: str) -> None:
        found = cluster.get("clients", "secret", "database-owner")
        secrets_amid.extend(names([found] if found else []))
        delete = cluster.delete

        def delete_amid_another_signal(*arguments: str, timeout: int) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            delete(*arguments, timeout=timeout)

        monkeypatch.setattr(cluster, "delete", delete_amid_another_signal)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(database, "_wait_for_job", stop)
    with running_cluster(mock_aws, account) as cluster:
        result = prepare()

        assert result == (130, result.stdout, "")
        assert secrets_amid == ["database-owner"]
        assert names(cluster.objects("secrets")) == []


def test_the_owners_secret_goes_with_the_job_if_the_command_is_killed(
    mock_aws: MockAws, account: Account, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster deletes a finished Job after a while, and the Secret with it."""
    monkeypatch.setattr(database, "_wait_for_job", lambda *_: "")
    delete = Kubernetes.delete

    def delete_only_jobs(cluster: Kubernetes, namespace: str, kind: str, name: str, *, timeout: int) -> None:
        if kind == "job":  # all that happens before the command is killed
            delete(cluster, namespace, kind, name, timeout=timeout)

    monkeypatch.setattr(Kubernetes, "delete", delete_only_jobs)
    with running_cluster(mock_aws, account) as cluster:
        prepare()
        left = names(cluster.objects("secrets"))
        Kubernetes(account.outputs).delete("clients", "job", "migrate", timeout=60)

        assert left == ["database-owner", "database"]
        assert names(cluster.objects("secrets")) == ["database"]


# --- The database does not exist, or is not available yet


@pytest.fixture(name="is_unchanged")
def run_unchanged_cluster(mock_aws: MockAws, account: Account) -> Iterator[Callable[[], bool]]:
    """Runs a cluster with the namespace; returns whether its objects are still the same."""
    with running_cluster(mock_aws, account, objects=[NAMESPACE]) as cluster:
        before = all_objects(cluster)
        yield lambda: all_objects(cluster) == before


def test_a_missing_database_is_an_error(account: Account, prepare: Prepare, is_unchanged: Callable[[], bool]) -> None:
    """The message says what to do."""
    rds = aws_client("rds", account.outputs.region)
    rds.delete_db_instance(DBInstanceIdentifier="olimac", SkipFinalSnapshot=True)

    assert prepare() == (1, "", "error: the database olimac does not exist in us-east-1: apply Terraform\n")
    assert is_unchanged()


@pytest.mark.parametrize(
    "status", ["deleting", "failed", "incompatible-parameters", "stopped", "storage-full", "restore-error"]
)
def test_a_database_that_cannot_become_available_is_an_error(
    account: Account, prepare: Prepare, is_unchanged: Callable[[], bool], status: str
) -> None:
    """The command fails at once and does not wait."""
    account.database.status = status

    assert prepare() == (1, "", f"error: the database olimac has the status {status}\n")
    assert is_unchanged()


def test_the_command_waits_for_the_database(account: Account, prepare: Prepare) -> None:
    """It waits until the status is one in which the database works."""
    account.proxy.inject(
        "DescribeDBInstances",
        [
            replacing(">available<", ">creating<"),
            replacing(">available<", ">modifying<"),
            replacing(">available<", ">backing-up<"),
        ],
    )

    result = prepare("--dry-run")

    assert result.status == 0
    assert "Waiting for the database olimac to become available" in result.stdout
    assert account.proxy.calls.count("DescribeDBInstances") == 3


def test_the_wait_for_the_database_has_a_timeout(
    account: Account, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it, the command fails."""
    monkeypatch.setattr(database, "_INSTANCE_SECONDS", 0.2)
    account.proxy.inject("DescribeDBInstances", itertools.repeat(replacing(">available<", ">creating<")))

    result = prepare()

    assert result.status == 1
    assert "timed out after 0 s waiting for the database olimac to become available" in result.stderr


def test_a_database_whose_password_aws_does_not_manage_is_an_error(
    account: Account, prepare: Prepare, is_unchanged: Callable[[], bool]
) -> None:
    """Somebody set the password by hand."""
    account.database.master_user_secret = None

    result = prepare()

    message = "error: AWS does not manage the password of the database olimac: apply Terraform\n"
    assert result == (1, "", message)
    assert is_unchanged()


def test_a_missing_password_is_an_error(account: Account, prepare: Prepare, is_unchanged: Callable[[], bool]) -> None:
    """The message names its secret."""
    secrets_manager = aws_client("secretsmanager", account.outputs.region)
    secrets_manager.delete_secret(SecretId=account.secret, ForceDeleteWithoutRecovery=True)

    result = prepare()

    assert result.status == 1
    assert result.stderr == (
        f"error: the secret with the owner's password does not exist in Secrets Manager ({account.secret})\n"
    )
    assert is_unchanged()


def test_a_refused_password_is_an_error(account: Account, prepare: Prepare, is_unchanged: Callable[[], bool]) -> None:
    """The message is that of AWS."""
    account.proxy.inject("GetSecretValue", [error_response("AccessDeniedException", "not you", 403)])

    result = prepare()

    assert result.status == 1
    assert result.stderr == "error: AWS refused GetSecretValue (AccessDeniedException): not you\n"
    assert is_unchanged()


# --- The CA certificates


def test_ca_certificates_can_come_from_any_file(
    run: Run, mock_aws: MockAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path may be relative, and have characters that have a meaning in URLs."""
    monkeypatch.chdir(tmp_path)
    Path("ca #1 100%.pem").write_bytes(mock_aws.ca.certificate.read_bytes())

    assert run("database", "--image", IMAGE, "--authority", "ca #1 100%.pem", "--dry-run").status == 0


def test_unreadable_ca_certificates_are_an_error(run: Run, is_unchanged: Callable[[], bool], tmp_path: Path) -> None:
    """The message has the source and the reason: no file, a folder, no server, an invalid URL, plain HTTP."""
    for source in (
        str(tmp_path / "none.pem"),
        str(tmp_path),
        "https://127.0.0.1:1/bundle.pem",
        "https://no host/bundle.pem",
        "http://127.0.0.1/bundle.pem",
    ):
        result = run("database", "--image", IMAGE, "--authority", source)
        assert result.status == 1
        assert f"error: cannot read the database's CA certificates from {source}: " in result.stderr
        assert result.stderr.count("\n") == 1
    assert is_unchanged()


def test_a_file_without_certificates_is_an_error(run: Run, is_unchanged: Callable[[], bool], tmp_path: Path) -> None:
    """For example an error page."""
    file = tmp_path / "bundle.pem"
    file.write_text("<html>Not found</html>")

    result = run("database", "--image", IMAGE, "--authority", str(file))

    assert result.status == 1
    assert result.stderr == f"error: {file} contains no certificates\n"
    assert is_unchanged()


def test_the_default_is_the_bundle_of_the_region(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --authority the command downloads AWS's bundle; a failed download is an error."""
    downloads = []

    def time_out(url: str, timeout: float) -> Any:
        downloads.append((url, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", time_out)

    result = run("database", "--image", IMAGE)

    bundle = "https://truststore.pki.rds.amazonaws.com/us-east-1/us-east-1-bundle.pem"
    assert downloads == [(bundle, 30)]
    assert result.status == 1
    assert result.stderr == f"error: cannot read the database's CA certificates from {bundle}: timed out\n"
