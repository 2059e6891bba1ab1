"""Evaluates the part of CloudWatch's metric math that alarms and dashboards here use, and refuses the rest.

This part of its syntax is the same as Python's, so Python's own parser reads it.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Final, TypeAlias

Series: TypeAlias = Sequence[float | None]

_OPERATORS: Final[dict[type[ast.AST], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# Over several series, point by point; a series without a value at a point is left out there.
_ACROSS: Final[dict[str, Callable[[list[float]], float]]] = {"SUM": sum, "MAX": max, "MIN": min}


class InvalidExpression(ValueError):
    """The expression is not valid, or uses something that is not supported here."""


def evaluate(expression: str, series: Mapping[str, Series], period: int) -> list[float | None]:
    """Evaluates an expression for each period.

    Args:
        expression: in metric math.
        series: by the names that it can use, all of the same length.
        period: of each, in seconds.

    Returns:
        A value for each period; None where an operand is missing, or at a division by 0.

    Raises:
        InvalidExpression: it cannot be evaluated.
    """
    return _Evaluator(expression, series, period).value(_parsed(expression))


def names_in(expression: str) -> set[str]:
    """The names of the series that an expression uses.

    Raises:
        InvalidExpression: it is not valid.
    """
    nodes = list(ast.walk(_parsed(expression)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called} - {"REPEAT"}


@cache
def _parsed(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise InvalidExpression(f"invalid expression {expression}: {error.msg}") from None


class _Evaluator:
    def __init__(self, expression: str, series: Mapping[str, Series], period: int) -> None:
        self._expression = expression
        self._series = series
        self._period = period
        self._count = len(next(iter(series.values()), ()))

    def value(self, node: ast.expr) -> list[float | None]:
        match node:
            case ast.Constant(value=int() | float() as number):
                found: Series = [number] * self._count
            case ast.Name(id=name) if name in self._series:
                found = self._series[name]
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
                found = self._pairs(_OPERATORS[type(sign)], left, right)
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _OPERATORS:
                found = self._pairs(_OPERATORS[type(sign)], left, right)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                found = self._call(name, arguments)
            case _:
                raise self._unsupported(ast.unparse(node))
        return list(found)

    def _call(self, name: str, arguments: list[ast.expr]) -> Series:
        match name, arguments:
            case "IF", [condition, then, otherwise]:
                choices = zip(self.value(condition), self.value(then), self.value(otherwise), strict=True)
                return [None if met is None else yes if met else no for met, yes, no in choices]
            case "FILL", [line, ast.Name(id="REPEAT")]:
                return list(accumulate(self.value(line), _or_last))
            case "FILL", [line, filler]:
                filled = zip(self.value(line), self.value(filler), strict=True)
                return [default if value is None else value for value, default in filled]
            case "PERIOD", [_]:
                return [self._period] * self._count
            case _, [ast.List(elts=parts)] if name in _ACROSS:
                columns = zip(*(self.value(part) for part in parts), strict=True)
                present = [[value for value in column if value is not None] for column in columns]
                return [_ACROSS[name](values) if values else None for values in present]
        raise self._unsupported(f"{name} with {len(arguments)} arguments")

    def _pairs(self, function: Callable[[float, float], float], left: ast.expr, right: ast.expr) -> Series:
        return [_apply(function, *pair) for pair in zip(self.value(left), self.value(right), strict=True)]

    def _unsupported(self, what: str) -> InvalidExpression:
        names = ", ".join(sorted(self._series))
        return InvalidExpression(f"{what} in {self._expression} is not supported here; its series are {names}")


def _or_last(last: float | None, value: float | None) -> float | None:
    return last if value is None else value


def _apply(function: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    try:
        return float(function(one, other))
    except ZeroDivisionError:
        return None
