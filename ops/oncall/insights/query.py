"""What a query is made of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

SHOWN_ELSE: Final = ("@timestamp", "@message")  # where a query does not say what to show


@dataclass(frozen=True)
class Literal:
    """A number, a text, a pattern, a tuple of values, or a time in milliseconds."""

    value: Any


@dataclass(frozen=True)
class Field:
    """A field of a record, or what the query has made before."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operator or a function, by the name that its table has it under."""

    name: str
    arguments: tuple["Expression", ...]


Expression: TypeAlias = Literal | Field | Call


@dataclass(frozen=True)
class Column:
    """An expression, and what its column is called: its alias, or else its own words."""

    expression: Expression
    name: str


@dataclass(frozen=True)
class Show:
    """`fields`, or `display`, the last of which decides alone."""

    columns: tuple[Column, ...]
    is_display: bool


@dataclass(frozen=True)
class Filter:
    """`filter`, or `where`."""

    condition: Expression


@dataclass(frozen=True)
class Parse:
    """`parse`: the named groups of the pattern become fields."""

    expression: Expression
    pattern: re.Pattern[str]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stats:
    """`stats`: a row for each group."""

    columns: tuple[Column, ...]
    by: tuple[Column, ...]


@dataclass(frozen=True)
class Sort:
    """`sort`: by each expression, and whether downwards."""

    keys: tuple[tuple[Expression, bool], ...]


@dataclass(frozen=True)
class Limit:
    """`limit`."""

    count: int


@dataclass(frozen=True)
class Dedup:
    """`dedup`: of rows that have the same values, the first."""

    expressions: tuple[Expression, ...]


Command: TypeAlias = Show | Filter | Parse | Stats | Sort | Limit | Dedup


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
    """The fields of records that a query reads; what it makes itself is none of them."""
    made: set[str] = set()
    shows = any(isinstance(command, Show | Stats) for command in query.commands)
    read = set() if shows else set(SHOWN_ELSE)
    for command in query.commands:
        for expression, names in _steps(command):
            fields = {one.name for one in parts(expression) if isinstance(one, Field)}
            read |= fields - made
            made |= set(names) - fields
    return read


def parts(expression: Expression) -> Iterator[Expression]:
    """An expression, and all that it is made of."""
    yield expression
    if isinstance(expression, Call):
        for argument in expression.arguments:
            yield from parts(argument)


def _steps(command: Command) -> Iterator[tuple[Expression, tuple[str, ...]]]:
    """A command's expressions in order, with the names that each one gives."""
    match command:
        case Show(columns):
            yield from ((one.expression, (one.name,)) for one in columns)
        case Stats(columns, by):
            yield from ((one.expression, (one.name,)) for one in (*by, *columns))
        case Parse(expression, _, names):
            yield expression, names
        case Filter(condition):
            yield condition, ()
        case Sort(keys):
            yield from ((expression, ()) for expression, _ in keys)
        case Dedup(expressions):
            yield from ((expression, ()) for expression in expressions)
