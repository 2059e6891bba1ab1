"""Compiles expressions to functions of a row."""

import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeAlias

from ops.oncall.insights.functions import FUNCTIONS, OPERATORS, Function
from ops.oncall.insights.query import Call, Expression, Field, Literal
from ops.oncall.logs import Record, Value

Evaluate: TypeAlias = Callable[["Row"], Any]


class Row(dict[str, Value]):
    """The values that a query computed for a record; a field of the record is looked up at its first use.

    Attributes:
        record: that the row shows; None where it stands for several.
    """

    __slots__ = ("record",)

    def __init__(self, record: Record | None = None) -> None:
        super().__init__()
        self.record = record

    def __missing__(self, name: str) -> Value:
        value = self[name] = None if self.record is None else self.record[name]
        return value


def evaluator(expression: Expression) -> Evaluate:
    """A function that computes an expression without aggregates for a row."""
    match expression:
        case Field(name):
            return itemgetter(name)
        case Literal(value):
            return lambda _: value
        case Call("now"):
            now = int(time.time())  # when the query starts, for all of its rows
            return lambda _: now
        case Call("and" | "or" as name, (left, right)):
            return _junction(name, evaluator(left), evaluator(right))
        case Call(name, arguments):
            return _application(OPERATORS.get(name) or FUNCTIONS[name], [evaluator(one) for one in arguments])


def _junction(name: str, left: Evaluate, right: Evaluate) -> Evaluate:
    if name == "and":
        return lambda row: bool(left(row) and right(row))
    return lambda row: bool(left(row) or right(row))


def _application(function: Function, arguments: list[Evaluate]) -> Evaluate:
    apply = function.apply
    if function.needs_all:

        def evaluate(row: Row) -> Any:
            values = [argument(row) for argument in arguments]
            return None if None in values else apply(*values)

        return evaluate
    return lambda row: apply(*[argument(row) for argument in arguments])
