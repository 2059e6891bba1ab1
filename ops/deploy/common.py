"""Shared by the commands: Terraform's outputs, AWS clients, progress messages, and waiting."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_T = TypeVar("_T")

# Retries a call that was throttled or whose connection was lost: at most six attempts, with growing pauses.
_WITH_RETRIES: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=5, read_timeout=30, max_pool_connections=2
)
_PROGRESS_SECONDS: Final = 15.0

poll_seconds = 2.0  # the pause between two polls in wait_for


class CannotProceed(Exception):
    """A command cannot do its work; the message gives the reason and what to do."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of Terraform (`terraform output -json`), described in terraform/outputs.tf.

    Attributes:
        name: of the cluster, and the prefix of all other names.
        region: of AWS.
        kubernetes_version: the cluster's minor version.
        autoscaler_version: the release of the autoscaler for that version.
        cluster_range: the CIDR range of the cluster's VPC.
        database_range: the CIDR range of the database's VPC.
        database_identifier: of the RDS instance.
        hostname: the service's public name.
        zone_id: of the hosted zone of that name.
        certificate_arn: of the certificate for that name.
        balancer_logs: the bucket for the load balancer's access logs.
    """

    name: str
    region: str
    kubernetes_version: str
    autoscaler_version: str
    cluster_range: str
    database_range: str
    database_identifier: str
    hostname: str
    zone_id: str
    certificate_arn: str
    balancer_logs: str


def read_outputs(file: Path) -> Outputs:
    """Reads a file that `terraform output -json` wrote.

    Raises:
        CannotProceed: the file does not exist, is invalid, or lacks an output.
    """
    try:
        content: dict[str, dict[str, Any]] = json.loads(file.read_text())
        return Outputs(**{field.name: _text(content[field.name]["value"], field.name) for field in fields(Outputs)})
    except FileNotFoundError:
        raise CannotProceed(f"{file} does not exist: create it with terraform output -json > {file}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CannotProceed(f"{file} does not have the terraform outputs of an applied state ({reason})") from None


def _text(value: object, name: str) -> str:
    if not value or not isinstance(value, str):
        raise ValueError(f"{name} is {json.dumps(value)}")
    return value


def aws_client(service: str, region: str) -> Any:
    """Returns a boto3 client that retries, with the credentials and the endpoint of the environment."""
    return _aws_client(service, region, os.environ.get("AWS_ENDPOINT_URL"))


@cache
def _aws_client(service: str, region: str, endpoint: str | None) -> Any:
    """Keeps each client, since creating one takes 15 ms."""
    return boto3.client(service, region_name=region, endpoint_url=endpoint, config=_WITH_RETRIES)


def aws_error_message(error: BotoCoreError | ClientError) -> str:
    """Describes an error of AWS, or of the connection to it, in one line."""
    if not isinstance(error, ClientError):
        return f"the call to AWS failed: {error}"
    code = error.response.get("Error", {}).get("Code", "unknown")
    return f"AWS refused {error.operation_name} ({code}): {error.response.get('Error', {}).get('Message', '')}"


def report(message: str) -> None:
    """Prints a line for the operator at once, even into a pipe."""
    print(message, flush=True)


def wait_for(what: str, poll: Callable[[], _T | None], *, timeout: float) -> _T:
    """Calls `poll` until it returns a value other than None, and reports every 15 s that it waits.

    Args:
        what: what the command waits for, as messages name it: "the load balancer".
        poll: returns the result, or None while there is none.
        timeout: in seconds.

    Raises:
        CannotProceed: the timeout has passed.
    """
    started = reported = time.monotonic()
    while (result := poll()) is None:
        now = time.monotonic()
        if now - started > timeout:
            raise CannotProceed(f"timed out after {timeout:.0f} s waiting for {what}; run this again")
        if now - reported > _PROGRESS_SECONDS or reported == started:
            report(f"Waiting for {what} ({now - started:.0f} s of at most {timeout:.0f} s)")
            reported = now
        time.sleep(poll_seconds)
    return result
