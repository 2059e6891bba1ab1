"""Runs wrk, a closed-loop load generator, against this machine and no other."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.common.loopback import is_loopback

_SCRIPT: Final = Path(__file__).with_name("workload.lua")
_GRACE_SECONDS: Final = 60.0


class WrkError(Exception):
    """wrk is missing, failed, or was asked to do what it must not."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw.

    Attributes:
        requests: how many were answered.
        seconds: how long it took.
        errors: failed connections, reads and writes, and answers of status 400 and above.
        p50_ms: the latency that half of the requests stayed under, in milliseconds.
        p99_ms: the same for 99 of 100.
    """

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float


def lacks() -> str:
    """What this machine lacks for it; empty where nothing."""
    return "" if shutil.which("wrk") else "wrk is missing; on Debian: apt install wrk"


def run(url: str, workload: str, largest_id: int, connections: int, seconds: int) -> Load:
    """Sends one kind of request for a while over `connections` connections, the next as soon as one is answered.

    Raises:
        WrkError: with the reason; no request was sent where the address is not of loopback.
    """
    if not is_loopback(url):
        raise WrkError(
            f"{url} is not an address of loopback such as http://127.0.0.1:8080; only this machine is loaded"
        )
    if missing := lacks():
        raise WrkError(missing)
    command = [
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
        raise WrkError(f"wrk did not end within {_GRACE_SECONDS:g} seconds of its time") from None
