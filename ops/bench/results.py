"""The results: medians with their intervals, ratios of paired turns, and the goals."""

import json
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.bench.contenders import OURS, OURS_WITH_TELEMETRY
from ops.bench.measure import Turn

FULL_ROUNDS: Final = 5
PARTS: Final = ("comparison", "anatomy", "scaling", "latency")

_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95

Figure = Callable[[Turn], float]


def cpu_us(turn: Turn) -> float:
    """CPU time per request of the contender and PostgreSQL together, in microseconds."""
    return turn.service_us + turn.postgres_us


def p50_ms(turn: Turn) -> float:
    """Median latency, in milliseconds."""
    return turn.p50_ms


def p99_ms(turn: Turn) -> float:
    """99th percentile of latency, in milliseconds."""
    return turn.p99_ms


def instructions(turn: Turn) -> float:
    """Instructions per request of the contender and PostgreSQL together; 0 where they were not counted."""
    return (turn.service_instructions or 0) + (turn.postgres_instructions or 0)


@dataclass(frozen=True)
class Results:
    """All turns of a run.

    Attributes:
        machine: the machine and the software.
        comparison: turns of the service and its peers.
        anatomy: turns of the service and the floors.
        scaling: turns of the service with several numbers of rows and workers.
        latency: turns of the service and its peers in closed loops, then in open loops.
    """

    machine: Mapping[str, str]
    comparison: list[Turn] = field(default_factory=list)
    anatomy: list[Turn] = field(default_factory=list)
    scaling: list[Turn] = field(default_factory=list)
    latency: list[Turn] = field(default_factory=list)

    @property
    def turns(self) -> list[Turn]:
        """The turns of all parts."""
        return [turn for part in PARTS for turn in getattr(self, part)]

    @property
    def is_rough(self) -> bool:
        """Whether the figures are medians of fewer rounds than those of a full run."""
        return max((turn.round for turn in self.turns), default=0) < FULL_ROUNDS

    def save(self, path: Path) -> None:
        """Writes them as JSON. The file is complete or absent, never partial."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(path)


def load(path: Path) -> Results:
    """Reads what save() wrote."""
    read: dict[str, Any] = json.loads(path.read_text())
    turns = {part: [Turn.read(turn) for turn in read[part]] for part in PARTS}
    return Results(read["machine"], **turns)


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the interval in which it lies with 95 % confidence."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """The median of at least one value, with the interval of a percentile bootstrap.

    The values are resampled with replacement; the medians of the resamples show how much the median depends on chance.
    With five values or fewer, the interval reaches from the least to the greatest one. It does not show what was the
    same in all rounds, such as a slow machine.
    """
    listed = list(values)
    rng = random.Random(1)  # the same values give the same interval
    medians = sorted(statistics.median(rng.choices(listed, k=len(listed))) for _ in range(_RESAMPLES))
    beyond = round((1 - _CONFIDENCE) / 2 * _RESAMPLES)
    return Spread(statistics.median(listed), medians[beyond], medians[-1 - beyond])


def of(turns: Iterable[Turn], contender: str, workload: str, connections: int) -> list[Turn]:
    """A contender's turns with one workload and number of connections, in the order of the rounds."""
    key = (contender, workload, connections)
    return [turn for turn in turns if (turn.contender, turn.workload, turn.connections) == key]


def ratio(of_these: Sequence[Turn], to_those: Sequence[Turn], figure: Figure) -> Spread | None:
    """A figure of these turns divided by that of those, in pairs of the same round; None if there is no pair."""
    those = {turn.round: figure(turn) for turn in to_those}
    ratios = [figure(turn) / those[turn.round] for turn in of_these if those.get(turn.round)]
    return spread(ratios) if ratios else None


@dataclass(frozen=True)
class Goal:
    """The ratio of the service to a peer that it should not exceed.

    Attributes:
        name: what is compared.
        peer: the peer's name; `*` means every peer except this service with telemetry.
        workload: of the load.
        connections: of the load.
        figure: which figure of a turn.
        max_ratio: the largest ratio that meets the goal.
        contender: the form of this service that is compared.
    """

    name: str
    peer: str
    workload: str
    connections: int
    figure: Figure
    max_ratio: float
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
    """The result of a goal with one peer.

    Attributes:
        goal: to meet.
        peer: the peer's name.
        ratio: the service's figure divided by the peer's.
    """

    goal: Goal
    peer: str
    ratio: Spread

    @property
    def met(self) -> bool:
        """Whether the median ratio meets the goal."""
        return self.ratio.median <= self.goal.max_ratio


def verdicts(turns: Sequence[Turn]) -> list[Verdict]:
    """The result of each goal with each peer that took part."""
    peers = sorted({turn.contender for turn in turns} - {OURS.name, OURS_WITH_TELEMETRY.name})
    found = []
    for goal in GOALS:
        ours = of(turns, goal.contender, goal.workload, goal.connections)
        for peer in peers if goal.peer == "*" else [goal.peer]:
            compared = ratio(ours, of(turns, peer, goal.workload, goal.connections), goal.figure)
            if compared is not None:
                found.append(Verdict(goal, peer, compared))
    return found
