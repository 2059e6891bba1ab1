"""The command line: `python -m ops.cost`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from ops.common import console
from ops.common.process import ROOT
from ops.cost import deployment, measure, model, report


def main() -> int:
    """Measures, or reads what was measured, and reports what a deployment costs a month."""
    arguments = _parser().parse_args()
    designs = model.load()
    if not arguments.saved:
        designs |= _measure(
            measure.Plan(arguments.rates, arguments.warm_up, arguments.seconds, arguments.failed, arguments.slow)
        )
    deployed = deployment.read()

    def bills(rates: list[float]) -> report.Bills:
        return {name: [model.bill(design, rate, deployed) for rate in rates] for name, design in designs.items()}

    shown = bills(list(report.RATES))
    report.show(shown)
    report.write(shown, bills(report.PLOTTED), arguments.output)
    if arguments.save:
        model.save(designs.values())
        report.update(ROOT / "docs/costs.md", shown)
    console.err.print(f"Results  {arguments.output}")
    return 0


def _measure(plan: measure.Plan) -> dict[str, model.Design]:
    found = {}
    for subject in measure.subjects():
        console.err.print(f"{subject.name}: {plan.seconds:g} s at each of {', '.join(map(str, plan.rates))} requests/s")
        with tempfile.TemporaryDirectory(prefix="cost-") as folder:
            found[subject.name] = asyncio.run(measure.measure(subject, plan, Path(folder)))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.cost", description="What a deployment costs a month, from a short run on this machine."
    )

    def number(name: str, default: float, help_text: str) -> None:
        parser.add_argument(name, type=float, default=default, metavar="N", help=f"{help_text} (default: {default:g})")

    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        default=[1, 10, 100, 1000],
        metavar="N",
        help="requests per second of the runs, rising (default: 1 10 100 1000)",
    )
    number("--warm-up", 20, "seconds of the same load before each run")
    number("--seconds", 40, "length of each run")
    number("--failed", 0.0005, "share of requests that fail")
    number("--slow", 0.0005, "share of requests that take longer than 100 ms")
    parser.add_argument("--saved", action="store_true", help="instead of measuring, read ops/cost/measured.json")
    parser.add_argument("--save", action="store_true", help="keep what was measured, and update docs/costs.md")
    parser.add_argument(
        "--output", type=Path, default=Path(".local/cost"), metavar="FOLDER", help="results (default: .local/cost)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
