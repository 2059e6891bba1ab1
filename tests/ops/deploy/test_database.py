"""python -m ops database: writes the database's Secrets into the cluster, and migrates and seeds it with a Job."""

import asyncio
import base64
import itertools
import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ops.deploy import common, database
from ops.deploy.common import aws_client
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import environment, kubernetes
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.steps import IMAGE
from ops.rehearsal.tls import listen
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.ops.deploy.fixtures import (
    NAMESPACE,
    Account,
    Kubectl,
    MockAws,
    Result,
    Run,
    all_objects,
    error_response,
    names,
    namespaced,
    replacing,
    running_cluster,
)

SEEDED = [("Andres", "200.00"), ("Camilo", "300.00"), ("Laura", "400.00"), ("Felipe", "400.00")]
Prepare = Callable[..., Result]


class NoLoadBalancers:
    """A cloud provider that creates no load balancers: these tests need none."""

    def create(self, _: Object, upstream: Callable[[], object]) -> str:
        assert callable(upstream)
        return "none.example"

    def delete(self, _: Object) -> None:
        pass


class RunsOnlyJobs(Controllers):
    """Runs Jobs as processes, but only reports Deployments as available once the database's Secret exists."""

    async def _roll_out(self, store: Store, deployment: Object, *, is_deleted: bool) -> None:
        while not is_deleted and store.get("secrets", "clients", "database") is None:  # noqa: ASYNC110 - the store has no such event
            await asyncio.sleep(0.02)
        if not is_deleted:
            available = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
            generation = deployment["metadata"]["generation"]
            store.set_status(kind_of("Deployment"), deployment, {**available, "observedGeneration": generation})


class CompletesJobs(RunsOnlyJobs):
    """Runs nothing, but reports each Job of the service's image as complete, for tests that need no database."""

    def _log(self, pod: str, container: str) -> str:
        return f"the log of {container} of {pod}"

    async def _run_job(self, store: Store, job: Object, *, is_deleted: bool) -> None:
        if not is_deleted and job["spec"]["template"]["spec"]["containers"][0]["image"] == self.image:
            pod = {"apiVersion": "v1", "kind": "Pod", **job["spec"]["template"]}
            pod["metadata"] |= {"name": "migrate-1", "namespace": "clients"}
            store.apply(kind_of("Pod"), pod)
            complete = [{"type": "Complete", "status": "True"}]
            store.set_status(kind_of("Job"), job, {"succeeded": 1, "conditions": complete})


@pytest.fixture(name="server", scope="module")
def run_server(mock_aws: MockAws) -> Iterator[EmbeddedPostgres]:
    """Runs a PostgreSQL as RDS creates it, behind a TLS proxy at the address that RDS returns."""
    with (
        tempfile.TemporaryDirectory(prefix="clients-") as folder,
        environment.postgres(Path(folder), mock_aws.owner_password) as (server, port),
    ):
        proxy = listen(mock_aws.certificate, lambda: ("127.0.0.1", port), mock_aws.database, starttls=True)
        yield server
        proxy.close()


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
def run_cluster(
    mock_aws: MockAws, account: Account, production_objects: list[Object], tmp_path: Path
) -> Iterator[kubernetes.Cluster]:
    """Runs a cluster with the objects of production, as `apply` creates them; it runs Jobs as processes."""
    controllers = RunsOnlyJobs(IMAGE, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running, production_objects) as cluster:
        yield cluster


@pytest.fixture(name="job_completing_cluster")
def run_job_completing_cluster(
    mock_aws: MockAws, account: Account, production_objects: list[Object], tmp_path: Path
) -> Iterator[kubernetes.Cluster]:
    """As `cluster`, but Jobs complete at once without running."""
    controllers = CompletesJobs(IMAGE, tmp_path / "pods", NoLoadBalancers())
    with running_cluster(mock_aws, account, controllers.running, production_objects) as cluster:
        yield cluster


def create_secret(account: Account, mock_aws: MockAws) -> dict[str, str]:
    """Creates the service's Secret as an earlier run did, and returns its content."""
    host, port = mock_aws.database
    address = {"DB_HOST": host, "DB_PORT": str(port), "DB_NAME": "clients"}
    data = {**address, "DB_USERNAME": "clients_service", "DB_PASSWORD": "earlier"}
    Kubernetes(account.outputs).apply(namespaced("Secret", "database", stringData=data))
    return data


@pytest.fixture(name="prepare")
def make_prepare(run: Run, mock_aws: MockAws, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs the command."""
    monkeypatch.setattr(common, "poll_seconds", 0.2)  # polls start kubectl, which would slow the Job's processes down
    return lambda *more: run("database", "--image", IMAGE, "--authority", str(mock_aws.ca.certificate), *more)


def secret(cluster: kubernetes.Cluster, name: str = "database") -> dict[str, str]:
    """Returns the content of the Secret, empty if it does not exist."""
    found = [one for one in cluster.objects("secrets") if one["metadata"]["name"] == name]
    data = found[0]["data"] if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def fingerprint(cluster: kubernetes.Cluster) -> str:
    """Returns the Secret's fingerprint in the pod template of the service."""
    (service,) = [one for one in cluster.objects("deployments") if one["metadata"]["name"] == "clients-api"]
    annotation: str = service["spec"]["template"]["metadata"]["annotations"]["olimac.link/database-secret"]
    return annotation


def start_pods(account: Account, cluster: kubernetes.Cluster, credentials: dict[str, str]) -> str:
    """Writes the fingerprint of these credentials into the pod template, as an earlier run did, and returns it."""
    database._restart_pods_if_changed(Kubernetes(account.outputs), credentials)
    return fingerprint(cluster)


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


def test_the_service_runs_on_the_database(
    mock_aws: MockAws,
    account: Account,
    empty_server: EmbeddedPostgres,
    prepare: Prepare,
    production_objects: list[Object],
    kubectl: Kubectl,
    tmp_path: Path,
) -> None:
    """The Job migrates and seeds in a real pod, and the service's real pods become ready; no password is disclosed."""
    controllers = Controllers(IMAGE, tmp_path / "pods", NoLoadBalancers())
    objects = deepcopy(production_objects)
    for one in objects:
        if one["kind"] == "ConfigMap" and "DRAIN_SECONDS" in one["data"]:
            one["data"]["DRAIN_SECONDS"] = "0"  # the pods that are replaced have no clients
    with running_cluster(mock_aws, account, controllers.running, objects) as cluster:
        result = prepare()

        assert (result.status, result.stderr) == (0, "")
        host, port = mock_aws.database
        assert result.stdout.startswith(f"Database olimac: {host}:{port}/clients\n")
        assert "4 clients added" in result.stdout
        assert 'deployment "clients-api" successfully rolled out' in result.stdout
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
        with_password = [call for call in kubectl.calls() if mock_aws.owner_password in call.stdin]
        assert [json.loads(call.stdin)["metadata"]["name"] for call in with_password] == ["database-owner"]


def test_a_second_run_changes_nothing(
    cluster: kubernetes.Cluster, empty_server: EmbeddedPostgres, prepare: Prepare, mock_aws: MockAws
) -> None:
    """It keeps the password and all rows, also those that were added since, and restarts no pod."""
    prepare()
    credentials, earlier_fingerprint = secret(cluster), fingerprint(cluster)
    execute_as_service(credentials, mock_aws, "INSERT INTO clients (name, money) VALUES ('Valentina', 12.5)")

    result = prepare()

    assert result.status == 0
    assert secret(cluster) == credentials
    assert clients(empty_server) == [*SEEDED, ("Valentina", "12.50")]
    assert fingerprint(cluster) == earlier_fingerprint
    assert "restarting" not in result.stdout
    assert names(cluster.objects("jobs")) == ["migrate"]
    assert execute_as_service(credentials, mock_aws, "SELECT FROM clients") == [""]


def test_a_new_database_address_restarts_the_pods(
    job_completing_cluster: kubernetes.Cluster, account: Account, prepare: Prepare, mock_aws: MockAws
) -> None:
    """The Secret gets the new host and keeps the password; the pods restart, since they read it only at their start."""
    earlier = create_secret(account, mock_aws)
    earlier_fingerprint = start_pods(account, job_completing_cluster, earlier)
    account.database.endpoint = {**account.database.endpoint, "Address": "localhost"}

    result = prepare()

    assert result.status == 0
    assert "The service's Secret has changed: restarting the pods" in result.stdout
    assert secret(job_completing_cluster) == {**earlier, "DB_HOST": "localhost"}
    assert fingerprint(job_completing_cluster) != earlier_fingerprint


def test_the_next_run_restarts_pods_that_a_failed_run_did_not(
    job_completing_cluster: kubernetes.Cluster, account: Account, kubectl: Kubectl, prepare: Prepare, mock_aws: MockAws
) -> None:
    """A run wrote the Secret and failed before it restarted the pods; the next run restarts them."""
    earlier = create_secret(account, mock_aws)
    kubectl.fail_before("olimac.link/database-secret")
    failed = prepare()
    kubectl.work_again()

    result = prepare()

    assert (failed.status, result.status) == (1, 0)
    assert secret(job_completing_cluster) == earlier
    assert "restarting the pods" in result.stdout
    assert fingerprint(job_completing_cluster)


def test_a_later_apply_does_not_restart_the_pods(
    job_completing_cluster: kubernetes.Cluster, account: Account, run: Run
) -> None:
    """`apply` keeps the fingerprint, which another field manager owns."""
    earlier_fingerprint = start_pods(account, job_completing_cluster, {"DB_HOST": "earlier.example"})

    assert run("apply", "production", "--image", IMAGE).status == 0
    assert fingerprint(job_completing_cluster) == earlier_fingerprint


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
    empty_server: EmbeddedPostgres, cluster: kubernetes.Cluster, account: Account, prepare: Prepare, mock_aws: MockAws
) -> None:
    """If the service's Secret does not exist, the role gets a new password, the pods restart, and all rows stay."""
    earlier_fingerprint = start_pods(account, cluster, {"DB_PASSWORD": "lost"})
    asyncio.run(maintenance.migrate(empty_server.dsn(database="clients"), "lost"))
    asyncio.run(maintenance.seed(empty_server.dsn(database="clients")))

    assert prepare().status == 0
    assert secret(cluster)["DB_PASSWORD"] != "lost"
    assert fingerprint(cluster) != earlier_fingerprint
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


def test_a_missing_namespace_is_an_error(mock_aws: MockAws, account: Account, prepare: Prepare) -> None:
    """`apply` must run before."""
    with running_cluster(mock_aws, account) as cluster:
        result = prepare()

        assert result.status == 1
        assert 'namespaces "clients" not found' in result.stderr
        assert cluster.objects("secrets") == []


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
