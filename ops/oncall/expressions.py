"""CloudWatch's metric math, as far as alarms and dashboards here use it: what is not understood is refused.

Its grammar is Python's, as far as it goes, so Python reads it.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
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
# Of several series, at each point those that have a value there.
_ACROSS: Final[dict[str, Callable[[list[float]], float]]] = {"SUM": sum, "MAX": max, "MIN": min}


class InvalidExpression(ValueError):
    """An expression is none, or uses what is not known here."""


def evaluate(expression: str, series: Mapping[str, Series], period: int) -> list[float | None]:
    """What the expression gives for each period.

    Args:
        expression: in metric math.
        series: those that it may name, all of one length.
        period: of each, in seconds.

    Returns:
        A value for each period; None where one that it takes is missing, or where it divides by 0.

    Raises:
        InvalidExpression: it cannot be evaluated.
    """
    return _Evaluator(expression, series, period).value(_parsed(expression))


def names_in(expression: str) -> set[str]:
    """The series that an expression takes.

    Raises:
        InvalidExpression: it is none.
    """
    nodes = list(ast.walk(_parsed(expression)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called}


def _parsed(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise InvalidExpression(f"{expression} is no expression: {error.msg}") from None


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
                raise self._refusal(ast.unparse(node))
        return list(found)

    def _call(self, name: str, arguments: list[ast.expr]) -> Series:
        match name, arguments:
            case "IF", [condition, then, otherwise]:
                choices = zip(self.value(condition), self.value(then), self.value(otherwise), strict=True)
                return [None if met is None else yes if met else no for met, yes, no in choices]
            case "FILL", [line, instead]:
                filled = zip(self.value(line), self.value(instead), strict=True)
                return [other if value is None else value for value, other in filled]
            case "PERIOD", [_]:
                return [self._period] * self._count
            case _, [ast.List(elts=parts)] if name in _ACROSS:
                columns = zip(*(self.value(part) for part in parts), strict=True)
                present = [[value for value in column if value is not None] for column in columns]
                return [_ACROSS[name](values) if values else None for values in present]
        raise self._refusal(f"{name} of {len(arguments)}")

    def _pairs(self, function: Callable[[float, float], float], left: ast.expr, right: ast.expr) -> Series:
        return [_applied(function, *pair) for pair in zip(self.value(left), self.value(right), strict=True)]

    def _refusal(self, what: str) -> InvalidExpression:
        known = ", ".join(sorted(self._series))
        return InvalidExpression(f"{what} in {self._expression} is not known here; its series are {known}")


def _applied(function: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    try:
        return float(function(one, other))
    except ZeroDivisionError:
        return None
