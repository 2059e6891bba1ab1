"""Reports results as one HTML page without other files, as tables on the terminal, and as pictures for other pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from ops.bench import dollars, plots, results
from ops.bench.contenders import FLOORS, OURS, PEERS
from ops.bench.measure import Turn
from ops.bench.results import Results, Spread
from ops.common import console
from ops.common.pages import render
from ops.common.plots import VARIANTS, Draw

_TITLES: Final = {contender.name: contender.title for contender in (OURS, *PEERS, *FLOORS)}
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
            _by_connections(found.comparison, workload, results.cpu_us), "CPU µs per request", OURS.name
        )
        drawn[f"p99-{workload}"] = plots.rows_of_dots(
            _by_connections(found.comparison, workload, results.p99_ms), "p99 latency, ms", OURS.name
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
            connections=sorted({turn.connections for turn in comparison}),
            rows_of=lambda workload, connections: list(_table(comparison, workload, connections)),
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
    """The turns of one workload and number of connections, as a table of medians for the terminal."""
    rows = []
    for contender, clients in dict.fromkeys((turn.contender, turn.rows) for turn in turns):
        found = [turn for turn in turns if _is(turn, contender, clients)]
        medians = _medians(found)
        cpu_us = results.spread(map(results.cpu_us, found)).median
        rows.append(
            (
                contender,
                f"{clients:,}",
                f"{medians['per_second']:,.0f}",
                f"{medians['p99_ms']:.2f}",
                f"{cpu_us:,.1f}",
                *dollars.shown(contender, cpu_us),
                str(sum(turn.errors for turn in found)),
            )
        )
    price = "$ per million: CPU", f"telemetry at {dollars.RATE:,}/s"
    figures = map(console.right, ("clients", "requests/s", "p99 ms", "CPU µs per request", *price, "errors"))
    title = f"{turns[0].workload}, {_number_of_connections(turns[0].connections)}"
    return console.table(title, ["contender", *figures], rows)


def goal_table(found: Results) -> Table:
    """The goals and whether they are met, as a table for the terminal."""
    rows = [
        (
            "met" if verdict.met else "MISSED",
            verdict.goal.name,
            verdict.goal.workload,
            str(verdict.goal.connections),
            verdict.peer,
            f"{verdict.ratio.median:.3f} ({verdict.ratio.minimum:.3f} to {verdict.ratio.maximum:.3f})",
            f"{verdict.goal.max_ratio:.2f}",
        )
        for verdict in results.verdicts(found.comparison)
    ]
    columns = ["", "figure", "workload", "connections", "compared with", "median ratio (range)", "at most"]
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


def _by_connections(turns: list[Turn], workload: str, figure: results.Figure) -> dict[str, dict[str, Spread]]:
    contenders = dict.fromkeys(turn.contender for turn in turns)
    return {
        _number_of_connections(connections): {
            contender: results.spread(figure(turn) for turn in of_contender)
            for contender in contenders
            if (of_contender := results.of(turns, contender, workload, connections))
        }
        for connections in sorted({turn.connections for turn in turns})
    }


def _number_of_connections(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"


def _table(turns: list[Turn], workload: str, connections: int) -> Iterator[dict[str, Any]]:
    ours = results.of(turns, OURS.name, workload, connections)
    for contender in dict.fromkeys(turn.contender for turn in turns):
        found = results.of(turns, contender, workload, connections)
        if found:
            yield {
                "contender": contender,
                **_medians(found),
                "dollars": dollars.shown(contender, results.spread(map(results.cpu_us, found)).median),
                "ratio": results.ratio(ours, found, results.cpu_us),
                "errors": sum(turn.errors for turn in found),
            }


def _scaling(turns: list[Turn]) -> Iterator[dict[str, Any]]:
    fewest = min((turn.rows for turn in turns), default=0)
    for contender, rows in dict.fromkeys((turn.contender, turn.rows) for turn in turns):
        found = [turn for turn in turns if _is(turn, contender, rows)]
        smallest = [turn for turn in turns if _is(turn, contender, fewest)]
        yield {
            "contender": contender,
            "rows": rows,
            **_medians(found),
            "ratio": results.ratio(found, smallest, results.cpu_us),
        }


def _medians(turns: list[Turn]) -> dict[str, float]:
    figures = ("per_second", "p50_ms", "p99_ms", "service_us", "postgres_us")
    return {figure: results.spread(getattr(turn, figure) for turn in turns).median for figure in figures}


def _is(turn: Turn, contender: str, rows: int) -> bool:
    return (turn.contender, turn.rows) == (contender, rows)
