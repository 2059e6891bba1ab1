"""What was measured, as numbers: medians, ratios of pairs with their spread, and the goals that they should meet."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.bench.contenders import OURS, OURS_WITH_TELEMETRY
from ops.bench.measure import Turn

Figure = Callable[[Turn], float]


def cpu_us(turn: Turn) -> float:
    """CPU microseconds per request, the service's and PostgreSQL's together."""
    return turn.service_us + turn.postgres_us


def p50_ms(turn: Turn) -> float:
    """The median latency, in milliseconds."""
    return turn.p50_ms


def p99_ms(turn: Turn) -> float:
    """The latency that 99 of 100 requests stay under, in milliseconds."""
    return turn.p99_ms


@dataclass(frozen=True)
class Results:
    """All turns of a run.

    Attributes:
        machine: what it ran on and with.
        comparison: the service and its peers in turns.
        anatomy: the service and the floors below it in turns.
        scaling: the service over numbers of rows and workers in turns.
    """

    machine: Mapping[str, str]
    comparison: list[Turn] = field(default_factory=list)
    anatomy: list[Turn] = field(default_factory=list)
    scaling: list[Turn] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Writes them as JSON, whole or not at all."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(path)


def load(path: Path) -> Results:
    """Reads what save() wrote."""
    read: dict[str, Any] = json.loads(path.read_text())
    turns = {part: [Turn(**turn) for turn in read[part]] for part in ("comparison", "anatomy", "scaling")}
    return Results(read["machine"], **turns)


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of what it stands for."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread:
    """The spread of at least one value."""
    listed = list(values)
    return Spread(statistics.median(listed), min(listed), max(listed))


def of(turns: Iterable[Turn], contender: str, workload: str, connections: int, rows: int | None = None) -> list[Turn]:
    """A contender's turns with one workload and number of connections, in order of their rounds."""
    wanted = (contender, workload, connections)
    found = [turn for turn in turns if (turn.contender, turn.workload, turn.connections) == wanted]
    return [turn for turn in found if rows in (None, turn.rows)]


def ratio(of_these: Sequence[Turn], to_those: Sequence[Turn], figure: Figure) -> Spread | None:
    """A figure of these turns over that of those, each pair from one round; None where there is no pair."""
    those = {turn.round: figure(turn) for turn in to_those}
    ratios = [figure(turn) / those[turn.round] for turn in of_these if those.get(turn.round)]
    return spread(ratios) if ratios else None


@dataclass(frozen=True)
class Goal:
    """What the service should show beside a peer.

    Attributes:
        words: what is compared.
        peer: with whom; `*` is every one, but not this service itself.
        workload: of the load.
        connections: of the load.
        figure: which.
        most: the largest ratio that will do.
        contender: which of the service's own forms shows it.
    """

    words: str
    peer: str
    workload: str
    connections: int
    figure: Figure
    most: float
    contender: str = OURS.name


GOALS: Final = [
    Goal("CPU per request", "aiohttp", "get", 64, cpu_us, 0.18),
    Goal("CPU per request", "fastapi", "get", 64, cpu_us, 0.12),
    Goal("CPU per request", "go-pgx", "get", 64, cpu_us, 0.90),
    Goal("CPU per request", "aiohttp", "add", 64, cpu_us, 0.25),
    Goal("CPU per request", "go-pgx", "add", 64, cpu_us, 0.60),
    Goal("CPU per request", "aiohttp", "getall", 64, cpu_us, 0.5),
    *(Goal("p99 latency", "*", workload, 64, p99_ms, 1.0) for workload in ("get", "add", "getall")),
    Goal("CPU, telemetry", OURS.name, "get", 64, cpu_us, 1.30, OURS_WITH_TELEMETRY.name),
    Goal("CPU, telemetry", "aiohttp-telemetry", "get", 64, cpu_us, 0.12, OURS_WITH_TELEMETRY.name),
    Goal("CPU, telemetry", "aiohttp", "get", 64, cpu_us, 0.22, OURS_WITH_TELEMETRY.name),
    Goal("CPU, telemetry", "go-pgx", "get", 64, cpu_us, 1.00, OURS_WITH_TELEMETRY.name),
    Goal("CPU, telemetry", OURS.name, "add", 64, cpu_us, 1.25, OURS_WITH_TELEMETRY.name),
    Goal("CPU, telemetry", "go-pgx", "add", 64, cpu_us, 0.65, OURS_WITH_TELEMETRY.name),
    *(Goal("median latency", "aiohttp", workload, 1, p50_ms, 1.1) for workload in ("get", "add", "getall")),
]


@dataclass(frozen=True)
class Verdict:
    """How a goal was met.

    Attributes:
        goal: the goal, with the one peer in it that this is about.
        ratio: the service's figure over the peer's.
    """

    goal: Goal
    peer: str
    ratio: Spread

    @property
    def met(self) -> bool:
        """Whether the median of the pairs will do."""
        return self.ratio.median <= self.goal.most


def verdicts(turns: Sequence[Turn]) -> list[Verdict]:
    """Each goal with each peer that took part."""
    peers = sorted({turn.contender for turn in turns} - {OURS.name, OURS_WITH_TELEMETRY.name})
    found = []
    for goal in GOALS:
        ours = of(turns, goal.contender, goal.workload, goal.connections)
        for peer in peers if goal.peer == "*" else [goal.peer]:
            compared = ratio(ours, of(turns, peer, goal.workload, goal.connections), goal.figure)
            if compared is not None:
                found.append(Verdict(goal, peer, compared))
    return found
