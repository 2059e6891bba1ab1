"""The on-call page: `python -m ops.oncall`."""

import argparse
import os
import re
import sys
import time
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web

from ops.oncall.documents import InvalidDocument
from ops.oncall.recorder import FILE
from ops.oncall.server import Server
from ops.oncall.sources import Follow, Replay, Source, max_bytes
from ops.oncall.state import OnCallState
from svc.errors import InvalidSetting

_PORT: Final = "8081"
_MAX_PORT: Final = 65535
_MAX_SPEED: Final = 10000
_STOPPED_SECONDS: Final = 65  # more than the longest interval of metrics


def main() -> int:
    """Serves the page until it is interrupted; returns 1, with an error message, where it cannot."""
    arguments = _parser().parse_args()
    try:
        state = OnCallState(_source(arguments))
    except InvalidSetting as error:
        return _fail(str(error))
    except (OSError, InvalidDocument) as error:
        return _fail(f"cannot replay {arguments.replay}: {error}")
    is_loopback = _is_loopback(arguments.host)
    if not is_loopback:
        print(f"Everyone who can reach {arguments.host} can read this log: there is no password.", file=sys.stderr)
    hint = "" if arguments.replay else _start_hint(arguments.follow)
    app = Server(state).app(is_loopback=is_loopback)
    try:
        web.run_app(app, host=arguments.host, port=arguments.port, print=partial(_greet, hint), access_log=None)
    except OSError as error:
        return _fail(f"cannot listen on {arguments.host} port {arguments.port}: {error.strerror}")
    return 0


def _source(arguments: argparse.Namespace) -> Source:
    return (
        Replay(arguments.replay, arguments.speed)
        if arguments.replay
        else Follow(arguments.follow, max_bytes(os.environ))
    )


def _start_hint(recording: Path) -> str:
    """What to start where no service writes the recording now."""
    start = "`make run` in another terminal starts the service, and the page then shows it."
    try:
        written = recording.stat().st_mtime
    except OSError:
        return f"There is no {recording} yet: {start}"
    if time.time() - written <= _STOPPED_SECONDS:
        return ""
    return f"The service stopped at {datetime.fromtimestamp(written, UTC):%Y-%m-%d %H:%M:%S} UTC: {start}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _greet(hint: str, message: str) -> None:
    # aiohttp prints several lines; the address is in the first.
    address = message.rsplit("======== Running on ", maxsplit=1)[-1].split(" ", maxsplit=1)[0]
    print(f"On call  {address}/  (Ctrl-C stops)", *filter(None, [hint]), sep="\n", flush=True)


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.oncall",
        description="Dashboards, alarms, logs and traces of a service that runs here, as CloudWatch would show them.",
    )
    source = parser.add_mutually_exclusive_group()
    recording = Path(os.environ.get("LOCAL_FOLDER") or ".local") / FILE
    source.add_argument(
        "--follow",
        type=Path,
        default=recording,
        metavar="FILE",
        help=f"show a recording while it is written (default: {recording})",
    )
    source.add_argument("--replay", type=Path, metavar="FILE", help="show an earlier recording (.jsonl or .jsonl.gz)")
    parser.add_argument(
        "--speed",
        type=_speed,
        metavar="N",
        help="with --replay: N times the original speed (default: read the whole file at once)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    port = os.environ.get("ONCALL_PORT") or _PORT
    parser.add_argument(
        "--port", type=_port, default=port, help=f"the port to listen on (default: ONCALL_PORT, or {_PORT})"
    )
    return parser


def _speed(text: str) -> float:
    if not (re.fullmatch(r"\d{1,5}(\.\d{1,3})?", text) and 0 < float(text) <= _MAX_SPEED):
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most {_MAX_SPEED}")
    return float(text)


def _port(text: str) -> int:
    if not (re.fullmatch(r"\d{1,5}", text) and int(text) <= _MAX_PORT):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_MAX_PORT}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
