"""Reports results as one HTML page without other files, as tables on the terminal, and as pictures for other pages."""

import math
import operator
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from ops.bench import dollars, plots, results
from ops.bench.contenders import FLOORS, OURS, PEERS
from ops.bench.measure import Turn
from ops.bench.results import Results, Spread
from ops.common import console
from ops.common.pages import number, render
from ops.common.plots import VARIANTS, Draw
from ops.load.measurements import samples_needed

_TITLES: Final = {contender.name: contender.title for contender in (OURS, *PEERS, *FLOORS)}
_PERCENTILES: Final = {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}
_WORKLOADS: Final = {
    "get": "GET /get/<id>, random ids",
    "add": "POST /add, durable",
    "getall": "GET /getall, 10,000 rows",
}


def pictures(found: Results) -> dict[str, Draw]:
    """All plots of the results, by name."""
    drawn: dict[str, Draw] = {}
    for workload in _workloads(found.comparison):
        drawn[f"cpu-{workload}"] = plots.rows_of_dots(
            _by_load(found.comparison, workload, results.cpu_us), "CPU µs per request", OURS.name
        )
        drawn[f"p99-{workload}"] = plots.rows_of_dots(
            _by_load(found.comparison, workload, results.p99_ms), "p99 latency, ms", OURS.name
        )
    open_loop = _enough([turn for turn in found.latency if turn.offered], 99)
    for workload in _workloads(open_loop):
        drawn[f"latency-{workload}"] = plots.rows_of_dots(
            _by_load(open_loop, workload, results.p99_ms), "p99 latency, ms", OURS.name
        )
    if found.anatomy:
        drawn["anatomy"] = plots.stacked_bars(anatomy(found), "CPU µs per request")
    if found.scaling:
        drawn["scaling"] = plots.lines(
            {
                contender: {
                    rows: results.spread(results.cpu_us(turn) for turn in found.scaling if _is(turn, contender, rows))
                    for rows in sorted({turn.rows for turn in found.scaling if turn.contender == contender})
                }
                for contender in dict.fromkeys(turn.contender for turn in found.scaling)
            },
            "CPU µs per request",
            "clients in the database",
        )
    return drawn


def anatomy(found: Results) -> dict[str, dict[str, float]]:
    """CPU microseconds per request of the service and of PostgreSQL, from bare sockets to the whole service."""
    (connections,) = {turn.connections for turn in found.anatomy}
    layers = [
        ("sockets", "floor-uvloop", "healthz"),
        ("aiohttp's own", "floor-aiohttp", "healthz"),
        ("/healthz", OURS.name, "healthz"),
        ("/get/<id>", OURS.name, "get"),
        ("/add", OURS.name, "add"),
    ]
    bars = {}
    for label, contender, workload in layers:
        turns = results.of(found.anatomy, contender, workload, connections)
        if turns:
            bars[label] = {
                "service": results.spread(turn.service_us for turn in turns).median,
                "PostgreSQL": results.spread(turn.postgres_us for turn in turns).median,
            }
    return bars


def load_of(turn: Turn) -> tuple[str, str]:
    """The workload and the load of a turn, in words."""
    if turn.offered:
        return turn.workload, f"open loop, {100 * turn.offered.share:.0f} %"
    return turn.workload, f"{turn.connections} connection{'s' if turn.connections > 1 else ''}"


def write(found: Results, path: Path) -> None:
    """Writes the page."""
    comparison = found.comparison
    path.write_text(
        render(
            Path(__file__).with_name("report.html"),
            pictures(found),
            machine=found.machine,
            verdicts=results.verdicts(comparison),
            sentence=sentence(found),
            is_rough=found.is_rough,
            workloads={workload: _WORKLOADS[workload] for workload in _workloads(comparison)},
            titles=_TITLES,
            loads=_loads(comparison),
            rows_of=lambda workload, load: list(_table(comparison, workload, load)),
            latency={workload: _WORKLOADS[workload] for workload in _workloads(found.latency)},
            latency_loads=_loads(found.latency),
            same_rates=_same_rates(found.latency),
            latency_of=lambda workload, load: list(_table(found.latency, workload, load)),
            noise=list(_noise(found)),
            has_instructions=any(map(results.instructions, found.turns)),
            scaling=list(_scaling(found.scaling)),
            ours=OURS.name,
            telemetry_rate=dollars.RATE,
        )
    )


def sentence(found: Results) -> str:
    """The result in a sentence."""
    verdicts = results.verdicts(found.comparison)
    met = sum(verdict.met for verdict in verdicts)
    goals = f"{met} of {len(verdicts)} goals are met" if verdicts else "no goal was measured"
    return f"Rough figures, from a few short turns: {goals}." if found.is_rough else f"{goals[:1].upper()}{goals[1:]}."


def load_table(turns: list[Turn]) -> Table:
    """The turns of one load, as a table of medians for the terminal."""
    has_instructions = any(map(results.instructions, turns))
    rows = []
    for contender, clients in dict.fromkeys((turn.contender, turn.rows) for turn in turns):
        row = _row([turn for turn in turns if _is(turn, contender, clients)])
        rows.append(
            (
                contender,
                f"{clients:,}",
                f"{row['per_second']:,.0f}",
                *(number(row[name]) for name in _PERCENTILES),
                f"{row['cpu_us']:,.1f}",
                *([f"{row['instructions']:,.0f}"] if has_instructions else []),
                *dollars.shown(contender, row["cpu_us"]),
                str(row["errors"]),
                row["marks"],
            )
        )
    price = "$ per million: CPU", f"telemetry at {dollars.RATE:,}/s"
    counted = ["instructions"] if has_instructions else []
    names = "clients", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs per request", *counted, *price, "errors"
    return console.table(", ".join(load_of(turns[0])), ["contender", *map(console.right, names), "marks"], rows)


def goal_table(found: Results) -> Table:
    """The goals and whether they are met, as a table for the terminal."""
    rows = [
        (
            "met" if verdict.met else "MISSED",
            verdict.goal.name,
            verdict.goal.workload,
            str(verdict.goal.connections),
            verdict.peer,
            f"{verdict.ratio.median:.3f} ({verdict.ratio.low:.3f} to {verdict.ratio.high:.3f})",
            f"{verdict.goal.max_ratio:.2f}",
        )
        for verdict in results.verdicts(found.comparison)
    ]
    columns = ["", "figure", "workload", "connections", "compared with", "median ratio (95 % interval)", "at most"]
    return console.table("", columns, rows)


def write_pictures(found: Results, folder: Path) -> None:
    """Writes each picture as `name-light.svg` and `name-dark.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures(found).items():
        for variant in VARIANTS:
            if not variant.narrow:
                (folder / f"{name}-{'dark' if variant.dark else 'light'}.svg").write_text(draw(variant))


def _workloads(turns: list[Turn]) -> list[str]:
    return list(dict.fromkeys(turn.workload for turn in turns))


def _loads(turns: list[Turn]) -> list[str]:
    """The loads of all workloads: closed loops by their connections, then open loops by their rates."""
    found = {
        load_of(turn)[1]: (turn.connections or math.inf, turn.offered.share if turn.offered else 0) for turn in turns
    }
    return sorted(found, key=found.__getitem__)


def _by_load(turns: list[Turn], workload: str, figure: results.Figure) -> dict[str, dict[str, Spread]]:
    contenders = dict.fromkeys(turn.contender for turn in turns)
    return {
        load: {
            contender: results.spread(map(figure, of_contender))
            for contender in contenders
            if (of_contender := _of(turns, contender, workload, load))
        }
        for load in _loads(turns)
    }


def _of(turns: list[Turn], contender: str, workload: str, load: str) -> list[Turn]:
    return [turn for turn in turns if turn.contender == contender and load_of(turn) == (workload, load)]


def _table(turns: list[Turn], workload: str, load: str) -> Iterator[dict[str, Any]]:
    ours = _of(turns, OURS.name, workload, load)
    for contender in dict.fromkeys(turn.contender for turn in turns):
        found = _of(turns, contender, workload, load)
        if found:
            row = _row(found)
            yield {
                **row,
                "dollars": dollars.shown(contender, row["cpu_us"]),
                "ratio": results.ratio(ours, found, results.cpu_us),
                "p99_ratio": results.ratio(_enough(ours, 99), _enough(found, 99), results.p99_ms),
            }


def _scaling(turns: list[Turn]) -> Iterator[dict[str, Any]]:
    fewest = min((turn.rows for turn in turns), default=0)
    for contender, rows in dict.fromkeys((turn.contender, turn.rows) for turn in turns):
        found = [turn for turn in turns if _is(turn, contender, rows)]
        smallest = [turn for turn in turns if _is(turn, contender, fewest)]
        yield {
            **_row(found),
            "rows": rows,
            "ratio": results.ratio(found, smallest, results.cpu_us),
        }


def _same_rates(turns: list[Turn]) -> set[str]:
    """The workloads of which each open loop loaded all contenders at the same rate."""
    found = {(turn.workload, turn.offered.share, turn.offered.rate) for turn in turns if turn.offered}
    loads = Counter((workload, share) for workload, share, _ in found)
    return {workload for workload, _ in loads} - {workload for (workload, _), rates in loads.items() if rates > 1}


def _row(turns: Sequence[Turn]) -> dict[str, Any]:
    """Medians of a contender's turns of one load. Percentiles of too few requests, or of a late generator, are None."""

    def median(figure: results.Figure, of_these: Sequence[Turn] = turns) -> float:
        return results.spread(map(figure, of_these)).median

    percentiles = {
        name: median(operator.attrgetter(name), enough) if (enough := _enough(turns, percent)) else None
        for name, percent in _PERCENTILES.items()
    }
    figures = ("per_second", "service_us", "postgres_us")
    return {
        "contender": turns[0].contender,
        **{name: median(operator.attrgetter(name)) for name in figures},
        **percentiles,
        "cpu_us": median(results.cpu_us),
        "instructions": median(results.instructions),
        "errors": sum(turn.errors for turn in turns),
        "marks": _marks(turns),
    }


def _enough(turns: Sequence[Turn], percent: float) -> list[Turn]:
    """The turns that have a percentile: with enough requests, by a generator that was not late."""
    known = [turn for turn in turns if _is_valid(turn) and (percent < 99.9 or turn.p999_ms is not None)]
    return [turn for turn in known if turn.requests >= samples_needed(percent)]


def _is_valid(turn: Turn) -> bool:
    return not (turn.offered and turn.offered.limit)


def _marks(turns: Sequence[Turn]) -> str:
    """How many of the turns are doubtful, and why; empty if none is."""
    noisy, late = sum(turn.is_noisy for turn in turns), sum(not _is_valid(turn) for turn in turns)
    marks = [(noisy, "noisy"), (late, "no verdict: generator late")]
    return "; ".join(f"{count} of {len(turns)} {reason}" for count, reason in marks if count)


def _noise(found: Results) -> Iterator[dict[str, Any]]:
    """What else the machine did during the turns of each part, as medians and maxima of shares."""
    for part in results.PARTS:
        turns: list[Turn] = getattr(found, part)
        noises = [turn.noise for turn in turns if turn.noise]
        if noises:
            yield {
                "part": part,
                "turns": len(turns),
                "repeated": sum(turn.tries > 1 for turn in turns),
                "noisy": sum(turn.is_noisy for turn in turns),
                "before": _percent([turn.before.load for turn in turns if turn.before]),
                **{name: _percent([getattr(noise, name) for noise in noises]) for name in ("load", "foreign", "steal")},
            }


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * statistics.median(shares):.1f} ({100 * max(shares):.1f})" if shares else "-"


def _is(turn: Turn, contender: str, rows: int) -> bool:
    return (turn.contender, turn.rows) == (contender, rows)
