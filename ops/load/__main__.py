"""The command line: `python -m ops.load`."""

import argparse
import sys
from pathlib import Path
from typing import Final

from ops.load import target
from ops.load.scenarios import SCENARIOS

_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_EPILOG: Final = """\
All other options go to Locust, such as --master --expect-workers 3 here and --worker --master-host … on three other
machines. Exit status: 0 if all objectives are met (ops/load/objectives.yaml); 1 if the service misses one; 2 if the
test could not run; 3 if there is no verdict, because the load generator could not keep up or the run was cut short.
"""


def main() -> None:
    """Checks the target and starts Locust, which ends the process."""
    parser = _parser()
    arguments, locust_arguments = parser.parse_known_args()
    try:
        target.check(arguments.host, is_owned=arguments.i_own_this_host)
    except target.Refused as error:
        parser.error(str(error))
    sys.argv = ["locust", *_command(arguments), *locust_arguments]
    # Imported late: Locust patches the whole process, which a refused target does not need.
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
        description="Sends requests to the service at a rate that slow responses do not lower, and reports whether the "
        "service met its objectives.",
        epilog=_EPILOG,
        allow_abbrev=False,  # an abbreviation could be an option of Locust
    )
    scenarios = "; ".join(f"{name}: {scenario.description}" for name, scenario in SCENARIOS.items())
    parser.add_argument("scenario", choices=list(SCENARIOS), metavar="SCENARIO", help=scenarios.replace("%", "%%"))
    parser.add_argument(
        "--host", default="http://127.0.0.1:8080", metavar="URL", help="URL of the service (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=_positive, metavar="N", help="requests per second (default: the scenario's rate)"
    )
    parser.add_argument("--duration", type=_whole, metavar="S", help="seconds (default: the scenario's duration)")
    parser.add_argument("--processes", type=_whole, metavar="N", help="processes that share the load (default: 1)")
    parser.add_argument("--expect-workers", type=_whole, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--output", metavar="FOLDER", help="folder for the results (default: .local/load)")
    parser.add_argument(
        "--web", action="store_true", help="serve Locust's web page on 127.0.0.1, to start runs from there"
    )
    parser.add_argument(
        "--i-own-this-host",
        action="store_true",
        help="confirm that you may load a service that is not on this machine",
    )
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
