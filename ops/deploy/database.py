"""Prepares the database: writes its address and credentials into the cluster, and runs the migration Job there.

It comes before the service's pods: a build finds the schema that it needs, and the build that runs so far works on it.

The database is private, so this program never connects to it. AWS owns the owner's password and rotates it each week;
the cluster has it only while a Job of the owner runs. The password of the service's role is generated here, and kept in
a Secret of the cluster.
"""

import base64
import json
import secrets
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from ops.deploy import canary, manifests
from ops.deploy.common import CannotProceed, Outputs, aws_client, report, wait_for
from ops.deploy.kubernetes import Kubernetes, Object, secret_data
from ops.deploy.rollout import NAMESPACE, SERVICE_SECRET, replace_pods

OWNER_SECRET: Final = "database-owner"  # noqa: S105 - a name
CA_CONFIG_MAP: Final = "database-ca"

# What the service can log in as. Migrations create the first role, and the second where it is named (sql/).
SERVICE_ROLES: Final = ("clients_service", "clients_service_b")

# What the Job's pod needs of the service's objects: its namespace and account, and the way to the database.
_PREREQUISITES: Final = ("Namespace", "ServiceAccount", "NetworkPolicy")
_PASSWORD_BYTES: Final = 32
_INSTANCE_SECONDS: Final = 1800.0
_JOB_SECONDS: Final = 600.0  # more than activeDeadlineSeconds of the Jobs
_DOWNLOAD_SECONDS: Final = 30


@dataclass(frozen=True)
class Instance:
    """The RDS instance.

    Attributes:
        host: of its endpoint.
        port: of its endpoint.
        database: the name of the database that was created with it.
        secret_arn: of the secret with the owner's name and password.
    """

    host: str
    port: int
    database: str
    secret_arn: str


class JobFailed(CannotProceed):
    """A Job in the cluster ran, and failed."""


def ca_bundle_url(region: str) -> str:
    """Returns the URL at which AWS publishes the CA certificates of its databases."""
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
    return f"https://truststore.pki.rds.amazonaws.com/{region}/{region}-bundle.pem"


def prepare(outputs: Outputs, image: str, environment: str, ca_bundle: str, *, dry_run: bool = False) -> None:
    """Writes the database's Secrets, and migrates and seeds the database.

    Drops nothing, and leaves what an earlier run did as it is.

    Args:
        outputs: of Terraform.
        image: the service's image by digest; the Job runs it too.
        environment: its overlay in k8s/overlays.
        ca_bundle: a URL or a file of the database's CA certificates.
        dry_run: only check what exists, and print what would change.

    Raises:
        CannotProceed: with the reason; if the Job failed, its log was printed before.
    """
    instance = find(outputs)
    report(f"Database {outputs.database_identifier}: {instance.host}:{instance.port}/{instance.database}")
    objects = manifests.parse(manifests.render(environment, outputs, image))
    bundle = read_ca_bundle(ca_bundle)
    if dry_run:
        report(f"Would write the Secrets {OWNER_SECRET} and {SERVICE_SECRET}, and run the migration Job")
        return
    cluster = Kubernetes(outputs)
    service = service_credentials(cluster, instance)
    prerequisites = [one for one in objects if one["kind"] in _PREREQUISITES]
    Jobs(cluster, outputs, image, bundle, prerequisites).migrate(instance, service)
    cluster.apply(_secret(SERVICE_SECRET, service))


def service_credentials(cluster: Kubernetes, instance: Instance) -> dict[str, str]:
    """Returns the content of the service's Secret for this instance: its role and password stay if there are any."""
    existing = secret_data(cluster.get(NAMESPACE, "secret", SERVICE_SECRET))
    role = existing.get("DB_USERNAME") or SERVICE_ROLES[0]
    password = existing.get("DB_PASSWORD") or new_password()
    return {**_address(instance), "DB_USERNAME": role, "DB_PASSWORD": password}


def new_password() -> str:
    """Returns a random password for the service's role."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def move(cluster: Kubernetes, service: dict[str, str]) -> None:
    """Writes the service's Secret, removes a canary, whose pod has the old one, and waits until new pods serve.

    Raises:
        CannotProceed: as `rollout.replace_pods`.
    """
    cluster.apply(_secret(SERVICE_SECRET, service))
    canary.remove(cluster)
    replace_pods(cluster)


@dataclass(frozen=True)
class Jobs:
    """Runs Jobs in the cluster as the database's owner, whose Secret exists only meanwhile.

    Attributes:
        cluster: runs the Jobs.
        outputs: of Terraform.
        image: the service's image by digest.
        ca_bundle: the database's CA certificates, PEM.
        prerequisites: what their pods need and the cluster may not have yet.
    """

    cluster: Kubernetes
    outputs: Outputs
    image: str
    ca_bundle: str
    prerequisites: Sequence[Object] = ()

    def migrate(self, instance: Instance, service: dict[str, str]) -> None:
        """Migrates and seeds the instance, and gives the service's role its password.

        Args:
            instance: which the Job connects to.
            service: the content of the service's Secret.

        Raises:
            JobFailed: its log was printed before.
        """
        self._run(instance, service, manifests.render("migration", self.outputs, self.image))

    def maintain(self, instance: Instance, service: dict[str, str], command: str) -> str:
        """Runs a command of `python -m svc`, and returns its log.

        Args:
            instance: which the Job connects to.
            service: the content of the service's Secret.
            command: inspect, freeze, thaw or revoke.

        Raises:
            JobFailed: its log was printed before.
        """
        return self._run(instance, service, manifests.render("maintenance", self.outputs, self.image, command))

    def _run(self, instance: Instance, service: dict[str, str], rendered: str) -> str:
        (job,) = manifests.parse(rendered)
        name = job["metadata"]["name"]
        credentials = _owner_credentials(self.outputs, instance)
        role = {"DB_SERVICE_USERNAME": service["DB_USERNAME"], "DB_SERVICE_PASSWORD": service["DB_PASSWORD"]}
        owner = {**_address(instance), **credentials, **role}
        certificates = _object("ConfigMap", CA_CONFIG_MAP, {"data": {"ca.pem": self.ca_bundle}})
        self.cluster.apply(*self.prerequisites, certificates)
        self.cluster.delete(NAMESPACE, "job", name, timeout=60)  # of an earlier run, finished or not
        try:
            self.cluster.apply(job)
            self.cluster.apply(_secret(OWNER_SECRET, owner, _owner_references(self.cluster, name)))
            return _wait_for_job(self.cluster, name)
        finally:
            self.cluster.delete(NAMESPACE, "secret", OWNER_SECRET, timeout=60)


def find(outputs: Outputs) -> Instance:
    """Waits until the RDS instance is available, and returns it.

    Raises:
        CannotProceed: it does not exist, or has a status from which it will not become available.
    """
    rds = aws_client("rds", outputs.region)
    identifier = outputs.database_identifier

    def available_instance() -> dict[str, Any] | None:
        try:
            described: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
        except rds.exceptions.DBInstanceNotFoundFault:
            raise CannotProceed(
                f"the database {identifier} does not exist in {outputs.region}: apply Terraform"
            ) from None
        status = described["DBInstanceStatus"]
        if status.startswith(UNRECOVERABLE_STATUSES):
            raise CannotProceed(f"the database {identifier} has the status {status}")
        return described if status in USABLE_STATUSES else None

    found = wait_for(f"the database {identifier} to become available", available_instance, timeout=_INSTANCE_SECONDS)
    if "MasterUserSecret" not in found:
        raise CannotProceed(f"AWS does not manage the password of the database {identifier}: apply Terraform")
    endpoint, secret = found["Endpoint"], found["MasterUserSecret"]
    return Instance(endpoint["Address"], endpoint["Port"], found["DBName"], secret["SecretArn"])


USABLE_STATUSES: Final = ("available", "backing-up", "storage-optimization", "configuring-enhanced-monitoring")
UNRECOVERABLE_STATUSES: Final = (  # prefixes
    *("deleting", "failed", "incompatible-", "inaccessible-encryption-credentials"),
    *("restore-error", "stopped", "stopping", "storage-full"),
)


def _owner_credentials(outputs: Outputs, instance: Instance) -> dict[str, str]:
    try:
        response = aws_client("secretsmanager", outputs.region).get_secret_value(SecretId=instance.secret_arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        message = f"the secret with the owner's password does not exist in Secrets Manager ({instance.secret_arn})"
        raise CannotProceed(message) from None
    credentials = json.loads(response["SecretString"])
    return {"DB_USERNAME": credentials["username"], "DB_PASSWORD": credentials["password"]}


def read_ca_bundle(source: str) -> str:
    """Reads CA certificates, PEM, from a file or from an https URL.

    Raises:
        CannotProceed: there are none, with the reason.
    """
    try:
        if source.startswith("https://"):
            with urllib.request.urlopen(source, timeout=_DOWNLOAD_SECONDS) as response:  # noqa: S310 - https
                content: str = response.read().decode("ascii")
        else:
            content = Path(source).read_text("ascii")
    except (OSError, ValueError, HTTPException) as error:
        raise CannotProceed(f"cannot read the database's CA certificates from {source}: {error}") from None
    if "-----BEGIN CERTIFICATE-----" not in content:
        raise CannotProceed(f"{source} contains no certificates")
    return content


def _wait_for_job(cluster: Kubernetes, name: str) -> str:
    """Waits for the end of the Job, and returns its log.

    Raises:
        JobFailed: its log was printed before.
    """

    def final_condition() -> str | None:
        for condition in _find_job(cluster, name).get("status", {}).get("conditions", []):
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                return str(condition["type"])
        return None

    try:
        condition = wait_for(f"the Job {name}", final_condition, timeout=_JOB_SECONDS)
    finally:
        log = _show_log(cluster, name)
    if condition != "Complete":
        raise JobFailed(f"the Job {name} failed; see its log above. Nothing was dropped: run this again")
    return log


def _owner_references(cluster: Kubernetes, job: str) -> list[Object]:
    """Makes the Job the owner of an object: the cluster removes both together, even if this program was killed."""
    uid = _find_job(cluster, job)["metadata"]["uid"]
    return [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}]


def _find_job(cluster: Kubernetes, name: str) -> Object:
    job = cluster.get(NAMESPACE, "job", name)
    if job is None:
        raise CannotProceed(f"the Job {name} was deleted; run this again")
    return job


def _show_log(cluster: Kubernetes, name: str) -> str:
    options = ("--all-containers", "--prefix", "--namespace", NAMESPACE, "--pod-running-timeout=1s")
    try:
        log = cluster.run("logs", f"job/{name}", *options).rstrip()
    except CannotProceed as error:
        report(f"Cannot show the Job's log: {error}")
        return ""
    report(log)
    return log


def _address(instance: Instance) -> dict[str, str]:
    return {"DB_HOST": instance.host, "DB_PORT": str(instance.port), "DB_NAME": instance.database}


def _secret(name: str, content: dict[str, str], owners: Sequence[Object] = ()) -> Object:
    """Returns a Secret with this content and no other: with stringData, a key that is dropped would remain."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    secret = _object("Secret", name, {"data": encoded})
    return {**secret, "metadata": {**secret["metadata"], "ownerReferences": owners}} if owners else secret


def _object(kind: str, name: str, content: dict[str, Any]) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}
