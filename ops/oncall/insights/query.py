"""A parsed query: its commands and their expressions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

DEFAULT_COLUMNS: Final = ("@timestamp", "@message")  # of a query without fields, display or stats
PATTERN_COLUMNS: Final = ("@pattern", "@ratio", "@sampleCount")
MAX_ROWS: Final = 10_000  # of a result, also where the query sets no limit


@dataclass(frozen=True, kw_only=True)
class _Node:
    start: int = field(default=0, compare=False, repr=False)  # in the query's text, for error messages


@dataclass(frozen=True)
class Literal(_Node):
    """A number, a text, a pattern, a tuple of values, or a time in milliseconds."""

    value: Any


@dataclass(frozen=True)
class Field(_Node):
    """A field of a record, or a column that an earlier command of the query computed."""

    name: str


@dataclass(frozen=True)
class Call(_Node):
    """An operator or a function, by its name in the table of functions."""

    name: str
    arguments: tuple["Expression", ...]


Expression: TypeAlias = Literal | Field | Call


@dataclass(frozen=True)
class Column:
    """An expression, and the name of its column: the alias, or the expression as it is written."""

    expression: Expression
    name: str


@dataclass(frozen=True)
class Show:
    """`fields`, or `display`. Where there is a `display`, the last one alone sets the columns."""

    columns: tuple[Column, ...]
    is_display: bool


@dataclass(frozen=True)
class Filter:
    """`filter`, or `where`."""

    condition: Expression


@dataclass(frozen=True)
class Parse:
    """`parse`: each group of the pattern becomes a field."""

    expression: Expression
    pattern: re.Pattern[str]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """`pattern`: a row for each pattern of a text."""

    expression: Expression


@dataclass(frozen=True)
class Stats:
    """`stats`: a row for each group."""

    columns: tuple[Column, ...]
    by: tuple[Column, ...]


@dataclass(frozen=True)
class Sort:
    """`sort`: each expression, and whether its order is descending."""

    keys: tuple[tuple[Expression, bool], ...]


@dataclass(frozen=True)
class Limit:
    """`limit`."""

    count: int


@dataclass(frozen=True)
class Dedup:
    """`dedup`: keeps the first of the rows with the same values."""

    expressions: tuple[Expression, ...]


Command: TypeAlias = Show | Filter | Parse | Pattern | Stats | Sort | Limit | Dedup


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        commands: in order.
        group: the log group that `SOURCE` names; empty where there is none.
    """

    commands: tuple[Command, ...]
    group: str = ""


def fields_of(query: Query) -> set[str]:
    """The fields of records that a query reads, without those that it computes itself."""
    made: set[str] = set()
    has_columns = any(isinstance(command, Show | Stats | Pattern) for command in query.commands)
    read = set() if has_columns else set(DEFAULT_COLUMNS)
    for command in query.commands:
        for expression, names in steps(command):
            fields = {one.name for one in parts(expression) if isinstance(one, Field)}
            read |= fields - made
            made |= set(names) - fields
    return read


def parts(expression: Expression) -> Iterator[Expression]:
    """An expression, then all expressions inside it."""
    yield expression
    if isinstance(expression, Call):
        for argument in expression.arguments:
            yield from parts(argument)


def steps(command: Command) -> Iterator[tuple[Expression, tuple[str, ...]]]:
    """The expressions of a command in order, each with the names that it defines."""
    match command:
        case Show(columns):
            yield from ((one.expression, (one.name,)) for one in columns)
        case Stats(columns, by):
            yield from ((one.expression, (one.name,)) for one in (*by, *columns))
        case Parse(expression, _, names):
            yield expression, names
        case Pattern(expression):
            yield expression, PATTERN_COLUMNS
        case Filter(condition):
            yield condition, ()
        case Sort(keys):
            yield from ((expression, ()) for expression, _ in keys)
        case Dedup(expressions):
            yield from ((expression, ()) for expression in expressions)
