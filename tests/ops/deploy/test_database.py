"""python -m ops database: the cluster knows the database, whose schema and rows a Job has brought up to date."""

import asyncio
import base64
import itertools
import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ops.deploy import common, database
from ops.deploy.common import aws
from ops.deploy.kubernetes import Kubernetes
from ops.rehearsal import kubernetes, world
from ops.rehearsal.controllers import Controllers
from ops.rehearsal.kubernetes import Object, Store, kind_of
from ops.rehearsal.steps import IMAGE
from ops.rehearsal.tls import listen
from svc.postgres import maintenance
from svc.postgres.embedded import EmbeddedPostgres
from tests.ops.deploy.cloud import (
    Cloud,
    Done,
    Ground,
    Kubectl,
    Run,
    all_objects,
    names,
    refused,
    saying,
    standing_cluster,
)

FIRST = [("Andres", "200.00"), ("Camilo", "300.00"), ("Laura", "400.00"), ("Felipe", "400.00")]
Prepare = Callable[..., Done]


class NoBalancers:
    """A cloud that makes none: the database wants none."""

    def make(self, _: Object, behind: Callable[[], object]) -> str:
        assert callable(behind)
        return "none.example"

    def remove(self, _: Object) -> None:
        pass


class JobsOnly(Controllers):
    """Jobs are run as processes; Deployments are said to be up once the database's Secret is there, without any."""

    async def _deploy(self, store: Store, deployment: Object, *, is_gone: bool) -> None:
        while not is_gone and store.get("secrets", "clients", "database") is None:  # noqa: ASYNC110 - the store has no such event
            await asyncio.sleep(0.05)
        if not is_gone:
            up = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
            generation = deployment["metadata"]["generation"]
            store.set_status(kind_of("Deployment"), deployment, {**up, "observedGeneration": generation})


@pytest.fixture(name="server", scope="module")
def start_server(ground: Ground) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL as RDS makes it, where RDS says that it is; TLS is its front's."""
    with (
        tempfile.TemporaryDirectory(prefix="clients-") as folder,
        world._postgres(Path(folder), ground.owner_password) as (server, port),
    ):
        front = listen(ground.ours, lambda: ("127.0.0.1", port), ground.database, asks=True)
        yield server
        front.close()


@pytest.fixture(name="empty")
def make_empty(server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server as it is at first: with an empty database, and no role of the service's."""

    async def empty() -> None:
        owner = await asyncpg.connect(server.dsn())
        await owner.execute("DROP DATABASE IF EXISTS clients WITH (FORCE)")
        await owner.execute("DROP ROLE IF EXISTS clients_service")
        await owner.execute("CREATE DATABASE clients")
        await owner.close()

    asyncio.run(empty())
    return server


@pytest.fixture(name="cluster")
def make_cluster_with_the_service(
    ground: Ground, cloud: Cloud, tmp_path: Path, run: Run
) -> Iterator[kubernetes.Cluster]:
    """A cluster with the objects of production, as `apply` leaves it; Jobs are run."""
    controllers = JobsOnly(IMAGE, tmp_path / "pods", NoBalancers())
    with standing_cluster(ground, cloud, controllers.acting) as cluster:
        assert run("apply", "production", "--image", IMAGE).status == 0
        cloud.way.clear()
        yield cluster


@pytest.fixture(name="earlier")
def make_earlier(empty: EmbeddedPostgres, cluster: kubernetes.Cluster, cloud: Cloud, ground: Ground) -> dict[str, str]:
    """What an earlier run has left: schema, rows, the role and its password; gives the service's Secret."""
    host, port = ground.database
    place = {"DB_HOST": host, "DB_PORT": str(port), "DB_NAME": "clients"}
    data = {**place, "DB_USERNAME": "clients_service", "DB_PASSWORD": "earlier"}
    asyncio.run(maintenance.migrate(empty.dsn(database="clients"), "earlier"))
    asyncio.run(maintenance.seed(empty.dsn(database="clients")))
    metadata = {"name": "database", "namespace": "clients"}
    Kubernetes(cloud.outputs).apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
    assert secret(cluster) == data
    return data


@pytest.fixture(name="prepare")
def make_prepare(run: Run, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs the command."""
    monkeypatch.setattr(common, "poll_seconds", 0.1)  # the Job's processes want the machine, too
    monkeypatch.setattr(database, "_INSTANCE_SECONDS", 1)
    monkeypatch.setattr(database, "_JOB_SECONDS", 20)
    return lambda *more: run("database", "--image", IMAGE, "--authority", str(ground.ca.certificate), *more)


def secret(cluster: kubernetes.Cluster, name: str = "database") -> dict[str, str]:
    """What the Secret holds; nothing where there is none."""
    found = [one for one in cluster.objects("secrets") if one["metadata"]["name"] == name]
    data = found[0]["data"] if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def fingerprint(cluster: kubernetes.Cluster) -> str:
    """That of the Secret that the service's pods are told to start with."""
    (service,) = [one for one in cluster.objects("deployments") if one["metadata"]["name"] == "clients-api"]
    told: str = service["spec"]["template"]["metadata"]["annotations"]["olimac.link/database-secret"]
    return told


def as_owner(server: EmbeddedPostgres, query: str) -> list[tuple[Any, ...]]:
    async def ask() -> list[tuple[Any, ...]]:
        owner = await asyncpg.connect(server.dsn(database="clients"))
        try:
            return [tuple(row) for row in await owner.fetch(query)]
        finally:
            await owner.close()

    return asyncio.run(ask())


def rows(server: EmbeddedPostgres) -> list[tuple[Any, ...]]:
    return as_owner(server, "SELECT name, money::text FROM clients ORDER BY id")


def as_service(injected: dict[str, str], ground: Ground, *statements: str) -> list[str]:
    """What the database says to whoever has the service's Secret: "", or the error's name."""

    async def ask() -> list[str]:
        connection = await asyncpg.connect(
            host=injected["DB_HOST"],
            port=int(injected["DB_PORT"]),
            database=injected["DB_NAME"],
            user=injected["DB_USERNAME"],
            password=injected["DB_PASSWORD"],
            ssl=ssl.create_default_context(cafile=ground.ca.certificate),
        )
        said = []
        for statement in statements:
            try:
                await connection.execute(statement)
                said.append("")
            except asyncpg.PostgresError as error:
                said.append(type(error).__name__)
        await connection.close()
        return said

    return asyncio.run(ask())


# --- It works


def test_the_service_runs_on_the_database(
    ground: Ground, cloud: Cloud, empty: EmbeddedPostgres, run: Run, prepare: Prepare, tmp_path: Path
) -> None:
    """Real pods: the Job migrates and seeds, and the service's own become ready with what it wrote."""
    controllers = Controllers(IMAGE, tmp_path / "pods", NoBalancers())
    with standing_cluster(ground, cloud, controllers.acting) as cluster:
        assert run("apply", "production", "--image", IMAGE).status == 0
        done = prepare()

        assert (done.status, done.error) == (0, "")
        host, port = ground.database
        assert done.said.startswith(f"Database olimac: {host}:{port}/clients\n")
        assert "4 clients added" in done.said
        assert 'deployment "clients-api" successfully rolled out' in done.said
        injected = secret(cluster)
        assert {**injected, "DB_PASSWORD": ""} == {
            "DB_HOST": host,
            "DB_PORT": str(port),
            "DB_NAME": "clients",
            "DB_USERNAME": "clients_service",
            "DB_PASSWORD": "",
        }
        assert len(injected["DB_PASSWORD"]) > 40
        assert names(cluster.objects("secrets")) == ["database"]
        assert rows(empty) == FIRST
        refusal = "InsufficientPrivilegeError"
        asked = ("SELECT FROM clients", "DROP TABLE clients", "DELETE FROM clients", "CREATE TABLE mine ()")
        assert as_service(injected, ground, *asked) == ["", refusal, refusal, refusal]


def test_a_second_run_changes_nothing(
    cluster: kubernetes.Cluster, empty: EmbeddedPostgres, prepare: Prepare, ground: Ground
) -> None:
    """The password and the rows stay, those that were added too, and no pod starts anew."""
    prepare()
    first, told = secret(cluster), fingerprint(cluster)
    as_service(first, ground, "INSERT INTO clients (name, money) VALUES ('Valentina', 12.5)")

    done = prepare()

    assert done.status == 0
    assert secret(cluster) == first
    assert rows(empty) == [*FIRST, ("Valentina", "12.50")]
    assert fingerprint(cluster) == told
    assert "anew" not in done.said
    assert names(cluster.objects("jobs")) == ["migrate"]
    assert as_service(first, ground, "SELECT FROM clients") == [""]


def test_no_password_is_shown(
    empty: EmbeddedPostgres, cluster: kubernetes.Cluster, kubectl: Kubectl, prepare: Prepare, ground: Ground
) -> None:
    """Neither the owner's nor the service's: in no output or log, and on no command line."""
    done = prepare()

    assert done.status == 0
    assert len(kubectl.calls()) > 8
    for password in (ground.owner_password, secret(cluster)["DB_PASSWORD"]):
        assert password not in done.said + done.error
        assert password not in empty.log.read_text()
        for call in kubectl.calls():
            assert all(password not in argument for argument in call.arguments)
    told = [call for call in kubectl.calls() if ground.owner_password in call.said]
    assert [json.loads(call.said)["metadata"]["name"] for call in told] == ["database-owner"]


def test_a_database_that_moved_is_followed(
    earlier: dict[str, str], cluster: kubernetes.Cluster, cloud: Cloud, prepare: Prepare
) -> None:
    """The Secret tells of the new host, the password stays, and the pods start anew, since they read it once."""
    prepare()
    told = fingerprint(cluster)
    cloud.database.endpoint = {**cloud.database.endpoint, "Address": "localhost"}

    done = prepare()

    assert done.status == 0
    assert "The service's Secret is new to its pods: they start anew" in done.said
    assert secret(cluster) == {**earlier, "DB_HOST": "localhost"}
    assert fingerprint(cluster) != told


def test_pods_that_were_not_told_are_told_by_the_next_run(
    earlier: dict[str, str], cluster: kubernetes.Cluster, kubectl: Kubectl, prepare: Prepare
) -> None:
    """A run that wrote the Secret and got no further: the next one finds it right, and its pods not."""
    kubectl.fails_before("olimac.link/database-secret")
    failed = prepare()
    kubectl.mends()

    mended = prepare()

    assert (failed.status, mended.status) == (1, 0)
    assert secret(cluster) == earlier
    assert "they start anew" in mended.said
    assert fingerprint(cluster)


def test_a_later_apply_leaves_the_pods_as_they_are(cluster: kubernetes.Cluster, prepare: Prepare, run: Run) -> None:
    """What the template says of the Secret is this command's, and no reason for `apply` to start pods anew."""
    prepare()
    told = fingerprint(cluster)

    assert run("apply", "production", "--image", IMAGE).status == 0
    assert fingerprint(cluster) == told


def test_an_earlier_job_makes_way(
    empty: EmbeddedPostgres, cluster: kubernetes.Cluster, cloud: Cloud, prepare: Prepare
) -> None:
    """One that still runs, of another image: a Job cannot be changed, so it is made anew."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "namespace": "clients"},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "old", "image": "old@sha256:0"}]}},
        },
    }
    Kubernetes(cloud.outputs).apply(job)

    done = prepare()

    assert done.status == 0
    (found,) = cluster.objects("jobs")
    assert [one["name"] for one in found["spec"]["template"]["spec"]["containers"]] == ["seed"]
    assert rows(empty) == FIRST


# --- The Job fails


def test_a_job_that_fails_is_shown_and_can_be_run_again(
    empty: EmbeddedPostgres, cluster: kubernetes.Cluster, cloud: Cloud, prepare: Prepare, ground: Ground
) -> None:
    """The owner's password is wrong: the log says so, the owner's Secret is gone; mended, the next run works."""
    cloud.way.at("GetSecretValue", [saying(ground.owner_password, "wrong")])

    failed = prepare()
    left = names(cluster.objects("secrets"))
    mended = prepare()

    assert failed.status == 1
    assert 'password authentication failed for user "postgres"' in failed.said
    assert failed.error == (
        "error: the Job migrate failed; its log, above, says why. Nothing was dropped: run this again\n"
    )
    assert left == []
    assert mended.status == 0
    assert rows(empty) == FIRST


def test_a_password_that_was_lost_is_made_anew(
    earlier: dict[str, str],
    empty: EmbeddedPostgres,
    cluster: kubernetes.Cluster,
    cloud: Cloud,
    prepare: Prepare,
    ground: Ground,
) -> None:
    """The service's Secret was removed: the role gets another password, and pods that know the old one start anew."""
    prepare()
    told = fingerprint(cluster)
    Kubernetes(cloud.outputs).delete("clients", "secret", "database", seconds=5)

    assert prepare().status == 0
    assert secret(cluster)["DB_PASSWORD"] != earlier["DB_PASSWORD"]
    assert fingerprint(cluster) != told
    assert as_service(secret(cluster), ground, "SELECT FROM clients") == [""]
    assert rows(empty) == FIRST


def test_the_owners_secret_goes_even_if_writing_it_seemed_to_fail(
    cluster: kubernetes.Cluster, kubectl: Kubectl, prepare: Prepare
) -> None:
    """The cluster has it, but its answer was lost."""
    kubectl.fails_after('"database-owner"')

    done = prepare()

    assert done.status == 1
    assert done.error == "error: kubectl apply failed: error: the connection was lost\n"
    assert names(cluster.objects("secrets")) == []


def test_a_job_that_never_ends_is_given_up_on(
    ground: Ground, cloud: Cloud, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody runs it: the wait is bounded, and the owner's Secret is gone nonetheless."""
    monkeypatch.setattr(database, "_JOB_SECONDS", 0.5)
    with standing_cluster(ground, cloud) as cluster:
        run("apply", "production", "--image", IMAGE)
        done = run("database", "--image", IMAGE, "--authority", str(ground.ca.certificate))

        assert done.status == 1
        assert "Waiting for the Job migrate" in done.said
        assert "The Job's log cannot be shown: " in done.said
        assert "in vain for the Job migrate" in done.error
        assert names(cluster.objects("secrets")) == []


def test_a_namespace_that_is_not_there_is_said(ground: Ground, cloud: Cloud, run: Run) -> None:
    """`apply` comes first."""
    with standing_cluster(ground, cloud) as cluster:
        done = run("database", "--image", IMAGE, "--authority", str(ground.ca.certificate))

        assert done.status == 1
        assert 'namespaces "clients" not found' in done.error
        assert cluster.objects("secrets") == []


# --- The database is not there, or not yet


@pytest.fixture(name="untouched")
def make_untouched(ground: Ground, cloud: Cloud) -> Iterator[Callable[[], bool]]:
    """Whether the cluster, which has the namespace, is as it was."""
    with standing_cluster(ground, cloud) as cluster:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "clients"}}
        Kubernetes(cloud.outputs).apply(namespace)
        before = all_objects(cluster)
        yield lambda: all_objects(cluster) == before


def test_a_database_that_is_not_there_is_said(cloud: Cloud, prepare: Prepare, untouched: Callable[[], bool]) -> None:
    """With what to do about it."""
    aws("rds", cloud.outputs.region).delete_db_instance(DBInstanceIdentifier="olimac", SkipFinalSnapshot=True)

    assert prepare() == (1, "", "error: there is no database olimac in us-east-1: apply Terraform\n")
    assert untouched()


@pytest.mark.parametrize(
    "status", ["deleting", "failed", "incompatible-parameters", "stopped", "storage-full", "restore-error"]
)
def test_a_database_that_will_not_be_available_is_said(
    cloud: Cloud, prepare: Prepare, untouched: Callable[[], bool], status: str
) -> None:
    """At once, since waiting is in vain."""
    cloud.database.status = status

    assert prepare() == (1, "", f"error: the database olimac is {status}\n")
    assert untouched()


def test_a_database_that_is_being_made_is_waited_for(cloud: Cloud, prepare: Prepare) -> None:
    """Until it is available, or as good as that."""
    cloud.way.at(
        "DescribeDBInstances",
        [
            saying(">available<", ">creating<"),
            saying(">available<", ">modifying<"),
            saying(">available<", ">backing-up<"),
        ],
    )

    done = prepare("--dry-run")

    assert done.status == 0
    assert "Waiting for the database olimac to be available" in done.said
    assert cloud.way.asked.count("DescribeDBInstances") == 3


def test_a_database_that_never_gets_available_is_given_up_on(
    cloud: Cloud, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded."""
    monkeypatch.setattr(database, "_INSTANCE_SECONDS", 0.2)
    cloud.way.at("DescribeDBInstances", itertools.repeat(saying(">available<", ">creating<")))

    done = prepare()

    assert done.status == 1
    assert "in vain for the database olimac to be available" in done.error


def test_a_database_without_a_kept_password_is_said(
    cloud: Cloud, prepare: Prepare, untouched: Callable[[], bool]
) -> None:
    """Somebody set one by hand."""
    cloud.database.master_user_secret = None

    done = prepare()

    assert done == (1, "", "error: the database olimac has no password that AWS keeps: apply Terraform\n")
    assert untouched()


def test_a_password_that_is_gone_is_said(cloud: Cloud, prepare: Prepare, untouched: Callable[[], bool]) -> None:
    """With where it was."""
    aws("secretsmanager", cloud.outputs.region).delete_secret(SecretId=cloud.secret, ForceDeleteWithoutRecovery=True)

    done = prepare()

    assert done.status == 1
    assert done.error == f"error: the owner's password is gone from Secrets Manager ({cloud.secret})\n"
    assert untouched()


def test_a_password_that_one_may_not_read_is_said(
    cloud: Cloud, prepare: Prepare, untouched: Callable[[], bool]
) -> None:
    """In AWS's words."""
    cloud.way.at("GetSecretValue", [refused("AccessDeniedException", "not you", 403)])

    done = prepare()

    assert done.status == 1
    assert done.error == "error: AWS refused GetSecretValue (AccessDeniedException): not you\n"
    assert untouched()


# --- The CA certificates


def test_certificates_are_read_from_a_file_beside_one(
    run: Run, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name that is relative, and that a URL would take for something else."""
    monkeypatch.chdir(tmp_path)
    Path("ca #1 100%.pem").write_bytes(ground.ca.certificate.read_bytes())

    assert run("database", "--image", IMAGE, "--authority", "ca #1 100%.pem", "--dry-run").status == 0


def test_certificates_that_cannot_be_had_are_said(run: Run, untouched: Callable[[], bool], tmp_path: Path) -> None:
    """From where, and why: no file, a folder, no host, nobody listening, no URL that is taken."""
    for source in (
        str(tmp_path / "none.pem"),
        str(tmp_path),
        "https://127.0.0.1:1/bundle.pem",
        "https://no host/bundle.pem",
        "http://127.0.0.1/bundle.pem",
    ):
        done = run("database", "--image", IMAGE, "--authority", source)
        assert done.status == 1
        assert f"error: the database's CA certificates cannot be had from {source}: " in done.error
        assert done.error.count("\n") == 1
    assert untouched()


def test_what_holds_no_certificates_is_refused(run: Run, untouched: Callable[[], bool], tmp_path: Path) -> None:
    """A page that says that there is nothing, say."""
    file = tmp_path / "bundle.pem"
    file.write_text("<html>Not found</html>")

    done = run("database", "--image", IMAGE, "--authority", str(file))

    assert done.status == 1
    assert done.error == f"error: {file} holds no certificates\n"
    assert untouched()


def test_aws_own_certificates_are_asked_for_by_region(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where --authority names no others; AWS may be away."""
    asked = []

    def away(url: str, timeout: float) -> Any:
        asked.append((url, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", away)

    done = run("database", "--image", IMAGE)

    bundle = "https://truststore.pki.rds.amazonaws.com/us-east-1/us-east-1-bundle.pem"
    assert asked == [(bundle, 30)]
    assert done.status == 1
    assert done.error == f"error: the database's CA certificates cannot be had from {bundle}: timed out\n"
