"""Runs wrk, a closed-loop load generator, against services on this machine only."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.common.loopback import is_loopback

_SCRIPT: Final = Path(__file__).with_name("workload.lua")
_GRACE_SECONDS: Final = 60.0


class WrkError(Exception):
    """wrk is not installed or failed, or the URL is not of this machine."""


@dataclass(frozen=True)
class Load:
    """The report of one run of wrk.

    Attributes:
        requests: responses received.
        seconds: the length of the run.
        errors: failed connections, reads and writes, and responses with a status of 400 or above.
        p50_ms: median latency, in milliseconds.
        p99_ms: 99th percentile of latency, in milliseconds.
        p999_ms: 99.9th percentile of latency, in milliseconds.
    """

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


def missing() -> str:
    """What is not installed and how to install it; empty if all is."""
    return "" if shutil.which("wrk") else "wrk is missing; on Debian: apt install wrk"


def run(
    url: str, workload: str, largest_id: int, connections: int, seconds: int, *, before: Sequence[str] = ()
) -> Load:
    """Sends one kind of request over `connections` connections, each the next as soon as it has a response.

    Args:
        url: of the service.
        workload: the kind of request, as workload.lua names it.
        largest_id: of the clients to get.
        connections: how many.
        seconds: how long.
        before: a command that starts wrk, such as `nice`, with its arguments.

    Raises:
        WrkError: with the reason. If the address is not of loopback, no request was sent.
    """
    if not is_loopback(url):
        raise WrkError(
            f"{url} is not an address of loopback such as http://127.0.0.1:8080; wrk loads only this machine"
        )
    if reason := missing():
        raise WrkError(reason)
    command = [
        *before,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}",
        "--timeout=60s",
        "--latency",
        "-s",
        str(_SCRIPT),
        url,
    ]
    try:
        done = subprocess.run(
            [*command, "--", workload, str(largest_id)],
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_SECONDS,
            check=True,
        )
        return Load(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.CalledProcessError as error:
        raise WrkError(f"wrk failed: {error.stderr.strip() or error.stdout.strip()}") from None
    except subprocess.TimeoutExpired:
        raise WrkError(f"wrk did not end within {_GRACE_SECONDS:g} s after the end of its run") from None
