"""The command line: `python -m ops.bench`."""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from ops.bench import contenders, measure, report, results, wrk
from ops.bench.measure import Entry, Plan, Turn
from ops.common import machine
from svc.postgres.embedded import EmbeddedPostgresError

_ROWS: Final = 10_000
_SCALING_ROWS: Final = (1_000, 100_000, 10_000_000)
_SCALING_WORKERS: Final = (1, 2)
_TYPICAL_CONNECTIONS: Final = 64

_PARTS: Final = ("comparison", "anatomy", "scaling")


def main() -> int:
    """Measures, or draws what was measured; 0 where that worked."""
    arguments = _parser().parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    if arguments.results:
        measured = results.load(arguments.results)
        report.write_pictures(measured, output)
    else:
        try:
            measured = _measure(arguments, output / "results.json")
        except (measure.WrongAnswer, wrk.WrkError, EmbeddedPostgresError) as error:
            _say(f"error: {error}")
            return 1
    report.write(measured, output / "report.html")
    _sum_up(measured)
    _say(f"Report  {output / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench",
        description="Measures the service beside its peers, on this machine alone.",
    )
    peers = [contender.name for contender in contenders.PEERS]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, metavar="NAME", help=" ".join(peers))
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS, metavar="PART", help=" ".join(_PARTS))
    parser.add_argument("--workloads", nargs="+", choices=["get", "add", "getall"], default=["get", "add", "getall"])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 64, 256], metavar="N")
    parser.add_argument("--scaling-rows", nargs="+", type=int, default=_SCALING_ROWS, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each with each load (5)")
    parser.add_argument("--seconds", type=int, default=2, help="of a turn (2)")
    parser.add_argument("--output", type=Path, default=Path(".local/bench"), help="folder (.local/bench)")
    parser.add_argument("--results", type=Path, help="draw these instead of measuring anew, and write pictures too")
    return parser


def _measure(arguments: argparse.Namespace, path: Path) -> results.Results:
    peers = [contender for contender in contenders.PEERS if contender.name in arguments.peers]
    turns = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    plans = {
        "comparison": Plan(
            [Entry(contender, _ROWS) for contender in (contenders.OURS, *peers)],
            arguments.workloads,
            arguments.connections,
            **turns,
        ),
        "anatomy": Plan(
            [Entry(contender, _ROWS) for contender in (*contenders.FLOORS, contenders.OURS)],
            ["healthz", "get", "add"],
            [_TYPICAL_CONNECTIONS],
            **turns,
        ),
        "scaling": Plan(
            [Entry(_with_workers(count), rows) for count in _SCALING_WORKERS for rows in arguments.scaling_rows],
            ["get"],
            [_TYPICAL_CONNECTIONS],
            **turns,
        ),
    }
    measured = results.Results(machine.describe())
    for part in arguments.parts:
        plan = plans[part]
        found: list[Turn] = getattr(measured, part)
        _say(f"== {part}: {plan.turns} turns")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            started = time.monotonic()
            for turn in measure.run(plan, Path(folder), _say):
                found.append(turn)
                measured.save(path)
                _tell(turn, len(found), plan.turns, time.monotonic() - started)
    return measured


def _with_workers(count: int) -> contenders.Contender:
    name = f"{count} worker{'s' if count > 1 else ''}"
    return replace(contenders.OURS, name=name, environment={**contenders.OURS.environment, "WORKERS": str(count)})


def _tell(turn: Turn, done: int, all_turns: int, seconds: float) -> None:
    left = seconds / done * (all_turns - done) / 60
    errors = f"  {turn.errors} errors" if turn.errors else ""
    _say(
        f"[{done:3}/{all_turns}, {left:4.1f} min left] {turn.workload:7} {turn.connections:3} connections "
        f"{turn.contender:18}{turn.rows:>11,} rows {turn.per_second:8,.0f}/s  p99 {turn.p99_ms:8.2f} ms  "
        f"{results.cpu_us(turn):9,.1f} µs CPU{errors}"
    )


def _sum_up(measured: results.Results) -> None:
    """The goals, on the terminal."""
    for verdict in results.verdicts(measured.comparison):
        goal, ratio = verdict.goal, verdict.ratio
        met = "met   " if verdict.met else "MISSED"
        told = f"{met}  {goal.words:15} {goal.workload:7}{goal.connections:3} connections"
        spread = f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})"
        print(f"{told} beside {verdict.peer:18} {spread}, at most {goal.most:.2f}")


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
