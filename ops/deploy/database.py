"""The database: where it is and who may, told to the cluster; its schema and first rows, by a Job within it.

The database is private, so nothing here speaks to it. Its owner's password is AWS's, which changes it each week: it is
in the cluster only while the Job runs. The service's own password is made here, once, and kept in the cluster's Secret.
"""

import base64
import hashlib
import json
import secrets
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import ClientError

from ops.deploy import manifests
from ops.deploy.common import CannotProceed, Outputs, aws, say, wait_for
from ops.deploy.kubernetes import Kubernetes, Object

NAMESPACE: Final = "clients"
SERVICE_SECRET: Final = "database"  # noqa: S105 - a name
OWNER_SECRET: Final = "database-owner"  # noqa: S105 - a name
AUTHORITY: Final = "database-ca"
JOB: Final = "migrate"
DEPLOYMENT: Final = "clients-api"

_ROLE: Final = "clients_service"  # as sql/roles.sql makes it
_FINGERPRINT: Final = "olimac.link/database-secret"
_PASSWORD_BYTES: Final = 32
_INSTANCE_SECONDS: Final = 1800.0
_JOB_SECONDS: Final = 600.0  # more than the Job's own activeDeadlineSeconds
_ROLLOUT_SECONDS: Final = 600
_DOWNLOAD_SECONDS: Final = 30


@dataclass(frozen=True)
class Instance:
    """The RDS instance.

    Attributes:
        host: of its endpoint.
        port: likewise.
        database: that it was made with.
        secret_arn: of the secret that holds its owner's name and password.
    """

    host: str
    port: int
    database: str
    secret_arn: str


def authority_url(region: str) -> str:
    """Where AWS publishes the certificates that its databases' are signed with."""
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
    return f"https://truststore.pki.rds.amazonaws.com/{region}/{region}-bundle.pem"


def prepare(outputs: Outputs, image: str, authority: str, *, dry_run: bool = False) -> None:
    """Tells the cluster of the database, migrates and seeds it, and waits for the service to run on it.

    Nothing is ever dropped, and what was done before is left as it is.

    Args:
        outputs: of Terraform.
        image: the service's, by digest; the Job runs it too.
        authority: a URL or a file of the CA certificates that the database's is signed with.
        dry_run: look, and say what would be done.

    Raises:
        CannotProceed: with the reason, and with the Job's log where it failed.
    """
    instance = find(outputs)
    say(f"Database {outputs.database_identifier}: {instance.host}:{instance.port}/{instance.database}")
    job = manifests.render("migration", outputs, image)
    bundle = _read_authority(authority)
    if dry_run:
        say(f"Would write the Secrets {OWNER_SECRET} and {SERVICE_SECRET}, and run the Job {JOB}")
        return
    cluster = Kubernetes(outputs)
    before = _data(cluster.get(NAMESPACE, "secret", SERVICE_SECRET))
    place = {"DB_HOST": instance.host, "DB_PORT": str(instance.port), "DB_NAME": instance.database}
    password = before.get("DB_PASSWORD") or secrets.token_urlsafe(_PASSWORD_BYTES)
    service = {**place, "DB_USERNAME": _ROLE, "DB_PASSWORD": password}
    owner = {**place, **_owner(outputs, instance), "DB_SERVICE_PASSWORD": password}

    cluster.apply(_object("ConfigMap", AUTHORITY, {"data": {"ca.pem": bundle}}))
    cluster.delete(NAMESPACE, "job", JOB, seconds=60)  # an earlier one, whether it ended or not
    try:
        cluster.apply(_object("Secret", OWNER_SECRET, {"stringData": owner}))
        cluster.apply(job)
        _wait_for_job(cluster)
    finally:
        cluster.delete(NAMESPACE, "secret", OWNER_SECRET, seconds=60)
    cluster.apply(_object("Secret", SERVICE_SECRET, {"stringData": service}))
    _renew_pods(cluster, service)
    say("Waiting for the service to run on it")
    options = ("--namespace", NAMESPACE, f"--timeout={_ROLLOUT_SECONDS}s")
    say(cluster.run("rollout", "status", f"deployment/{DEPLOYMENT}", *options, seconds=_ROLLOUT_SECONDS + 60).rstrip())


def find(outputs: Outputs) -> Instance:
    """The RDS instance, once it is available.

    Raises:
        CannotProceed: there is none of its name, or it is in no state to become available.
    """
    rds = aws("rds", outputs.region)
    identifier = outputs.database_identifier

    def available() -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
        except rds.exceptions.DBInstanceNotFoundFault:
            raise CannotProceed(f"there is no database {identifier} in {outputs.region}: apply Terraform") from None
        if told["DBInstanceStatus"].startswith(_HOPELESS):
            raise CannotProceed(f"the database {identifier} is {told['DBInstanceStatus']}")
        return told if told["DBInstanceStatus"] in _USABLE else None

    told = wait_for(f"the database {identifier} to be available", available, seconds=_INSTANCE_SECONDS)
    if "MasterUserSecret" not in told:
        raise CannotProceed(f"the database {identifier} has no password that AWS keeps: apply Terraform")
    endpoint, secret = told["Endpoint"], told["MasterUserSecret"]
    return Instance(endpoint["Address"], endpoint["Port"], told["DBName"], secret["SecretArn"])


_USABLE: Final = ("available", "backing-up", "storage-optimization", "configuring-enhanced-monitoring")
_HOPELESS: Final = (  # how these begin
    *("deleting", "failed", "incompatible-", "inaccessible-encryption-credentials"),
    *("restore-error", "stopped", "stopping", "storage-full"),
)


def _owner(outputs: Outputs, instance: Instance) -> dict[str, str]:
    try:
        answer = aws("secretsmanager", outputs.region).get_secret_value(SecretId=instance.secret_arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise CannotProceed(f"the owner's password is gone from Secrets Manager ({instance.secret_arn})") from None
    kept = json.loads(answer["SecretString"])
    return {"DB_USERNAME": kept["username"], "DB_PASSWORD": kept["password"]}


def _read_authority(source: str) -> str:
    try:
        if source.startswith("https://"):
            with urllib.request.urlopen(source, timeout=_DOWNLOAD_SECONDS) as answer:  # noqa: S310 - https
                content: str = answer.read().decode("ascii")
        else:
            content = Path(source).read_text("ascii")
    except (OSError, ValueError, HTTPException) as error:
        raise CannotProceed(f"the database's CA certificates cannot be had from {source}: {error}") from None
    if "-----BEGIN CERTIFICATE-----" not in content:
        raise CannotProceed(f"{source} holds no certificates")
    return content


def _wait_for_job(cluster: Kubernetes) -> None:
    def ended() -> str | None:
        job = cluster.get(NAMESPACE, "job", JOB)
        if job is None:
            raise CannotProceed(f"the Job {JOB} is gone; run this again")
        for condition in job.get("status", {}).get("conditions", []):
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                return str(condition["type"])
        return None

    try:
        how = wait_for(f"the Job {JOB}", ended, seconds=_JOB_SECONDS)
    finally:
        _show_log(cluster)
    if how != "Complete":
        raise CannotProceed(f"the Job {JOB} failed; its log, above, says why. Nothing was dropped: run this again")


def _show_log(cluster: Kubernetes) -> None:
    options = ("--all-containers", "--prefix", "--namespace", NAMESPACE, "--pod-running-timeout=1s")
    try:
        say(cluster.run("logs", f"job/{JOB}", *options).rstrip())
    except CannotProceed as error:
        say(f"The Job's log cannot be shown: {error}")


def _renew_pods(cluster: Kubernetes, service: dict[str, str]) -> None:
    """Has pods start anew that were started with another Secret, which they read once.

    The Secret's fingerprint is written on the pods' template, so that a run that ended in between is made up for.
    """
    fingerprint = hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()
    template = {"metadata": {"annotations": {_FINGERPRINT: fingerprint}}}
    patch = json.dumps({"spec": {"template": template}})
    done = cluster.run("patch", "deployment", DEPLOYMENT, "--namespace", NAMESPACE, "--patch", patch)
    if "(no change)" not in done:
        say("The service's Secret is new to its pods: they start anew")


def _object(kind: str, name: str, content: dict[str, Any]) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}


def _data(secret: Object | None) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in (secret or {}).get("data", {}).items()}
