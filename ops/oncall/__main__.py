"""The page for whoever is on call: `python -m ops.oncall`."""

import argparse
import os
import re
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web

from ops.oncall.desk import Desk
from ops.oncall.lines import NoDocument
from ops.oncall.recorder import FILE
from ops.oncall.server import Server
from ops.oncall.sources import Follow, Replay, Source

_PORT: Final = "8081"
_PORT_MOST: Final = 65535
_SPEED_MOST: Final = 10000


def main() -> int:
    """Serves the page until it is interrupted; 1 where it cannot, in a sentence."""
    arguments = _parser().parse_args()
    try:
        desk = Desk(_source(arguments))
    except (OSError, NoDocument) as error:
        return _refuse(f"{arguments.replay} cannot be replayed: {error}")
    is_loopback = _is_loopback(arguments.host)
    if not is_loopback:
        print(f"Whoever reaches {arguments.host} can read this log: it asks for no password.", file=sys.stderr)
    app = Server(desk).app(is_loopback=is_loopback)
    try:
        web.run_app(app, host=arguments.host, port=arguments.port, print=_said, access_log=None)
    except OSError as error:
        return _refuse(f"{arguments.host}:{arguments.port} cannot be listened on: {error.strerror}")
    return 0


def _source(arguments: argparse.Namespace) -> Source:
    return Replay(arguments.replay, arguments.speed) if arguments.replay else Follow(arguments.follow)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(words: str) -> None:
    # aiohttp's own words are several lines; the address is in the first.
    address = words.rsplit("======== Running on ", maxsplit=1)[-1].split(" ", maxsplit=1)[0]
    print(f"On call  {address}/  (Ctrl-C stops)", flush=True)


def _refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.oncall",
        description="Dashboards, alarms, logs and traces of a service that runs here, as CloudWatch would show them.",
    )
    source = parser.add_mutually_exclusive_group()
    recording = Path(os.environ.get("LOCAL_FOLDER") or ".local") / FILE
    source.add_argument(
        "--follow", type=Path, default=recording, metavar="FILE", help=f"a recording that grows ({recording})"
    )
    source.add_argument("--replay", type=Path, metavar="FILE", help="one that was made before (.jsonl or .jsonl.gz)")
    parser.add_argument(
        "--speed", type=_speed, metavar="N", help="with --replay: N times as fast as it happened; all at once without"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    port = os.environ.get("ONCALL_PORT") or _PORT
    parser.add_argument("--port", type=_port, default=port, help=f"the port ({_PORT}, or what ONCALL_PORT says)")
    return parser


def _speed(text: str) -> float:
    if not (re.fullmatch(r"\d{1,5}(\.\d{1,3})?", text) and 0 < float(text) <= _SPEED_MOST):
        raise argparse.ArgumentTypeError(f"has to be a number above 0, and at most {_SPEED_MOST}")
    return float(text)


def _port(text: str) -> int:
    if not (re.fullmatch(r"\d{1,5}", text) and int(text) <= _PORT_MOST):
        raise argparse.ArgumentTypeError(f"has to be a number from 0 to {_PORT_MOST}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
