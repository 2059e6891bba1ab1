"""Results as one HTML page that needs nothing else, and as pictures for other pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ops.bench import plots, results
from ops.bench.contenders import FLOORS, OURS, PEERS
from ops.bench.measure import Turn
from ops.bench.results import Results, Spread
from ops.common.pages import render
from ops.common.plots import LOOKS, Draw

_TITLES: Final = {contender.name: contender.title for contender in (OURS, *PEERS, *FLOORS)}
_WORKLOADS: Final = {
    "get": "GET /get/<id>, random ids",
    "add": "POST /add, durable",
    "getall": "GET /getall, 10,000 rows",
}


def pictures(measured: Results) -> dict[str, Draw]:
    """What can be drawn of the results, by name."""
    drawn: dict[str, Draw] = {}
    for workload in _workloads(measured.comparison):
        drawn[f"cpu-{workload}"] = plots.rows_of_dots(
            _by_connections(measured.comparison, workload, results.cpu_us), "CPU µs per request", OURS.name
        )
        drawn[f"p99-{workload}"] = plots.rows_of_dots(
            _by_connections(measured.comparison, workload, results.p99_ms), "p99 latency, ms", OURS.name
        )
    if measured.anatomy:
        drawn["anatomy"] = plots.stacked_bars(anatomy(measured), "CPU µs per request")
    if measured.scaling:
        drawn["scaling"] = plots.lines(
            {
                contender: {
                    rows: results.spread(
                        results.cpu_us(turn) for turn in measured.scaling if _is(turn, contender, rows)
                    )
                    for rows in sorted({turn.rows for turn in measured.scaling if turn.contender == contender})
                }
                for contender in dict.fromkeys(turn.contender for turn in measured.scaling)
            },
            "CPU µs per request",
            "clients in the database",
        )
    return drawn


def anatomy(measured: Results) -> dict[str, dict[str, float]]:
    """What a request costs on each floor of the house, in CPU microseconds: the service's own, and PostgreSQL's."""
    (connections,) = {turn.connections for turn in measured.anatomy}
    floors = [
        ("sockets", "floor-uvloop", "healthz"),
        ("aiohttp's own", "floor-aiohttp", "healthz"),
        ("/healthz", OURS.name, "healthz"),
        ("/get/<id>", OURS.name, "get"),
        ("/add", OURS.name, "add"),
    ]
    bars = {}
    for label, contender, workload in floors:
        turns = results.of(measured.anatomy, contender, workload, connections)
        if turns:
            bars[label] = {
                "service": results.spread(turn.service_us for turn in turns).median,
                "PostgreSQL": results.spread(turn.postgres_us for turn in turns).median,
            }
    return bars


def write(measured: Results, path: Path) -> None:
    """Writes the page."""
    comparison = measured.comparison
    path.write_text(
        render(
            Path(__file__).with_name("report.html"),
            pictures(measured),
            machine=measured.machine,
            verdicts=results.verdicts(comparison),
            workloads={workload: _WORKLOADS[workload] for workload in _workloads(comparison)},
            titles=_TITLES,
            connections=sorted({turn.connections for turn in comparison}),
            table=lambda workload, connections: list(_table(comparison, workload, connections)),
            scaling=list(_scaling(measured.scaling)),
            ours=OURS.name,
        )
    )


def write_pictures(measured: Results, folder: Path) -> None:
    """Writes each picture as `name-light.svg` and `name-dark.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures(measured).items():
        for look in LOOKS:
            if not look.narrow:
                (folder / f"{name}-{'dark' if look.dark else 'light'}.svg").write_text(draw(look))


def _workloads(turns: list[Turn]) -> list[str]:
    return list(dict.fromkeys(turn.workload for turn in turns))


def _by_connections(turns: list[Turn], workload: str, figure: results.Figure) -> dict[str, dict[str, Spread]]:
    contenders = dict.fromkeys(turn.contender for turn in turns)
    return {
        f"{connections} connection{'s' if connections > 1 else ''}": {
            contender: results.spread(figure(turn) for turn in found)
            for contender in contenders
            if (found := results.of(turns, contender, workload, connections))
        }
        for connections in sorted({turn.connections for turn in turns})
    }


def _table(turns: list[Turn], workload: str, connections: int) -> Iterator[dict[str, Any]]:
    ours = results.of(turns, OURS.name, workload, connections)
    for contender in dict.fromkeys(turn.contender for turn in turns):
        found = results.of(turns, contender, workload, connections)
        if found:
            yield {
                "contender": contender,
                **_medians(found),
                "ratio": results.ratio(ours, found, results.cpu_us),
                "errors": sum(turn.errors for turn in found),
            }


def _scaling(turns: list[Turn]) -> Iterator[dict[str, Any]]:
    fewest = min((turn.rows for turn in turns), default=0)
    for contender, rows in dict.fromkeys((turn.contender, turn.rows) for turn in turns):
        found = [turn for turn in turns if _is(turn, contender, rows)]
        least = [turn for turn in turns if _is(turn, contender, fewest)]
        yield {
            "contender": contender,
            "rows": rows,
            **_medians(found),
            "ratio": results.ratio(found, least, results.cpu_us),
        }


def _medians(turns: list[Turn]) -> dict[str, float]:
    figures = ("per_second", "p50_ms", "p99_ms", "service_us", "postgres_us")
    return {figure: results.spread(getattr(turn, figure) for turn in turns).median for figure in figures}


def _is(turn: Turn, contender: str, rows: int) -> bool:
    return (turn.contender, turn.rows) == (contender, rows)
