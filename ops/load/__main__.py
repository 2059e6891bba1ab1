"""The command line: `python -m ops.load`."""

import argparse
import sys
from pathlib import Path
from typing import Final

from ops.load import target
from ops.load.scenarios import SCENARIOS

_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_EPILOG: Final = """\
Anything else goes to Locust: --master --expect-workers 3 here and --worker --master-host … on three other machines, for
one. Exits with 0 where all objectives are met (ops/load/objectives.yaml), 1 where not, 2 where it could not be run.
"""


def main() -> None:
    """Refuses what must not be loaded, and leaves the rest to Locust, which ends the process."""
    parser = _parser()
    arguments, of_locust = parser.parse_known_args()
    try:
        target.check(arguments.host, is_owned=arguments.i_own_this_host)
    except target.Refused as error:
        parser.error(str(error))
    sys.argv = ["locust", *_command(arguments), *of_locust]
    # Not above: it patches the whole process, so what is refused had better be refused before.
    from locust.main import main as locust  # noqa: PLC0415

    locust()


def _command(arguments: argparse.Namespace) -> list[str]:
    sources = str(arguments.processes or arguments.expect_workers or 1)
    command = ["-f", str(_LOCUSTFILE), "--host", arguments.host, "--loglevel", "WARNING", "--only-summary"]
    command += ["--users", sources, "--spawn-rate", sources]
    for name in ("scenario", "rate", "duration", "output", "processes", "expect_workers"):
        if value := getattr(arguments, name):
            command += [f"--{name.replace('_', '-')}", str(value)]
    if arguments.i_own_this_host:
        command.append("--i-own-this-host")
    return [*command, *(("--web-host", "127.0.0.1") if arguments.web else ("--headless",))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.load",
        description="Sends the service requests at a rate that no answer slows down, and says whether it held.",
        epilog=_EPILOG,
        allow_abbrev=False,  # what is Locust's stays Locust's
    )
    kinds = "; ".join(f"{name}: {scenario.means}" for name, scenario in SCENARIOS.items()).replace("%", "%%")
    parser.add_argument("scenario", choices=list(SCENARIOS), metavar="SCENARIO", help=kinds)
    parser.add_argument("--host", default="http://127.0.0.1:8080", metavar="URL", help="the service (%(default)s)")
    parser.add_argument("--rate", type=_positive, metavar="N", help="requests per second (the scenario's own)")
    parser.add_argument("--duration", type=_whole, metavar="S", help="seconds (the scenario's own)")
    parser.add_argument("--processes", type=_whole, metavar="N", help="processes that share the work (1)")
    parser.add_argument("--expect-workers", type=_whole, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--output", metavar="FOLDER", help="for the results (.local/load)")
    parser.add_argument("--web", action="store_true", help="serve Locust's page, where runs are started, on loopback")
    parser.add_argument("--i-own-this-host", action="store_true", help="the service is not on this machine, but mine")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


if __name__ == "__main__":
    main()
