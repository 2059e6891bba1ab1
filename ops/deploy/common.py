"""What the commands share: what Terraform made, AWS's APIs, words for people, and waiting."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_T = TypeVar("_T")

# A throttled call, or one whose connection was lost, is made again, five times at most, after longer and longer pauses.
_PATIENT: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=5, read_timeout=30, max_pool_connections=2
)
_TELL_SECONDS: Final = 15.0

poll_seconds = 2.0  # from one question to the next, while something is waited for


class CannotProceed(Exception):
    """A command cannot do its work; the message says why and what to do."""


@dataclass(frozen=True)
class Outputs:
    """What Terraform made, as `terraform output -json` tells it; terraform/outputs.tf describes each.

    Attributes:
        name: of the cluster, and the beginning of all other names.
        region: of AWS.
        kubernetes_version: the cluster's minor version.
        cluster_range: the network of the cluster's VPC.
        database_range: the network of the database's VPC.
        database_identifier: of the RDS instance.
        hostname: the service's public name.
        zone_id: of the hosted zone that the name is in.
        certificate_arn: of the certificate for it.
    """

    name: str
    region: str
    kubernetes_version: str
    cluster_range: str
    database_range: str
    database_identifier: str
    hostname: str
    zone_id: str
    certificate_arn: str


def read_outputs(file: Path) -> Outputs:
    """What the file says, which `terraform output -json` wrote.

    Raises:
        CannotProceed: it is not there, or not all in it.
    """
    try:
        content: dict[str, dict[str, Any]] = json.loads(file.read_text())
        return Outputs(**{field.name: _text(content[field.name]["value"], field.name) for field in fields(Outputs)})
    except FileNotFoundError:
        raise CannotProceed(f"there is no {file}: make it with terraform output -json > {file}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CannotProceed(f"{file} is not what terraform output -json says of an applied state ({reason})") from None


def _text(value: object, name: str) -> str:
    if not value or not isinstance(value, str):
        raise ValueError(f"{name} is {json.dumps(value)}")
    return value


def aws(service: str, region: str) -> Any:
    """A client of one of AWS's APIs, with the credentials and the endpoint that the environment gives."""
    return boto3.client(service, region_name=region, config=_PATIENT)


def in_words(error: BotoCoreError | ClientError) -> str:
    """What AWS, or the way there, said."""
    if not isinstance(error, ClientError):
        return f"AWS cannot be asked: {error}"
    code = error.response.get("Error", {}).get("Code", "unknown")
    return f"AWS refused {error.operation_name} ({code}): {error.response.get('Error', {}).get('Message', '')}"


def say(words: str) -> None:
    """Tells the person who looks on."""
    print(words, flush=True)


def wait_for(what: str, ask: Callable[[], _T | None], *, seconds: float) -> _T:
    """Asks until there is an answer, and tells that it waits.

    Args:
        what: is waited for, for people: "the load balancer".
        ask: gives the answer, or None while there is none.
        seconds: how long at most.

    Raises:
        CannotProceed: there was none in that time.
    """
    began = told = time.monotonic()
    while (answer := ask()) is None:
        now = time.monotonic()
        if now - began > seconds:
            raise CannotProceed(f"waited {seconds:.0f} s in vain for {what}; run this again")
        if now - told > _TELL_SECONDS or told == began:
            say(f"Waiting for {what} ({now - began:.0f} s of {seconds:.0f} at most)")
            told = now
        time.sleep(poll_seconds)
    return answer
