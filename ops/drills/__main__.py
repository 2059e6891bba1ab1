"""The command line: `python -m ops.drills`."""

import argparse
import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from ops.drills import clock, database, drill, network, processes, rolling, stage, telemetry
from ops.drills.drill import DRILLS, Drill, Played

_MODULES: Final = (
    database,
    processes,
    rolling,
    telemetry,
    clock,
    network,
)  # what they hold is in DRILLS once they are imported


def main() -> int:
    """Plays the drills that are asked for; 0 where all that they claim holds, 1 where not."""
    arguments = _parser().parse_args()
    folder = Path(arguments.output) / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    chosen = arguments.drills or list(DRILLS.values())
    played: list[Played] = []
    lacking = 0
    with stage.collecting(folder) as collector_port:
        for number, each in enumerate(chosen, 1):
            _say(f"[{number:2}/{len(chosen)}] {each.name}: {each.breaks}")
            if lack := each.lacks():
                _say(f"        not played: {lack}")
                lacking += 1
                continue
            played.append(_play(each, folder / each.name, collector_port, is_quick=arguments.quick))
            _tell(played[-1])
    summary = [each.summary() for each in played]
    (folder / "results.json").write_text(json.dumps(summary, indent=1))
    failed = [each.drill.name for each in played if not each.passed]
    _say(f"{len(played) - len(failed)} passed, {len(failed)} failed, {lacking} skipped")
    return 1 if failed or (lacking and os.environ.get("CI")) else 0


def _play(each: Drill, folder: Path, collector_port: int, *, is_quick: bool) -> Played:
    folder.mkdir()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drill.run(each, folder, collector_port, is_quick=is_quick))


def _tell(played: Played) -> None:
    kinds = played.summary()["kinds"]
    _say(f"        {kinds}, {played.seconds:.0f} s")
    for claim in played.claims:
        bound = "at least" if claim.at_least else "at most"
        holds = "holds " if claim.holds else "BROKEN"
        _say(f"        {holds}  {claim.words}: {claim.found:.3g} {claim.unit} ({bound} {claim.bound:g})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.drills",
        description="Breaks one thing after the other under load, and says what callers saw and whether anything that "
        "was acknowledged was lost, doubled or read back wrong.",
    )
    parser.add_argument("drills", nargs="*", metavar="DRILL", type=_drill, help=", ".join(DRILLS))
    parser.add_argument("--quick", action="store_true", help="in their short form")
    parser.add_argument("--output", default=".local/drills", metavar="FOLDER", help="for the results (%(default)s)")
    return parser


def _drill(name: str) -> Drill:
    if name not in DRILLS:
        raise argparse.ArgumentTypeError(f"there is no drill {name}; there is {', '.join(DRILLS)}")
    return DRILLS[name]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
