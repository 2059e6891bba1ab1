"""The command line: `python -m ops.bench`."""

import argparse
import itertools
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ops.bench import contenders, instructions, measure, open_loop, report, results, wrk
from ops.bench.measure import Entry, Plan, Turn
from ops.common import console, machine
from ops.common.cpu import CpuTimeLost
from svc.postgres.embedded import EmbeddedPostgresError, binary

_ROWS: Final = 10_000
_SCALING_ROWS: Final = (1_000, 100_000, 10_000_000)
_SCALING_WORKERS: Final = (1, 2)
_TYPICAL_CONNECTIONS: Final = 64

_SHARES: Final = (0.3, 0.6, 0.9)
_LATENCY_WORKLOADS: Final = ("get", "add")  # a list takes so long that few fit into a turn

_PARTS: Final = ("comparison", "anatomy", "scaling")
_QUICK: Final = {
    "parts": ["comparison"],
    "peers": ["clients-api-telemetry", "aiohttp", "go-pgx"],
    "workloads": ["get", "add"],
    "connections": [_TYPICAL_CONNECTIONS],
    "rounds": 3,
    "seconds": 1,
}
_LATENCY: Final = {"parts": ["latency"]}
_INTERRUPTED: Final = 128 + signal.SIGINT  # the exit status that shells use


def main() -> int:
    """Measures, or reads earlier results, and writes the report.

    Returns:
        0 whether or not goals are met, 1 if the measurement failed, 130 if it was interrupted.
    """
    arguments = parse_arguments()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    if arguments.results:
        found = results.load(arguments.results)
        report.write_pictures(found, output)
    else:
        try:
            found = _measure(arguments, output / "results.json")
        except (
            measure.WrongResponse,
            wrk.WrkError,
            open_loop.OpenLoopError,
            CpuTimeLost,
            EmbeddedPostgresError,
        ) as error:
            console.err.print(f"error: {error}")
            return 1
        except KeyboardInterrupt:
            console.err.print("Interrupted. All contenders have stopped.")
            return _INTERRUPTED
    report.write(found, output / "report.html")
    goals = report.goal_table(found)
    if goals.row_count:
        console.out.print(goals)
    console.out.print(report.sentence(found))
    console.err.print(f"Report  {output / 'report.html'}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line's. --quick and --latency change the defaults, so that other options still count."""
    parser = _parser()
    given = parser.parse_args()
    if given.quick:
        parser.set_defaults(**_QUICK)
    if given.latency:
        parser.set_defaults(**_LATENCY)
    return parser.parse_args()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench",
        description="Compares the service with its peers, all of them on this machine.",
        epilog="Exit status: 0 if everything was measured, whether or not goals are met; 1 if not; 2 if the command "
        "line is invalid; 130 if the run was interrupted.",
    )
    peers = [contender.name for contender in contenders.PEERS]
    workloads = ["get", "add", "getall"]

    def several(name: str, help_text: str, default: Sequence[str], *others: str, nargs: str = "+") -> None:
        text = f"{help_text} (default: {' '.join(default)}{'; also ' if others else ''}{' '.join(others)})"
        choices = (*default, *others)
        parser.add_argument(name, nargs=nargs, choices=choices, default=default, metavar="NAME", help=text)

    def integers(name: str, help_text: str, default: Sequence[int]) -> None:
        text = f"{help_text} (default: {' '.join(map(str, default))})"
        parser.add_argument(name, nargs="+", type=int, default=default, metavar="N", help=text)

    parser.add_argument(
        "--quick", action="store_true", help="rough figures in two minutes: few peers, only get and add, short turns"
    )
    several("--peers", "what to compare the service with", peers, nargs="*")
    text = "latency of the service and its peers in an open loop, at 30, 60 and 90 %% of what each carries"
    parser.add_argument("--latency", action="store_true", help=f"only the {text}; the same as --parts latency")
    text = "in the open loop, load all contenders at shares of what the slowest one carries"
    parser.add_argument("--same-rates", action="store_true", help=text)
    several("--parts", "what to measure", _PARTS, "latency")
    several("--workloads", "requests of the comparison, and of the open loop, which sends no getall", workloads)
    integers("--connections", "numbers of connections in the comparison", (1, 64, 256))
    integers("--scaling-rows", "numbers of clients in the scaling part", _SCALING_ROWS)
    text = "turns of each contender (default: %(default)s)"
    parser.add_argument("--rounds", type=int, default=results.FULL_ROUNDS, metavar="N", help=text)
    parser.add_argument("--seconds", type=int, default=2, metavar="S", help="length of a turn (default: 2)")
    parser.add_argument(
        "--output", type=Path, default=Path(".local/bench"), metavar="FOLDER", help="results (default: .local/bench)"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="instead of measuring, draw report and pictures from this file"
    )
    return parser


def _measure(arguments: argparse.Namespace, path: Path) -> results.Results:
    peers = [contender for contender in contenders.PEERS if contender.name in arguments.peers]
    services = [Entry(contender, _ROWS) for contender in (contenders.OURS, *peers)]
    turns = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    plans = {
        "comparison": Plan(services, arguments.workloads, arguments.connections, **turns),
        "anatomy": Plan(
            [Entry(contender, _ROWS) for contender in (*contenders.FLOORS, contenders.OURS)],
            ["healthz", "get", "add"],
            [_TYPICAL_CONNECTIONS],
            **turns,
        ),
        "scaling": Plan(
            [Entry(with_workers(count), rows) for count in _SCALING_WORKERS for rows in arguments.scaling_rows],
            ["get"],
            [_TYPICAL_CONNECTIONS],
            **turns,
        ),
        "latency": Plan(
            services,
            [workload for workload in arguments.workloads if workload in _LATENCY_WORKLOADS],
            [_TYPICAL_CONNECTIONS, 1],
            **turns,
            shares=_SHARES,
            same_rates=arguments.same_rates,
        ),
    }
    if reason := wrk.missing():
        raise wrk.WrkError(reason)
    found = results.Results(
        {
            **machine.describe(),
            "PostgreSQL": machine.first_line([str(binary("postgres")), "--version"]),
            "instructions": instructions.unavailable() or "counted by perf in user mode",
        }
    )
    for part in arguments.parts:
        _measure_part(part, plans[part], found, path)
    return found


def _measure_part(part: str, plan: Plan, found: results.Results, path: Path) -> None:
    """Measures a part. Saves the results after each turn, and prints a table after the turns of each load."""
    console.err.print(f"{part}: {plan.turns} turns")
    turns: list[Turn] = getattr(found, part)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, console.progress() as progress:
        task = progress.add_task(part, total=plan.turns)
        measured = measure.run(plan, Path(folder), console.err.print)
        for _, load in itertools.groupby(measured, key=report.load_of):
            of_load = []
            for turn in load:
                turns.append(turn)
                of_load.append(turn)
                found.save(path)
                progress.update(task, advance=1, description=f"{part}: {turn.workload}, {turn.contender}")
            console.err.print(report.load_table(of_load))


def with_workers(count: int) -> contenders.Contender:
    """This service with that many worker processes, without telemetry."""
    name = f"{count} worker{'s' if count > 1 else ''}"
    return replace(contenders.OURS, name=name, environment={**contenders.OURS.environment, "WORKERS": str(count)})


if __name__ == "__main__":
    sys.exit(main())
