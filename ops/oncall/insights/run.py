"""Runs a query over records."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any

from ops.oncall.insights.aggregates import AGGREGATES
from ops.oncall.insights.evaluate import Row, evaluator
from ops.oncall.insights.patterns import patterns
from ops.oncall.insights.query import (
    DEFAULT_COLUMNS,
    MAX_ROWS,
    PATTERN_COLUMNS,
    Call,
    Column,
    Command,
    Dedup,
    Expression,
    Field,
    Filter,
    Limit,
    Literal,
    Parse,
    Pattern,
    Query,
    Show,
    Sort,
    Stats,
    parts,
    steps,
)
from ops.oncall.insights.values import order
from ops.oncall.logs import Record, Timestamp, Value


@dataclass(frozen=True)
class Table:
    """The result of a query.

    Attributes:
        columns: their names.
        rows: a value for each column, or None; a time is text in UTC, as CloudWatch writes it.
        matched: the records that its filters let through, before it groups or limits them.
    """

    columns: list[str]
    rows: list[list[Value]]
    matched: list[Record]


def run(query: Query, records: Iterable[Record]) -> Table:
    """Runs a query over records.

    Without `sort`, the newest are first; without `limit`, there are at most 10,000 rows.
    """
    last_first = reversed(list(records))
    rows: Iterable[Row] = map(Row, sorted(last_first, key=attrgetter("timestamp_ms"), reverse=True))
    of_lines = list(takewhile(lambda command: isinstance(command, Show | Filter | Parse | Sort), query.commands))
    for command in _filters_first(of_lines):
        rows = _apply(command, rows)
    rows = lines = list(rows)
    for command in query.commands[len(of_lines) :]:
        rows = _apply(command, rows)
    columns = _columns(query.commands)
    found = [[_to_value(row[name]) for name in columns] for row in islice(rows, MAX_ROWS)]
    return Table(columns, found, [row.record for row in lines if row.record])


def _filters_first(commands: Iterable[Command]) -> list[Command]:
    """The same commands, with each filter before those whose results it does not read.

    So a column is computed, and a row sorted, only where the row is needed.
    """
    ordered: list[Command] = []
    for command in commands:
        at = len(ordered)
        if isinstance(command, Filter):
            read = {one.name for one in parts(command.condition) if isinstance(one, Field)}
            while at and not isinstance(ordered[at - 1], Filter) and not read & _computed(ordered[at - 1]):
                at -= 1
        ordered.insert(at, command)
    return ordered


def _computed(command: Command) -> set[str]:
    return {name for expression, names in steps(command) for name in names if expression != Field(name)}


def _apply(command: Command, rows: Iterable[Row]) -> Iterable[Row]:
    match command:
        case Show():
            rows = _with_columns(rows, command.columns)
        case Filter(condition):
            rows = filter(evaluator(condition), rows)
        case Parse():
            rows = _parsed(rows, command)
        case Pattern():
            rows = patterns(rows, command)
        case Stats():
            rows = _grouped(rows, command)
        case Sort(keys):
            rows = _sorted(rows, keys)
        case Dedup(expressions):
            rows = _first_of_each(rows, expressions)
        case Limit(count):
            rows = islice(rows, count)
    return rows


def _columns(commands: Iterable[Command]) -> list[str]:
    shown = _Shown([])
    for command in commands:
        match command:
            case Show():
                shown.add(command)
            case Pattern():
                shown = _Shown(list(PATTERN_COLUMNS))
            case Stats(columns, by):
                shown = _Shown([column.name for column in (*by, *columns)])
    return shown.columns or list(DEFAULT_COLUMNS)


class _Shown:
    """The columns of the result: those of every `fields`, or those of the last `display` alone."""

    def __init__(self, columns: list[str]) -> None:
        self.columns = columns
        self._has_display = False

    def add(self, command: Show) -> None:
        names = [column.name for column in command.columns]
        if command.is_display:
            self.columns, self._has_display = names, True
        elif not self._has_display:
            self.columns += [name for name in names if name not in self.columns]


def _with_columns(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[Row]:
    computed = [(one.name, evaluator(one.expression)) for one in columns if one.expression != Field(one.name)]
    for row in rows:
        for name, evaluate in computed:
            row[name] = evaluate(row)
        yield row


def _parsed(rows: Iterable[Row], command: Parse) -> Iterator[Row]:
    evaluate = evaluator(command.expression)
    no_match = (None,) * len(command.names)
    for row in rows:
        value = evaluate(row)
        found = None if value is None else command.pattern.search(str(value))
        row.update(zip(command.names, found.groups() if found else no_match, strict=True))
        yield row


def _sorted(rows: Iterable[Row], keys: Sequence[tuple[Expression, bool]]) -> list[Row]:
    ordered = list(rows)
    for expression, is_descending in reversed(keys):
        evaluate = evaluator(expression)
        ordered.sort(key=lambda row, evaluate=evaluate: order(evaluate(row)), reverse=is_descending)  # type: ignore[misc]
    return ordered


def _first_of_each(rows: Iterable[Row], expressions: Sequence[Expression]) -> Iterator[Row]:
    """Keeps the first row of each combination of values, and every row in which a value is missing.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Dedup.html
    """
    key_of = [evaluator(expression) for expression in expressions]
    seen = set()
    for row in rows:
        key = tuple(evaluate(row) for evaluate in key_of)
        if key not in seen:
            yield row
        if None not in key:
            seen.add(key)


def _grouped(rows: Iterable[Row], command: Stats) -> Iterator[Row]:
    key_of = [evaluator(column.expression) for column in command.by]
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(evaluate(row) for evaluate in key_of), []).append(row)
    aggregates = {
        part: _aggregate(part)
        for column in command.columns
        for part in parts(column.expression)
        if isinstance(part, Call) and part.name in AGGREGATES
    }
    columns = [(column.name, evaluator(_without_aggregates(column.expression))) for column in command.columns]
    for key, members in groups.items():
        group = Row()
        group.update((str(call), aggregate(members)) for call, aggregate in aggregates.items())
        for name, evaluate in columns:
            group[name] = evaluate(group)
        group.update(zip((column.name for column in command.by), key, strict=True))
        yield group


def _aggregate(call: Call) -> Callable[[list[Row]], Value]:
    apply = AGGREGATES[call.name].apply
    if not call.arguments:
        return apply
    evaluate = evaluator(call.arguments[0])
    rest = [argument.value for argument in call.arguments[1:] if isinstance(argument, Literal)]

    def aggregate(rows: list[Row]) -> Value:
        result: Value = apply([value for row in rows if (value := evaluate(row)) is not None], *rest)
        return result

    return aggregate


def _without_aggregates(expression: Expression) -> Expression:
    """The same expression, with a field in place of each aggregate: `_grouped` stores its value there."""
    if not isinstance(expression, Call):
        return expression
    if expression.name in AGGREGATES:
        return Field(str(expression))
    return Call(expression.name, tuple(map(_without_aggregates, expression.arguments)))


def _to_value(value: Any) -> Value:
    if isinstance(value, Timestamp):
        return str(value)
    found: Value = int(value) if isinstance(value, bool) else value
    return found
