"""The operators and functions of a query.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ops.oncall.insights import addresses
from ops.oncall.insights.values import equal, number, text
from ops.oncall.logs import Timestamp, Value

_END_OF_TIME_MS: Final = 253_402_300_800_000  # the year 10000, the first that a date cannot have


@dataclass(frozen=True)
class Function:
    """A function of the language.

    Attributes:
        apply: computes the result from the arguments.
        min_arguments: the minimum number of arguments.
        max_arguments: the maximum.
        needs_all: whether there is no result where an argument is missing.
    """

    apply: Callable[..., Any]
    min_arguments: int
    max_arguments: int
    needs_all: bool = True


def _unequal(one: Value, other: Value) -> bool:
    return one is not None and other is not None and not equal(one, other)


def _comparison(compare: Callable[[Any, Any], bool]) -> Function:
    def apply(one: Value, other: Value) -> bool:
        if isinstance(one, str) and isinstance(other, str):
            return compare(one, other)
        numbers = number(one), number(other)
        return None not in numbers and compare(*numbers)

    return Function(apply, 2, 2, needs_all=False)


def _like(value: Value, pattern: str | re.Pattern[str]) -> bool:
    if value is None:
        return False
    return pattern in text(value) if isinstance(pattern, str) else pattern.search(text(value)) is not None


def _arithmetic(calculate: Callable[..., float], min_arguments: int, max_arguments: int) -> Function:
    def apply(*values: Value) -> float | None:
        try:
            return calculate(*map(number, values))
        except (ArithmeticError, TypeError, ValueError):  # a division by 0, the root of -1, a sum with a text
            return None

    return Function(apply, min_arguments, max_arguments)


def _present(value: Value) -> bool:
    return value is not None


def _floor_date(moment: Value, period: int) -> Timestamp | None:
    milliseconds = number(moment)
    if milliseconds is None or not 0 <= milliseconds < _END_OF_TIME_MS:
        return None
    return Timestamp(milliseconds // period * period)


def _ceil_date(moment: Value, period: int) -> Timestamp | None:
    milliseconds = number(moment)
    return None if milliseconds is None else _floor_date(-(-milliseconds // period) * period, 1)


def _coalesce(*values: Value) -> Value:
    return next(filter(_present, values), None)


def _substr(value: Value, start: int, length: int | None = None) -> str:
    return text(value)[start:][:length]


def _of_text(apply: Callable[..., Any], min_arguments: int = 1, max_arguments: int = 1) -> Function:
    return Function(lambda *values: apply(*map(text, values)), min_arguments, max_arguments)


OPERATORS: Final[Mapping[str, Function]] = {
    "=": Function(equal, 2, 2, needs_all=False),
    "!=": Function(_unequal, 2, 2, needs_all=False),
    "<": _comparison(lambda one, other: one < other),
    "<=": _comparison(lambda one, other: one <= other),
    ">": _comparison(lambda one, other: one > other),
    ">=": _comparison(lambda one, other: one >= other),
    "like": Function(_like, 2, 2, needs_all=False),
    "in": Function(lambda value, choices: any(equal(value, one) for one in choices), 2, 2, needs_all=False),
    "not": Function(lambda value: not value, 1, 1, needs_all=False),
    "+": _arithmetic(lambda one, other: one + other, 2, 2),
    "-": _arithmetic(lambda one, other: one - other, 2, 2),
    "*": _arithmetic(lambda one, other: one * other, 2, 2),
    "/": _arithmetic(lambda one, other: one / other, 2, 2),
    "%": _arithmetic(math.fmod, 2, 2),
    "^": _arithmetic(math.pow, 2, 2),
}

# What is true or false; a filter takes nothing else.
CONDITIONS: Final = frozenset(
    "= != < <= > >= like in not and or ispresent isempty isblank strcontains "
    "isvalidip isvalidipv4 isvalidipv6 isipinsubnet isipv4insubnet isipv6insubnet".split()
)

PERIODIC: Final = ("bin", "datefloor", "dateceil")  # the last argument is a time, such as 5m
# Of each unit, the milliseconds and the most that CloudWatch takes: it reads 300s as 60s.
UNITS: Final[Mapping[str, tuple[int, float]]] = {
    unit: (milliseconds, most)
    for units, milliseconds, most in (
        ("ms msec msecs millisecond milliseconds", 1, 1000),
        ("s sec secs second seconds", 1000, 60),
        ("m min mins minute minutes", 60_000, 60),
        ("h hr hrs hour hours", 3_600_000, 24),
        ("d day days", 86_400_000, math.inf),
    )
    for unit in units.split()
}

_MAX_ARGUMENTS: Final = 20

FUNCTIONS: Final[Mapping[str, Function]] = {
    "ispresent": Function(_present, 1, 1, needs_all=False),
    "isempty": Function(lambda value: value is None or value == "", 1, 1, needs_all=False),
    "isblank": Function(lambda value: value is None or not str(value).strip(), 1, 1, needs_all=False),
    "isvalidip": Function(lambda value: addresses.is_valid(value, 4, 6), 1, 1, needs_all=False),
    "isvalidipv4": Function(lambda value: addresses.is_valid(value, 4), 1, 1, needs_all=False),
    "isvalidipv6": Function(lambda value: addresses.is_valid(value, 6), 1, 1, needs_all=False),
    "isipinsubnet": Function(lambda value, net: addresses.is_in_subnet(value, net, 4, 6), 2, 2, needs_all=False),
    "isipv4insubnet": Function(lambda value, net: addresses.is_in_subnet(value, net, 4), 2, 2, needs_all=False),
    "isipv6insubnet": Function(lambda value, net: addresses.is_in_subnet(value, net, 6), 2, 2, needs_all=False),
    "unmask": Function(lambda value: value, 1, 1),  # nothing is masked on this machine
    "coalesce": Function(_coalesce, 1, _MAX_ARGUMENTS, needs_all=False),
    "concat": _of_text(lambda *values: "".join(values), 1, _MAX_ARGUMENTS),
    "strlen": _of_text(len),
    "toupper": _of_text(str.upper),
    "tolower": _of_text(str.lower),
    "trim": _of_text(str.strip, 1, 2),
    "ltrim": _of_text(str.lstrip, 1, 2),
    "rtrim": _of_text(str.rstrip, 1, 2),
    "replace": _of_text(str.replace, 3, 3),
    "strcontains": _of_text(lambda text, part: part in text, 2, 2),
    "substr": Function(_substr, 2, 3),
    "abs": _arithmetic(abs, 1, 1),
    "ceil": _arithmetic(math.ceil, 1, 1),
    "floor": _arithmetic(math.floor, 1, 1),
    "sqrt": _arithmetic(math.sqrt, 1, 1),
    "log": _arithmetic(math.log, 1, 1),
    "greatest": _arithmetic(max, 2, _MAX_ARGUMENTS),
    "least": _arithmetic(min, 2, _MAX_ARGUMENTS),
    "frommillis": Function(lambda value: _floor_date(value, 1), 1, 1),
    "tomillis": Function(lambda value: None if number(value) is None else int(value), 1, 1),
    "datefloor": Function(_floor_date, 2, 2),
    "dateceil": Function(_ceil_date, 2, 2),
    "now": Function(int, 0, 0),  # the evaluator gives all rows the same one
    "bin": Function(_floor_date, 1, 1),  # the parser adds @timestamp as the first argument
}
