"""Parses the text of a query into a `Query`, by the grammar in grammar.lark."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NoReturn

from lark import Lark, Token, Transformer, Tree, UnexpectedCharacters, UnexpectedToken, v_args
from lark.exceptions import VisitError
from lark.tree import Meta

from ops.oncall.insights.aggregates import AGGREGATES
from ops.oncall.insights.errors import InvalidQuery, unexpected
from ops.oncall.insights.functions import CONDITIONS, FUNCTIONS, PERIODIC, UNITS
from ops.oncall.insights.query import (
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
    steps,
)

# CloudWatch's own maximum: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
MAX_CHARACTERS: Final = 10_000

_MAX_DEPTH: Final = 100  # of nested expressions: each level takes a frame or two of Python's stack


class _Period(Literal):
    """A time, in milliseconds."""


def parse(text: str) -> Query:
    """Parses a query.

    Raises:
        InvalidQuery: it is too long or too deeply nested, or uses what the grammar does not know.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidQuery(text, MAX_CHARACTERS, f"a query has at most {MAX_CHARACTERS} characters")
    try:
        tree = _grammar().parse(text)
        if _depth(tree) > _MAX_DEPTH:
            raise InvalidQuery(text, 0, f"expressions are nested more than {_MAX_DEPTH} levels deep")
        return _Builder(text).transform(tree)
    except UnexpectedCharacters as error:
        position: int = error.pos_in_stream  # type: ignore[assignment]  # lark declares it as None
        raise InvalidQuery(text, position, f"unexpected character {error.char}") from None
    except UnexpectedToken as error:
        raise unexpected(text, error) from None
    except VisitError as error:  # lark's wrapper around what a method of the builder raises
        raise error.orig_exc from None


@cache
def _grammar() -> Lark:
    return Lark.open("grammar.lark", rel_to=__file__, start="query", parser="lalr", propagate_positions=True)


def _depth(tree: Tree[Token]) -> int:
    depths: dict[int, int] = {}
    for subtree in tree.iter_subtrees():  # from the innermost to the whole
        children = (depths[id(child)] for child in subtree.children if isinstance(child, Tree))
        depths[id(subtree)] = 1 + max(children, default=0)
    return depths[id(tree)]


@v_args(inline=True)
class _Builder(Transformer[Token, Query]):
    """Builds a query from its tree: a method for each rule of the grammar.

    Args:
        text: of the query.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def _refuse(self, position: int, reason: str) -> NoReturn:
        raise InvalidQuery(self._text, position, reason)

    def query(self, group: Literal | None, *commands: Command | None) -> Query:
        found = tuple(command for command in commands if command is not None)
        self._check_names(found)
        return Query(found, group.value if group else "")

    def _check_names(self, commands: Sequence[Command]) -> None:
        names: list[str] | None = None  # that a command can use; None for all fields of a record
        for command in commands:
            if isinstance(command, Stats):
                results: list[str] = []
                for column in command.columns:
                    self._check(column.expression, results, inside=names, in_stats=True)
                    results.append(column.name)
                for column in command.by:
                    self._check(column.expression, names)
                names = [*(column.name for column in command.by), *results]
                continue
            if isinstance(command, Pattern):
                self._check(command.expression, names)
                names = list(PATTERN_COLUMNS)
                continue
            for expression, made in steps(command):
                self._check(expression, names)
                if names is not None:
                    names += made

    def _check(
        self,
        expression: Expression,
        names: Sequence[str] | None,
        *,
        inside: Sequence[str] | None = None,
        in_stats: bool = False,
    ) -> None:
        """Checks that the fields are among the names, and that aggregates are in `stats` and not in one another.

        Args:
            expression: what to check.
            names: the fields that it may use; None for all fields of a record.
            inside: the fields that an aggregate may use.
            in_stats: whether aggregates are allowed.
        """
        match expression:
            case Field(name) if names is not None and name not in names:
                only = f"not a column any more: there are only {', '.join(names)}"
                why = "not inside an aggregate, such as max or latest" if in_stats else only
                self._refuse(expression.start, f"'{name}' is {why}")
            case Call(name) if name in AGGREGATES and not in_stats:
                self._refuse(
                    expression.start, f"{name} is an aggregate: it is allowed only in stats, and not inside another one"
                )
            case Call(name, arguments):
                is_aggregate = name in AGGREGATES
                usable = inside if is_aggregate else names
                for argument in arguments:
                    self._check(argument, usable, inside=inside, in_stats=in_stats and not is_aggregate)

    def fields(self, *columns: Column) -> Show:
        return Show(columns, is_display=False)

    def display(self, *columns: Column) -> Show:
        return Show(columns, is_display=True)

    def filter(self, condition: Expression) -> Filter:
        return Filter(self._condition(condition))

    def parse(self, source: Field | None, pattern: Literal, *aliases: str) -> Parse:
        regex = pattern.value if isinstance(pattern.value, re.Pattern) else _glob(pattern.value)
        names = aliases or tuple(regex.groupindex)
        if not names or len(names) != regex.groups:
            self._refuse(pattern.start, f"the pattern has {regex.groups} values and {len(names)} names")
        return Parse(source or Field("@message"), regex, names)

    def pattern(self, expression: Expression) -> Pattern:
        return Pattern(expression)

    def stats(self, columns: tuple[Column, ...], by: tuple[Column, ...] | None) -> Stats:
        return Stats(columns, by or ())

    def sort(self, *keys: tuple[Expression, bool]) -> Sort:
        return Sort(keys)

    def limit(self, rows: Literal) -> Limit:
        if not (isinstance(rows.value, int) and 1 <= rows.value <= MAX_ROWS):
            self._refuse(rows.start, f"limit takes a whole number from 1 to {MAX_ROWS}")
        return Limit(rows.value)

    def dedup(self, *fields: Field) -> Dedup:
        return Dedup(fields)

    def columns(self, *columns: Column) -> tuple[Column, ...]:
        return columns

    @v_args(meta=True, inline=True)
    def column(self, meta: Meta, expression: Expression, alias: str | None) -> Column:
        written = expression.name if isinstance(expression, Field) else self._text[meta.start_pos : meta.end_pos]
        return Column(expression, alias or written)

    def sort_key(self, expression: Expression, desc: Token | None = None) -> tuple[Expression, bool]:
        return expression, desc is not None

    def _condition(self, expression: Expression) -> Expression:
        """Refuses what is neither true nor false: the 2 in `a = 1 or 2` would let every record through."""
        if not (isinstance(expression, Call) and expression.name in CONDITIONS):
            self._refuse(expression.start, "expected a condition, such as a comparison")
        return expression

    def both(self, left: Expression, operator: Token, right: Expression) -> Call:
        return Call(operator.lower(), (self._condition(left), self._condition(right)), start=left.start)

    def opposite(self, operator: Token, condition: Expression) -> Call:
        return Call("not", (self._condition(condition),), start=_start(operator))

    def match(self, left: Expression, *rest: Any) -> Call:
        *negation, operator, right = rest
        found = Call("in" if operator.type == "IN" else "like", (left, right), start=left.start)
        return Call("not", (found,), start=left.start) if any(negation) else found

    def operation(self, left: Expression, operator: Token, right: Expression) -> Call:
        return Call(str(operator), (left, right), start=left.start)

    def negative(self, sign: Token, operand: Expression) -> Expression:
        if isinstance(operand, Literal) and not isinstance(operand.value, str):
            return Literal(-operand.value, start=_start(sign))
        return Call("-", (Literal(0), operand), start=_start(sign))

    def call(self, token: Token, *given: Any) -> Call:
        name, start = token.lower(), _start(token)
        function = FUNCTIONS.get(name) or AGGREGATES.get(name)
        if function is None:
            self._refuse(start, f"'{token}' is not a supported function")
        arguments = [argument for argument in given if isinstance(argument, Expression)]
        if name != "count" and any(isinstance(argument, Token) for argument in given):
            self._refuse(start, "only count takes *")
        if not function.min_arguments <= len(arguments) <= function.max_arguments:
            self._refuse(start, f"{name} does not take {len(arguments)} arguments")
        last = arguments[-1] if arguments else None
        if name == "pct" and not (isinstance(last, Literal) and _is_percent(last.value)):
            self._refuse(start, "the last argument of pct has to be a number from 0 to 100")
        if name in PERIODIC and not isinstance(last, _Period):
            self._refuse(start, f"the last argument of {name} has to be a time such as 5m")
        if any(isinstance(argument, _Period) for argument in (arguments[:-1] if name in PERIODIC else arguments)):
            self._refuse(start, f"only the last argument of {', '.join(PERIODIC)} can be a time such as 5m")
        if name == "bin":
            arguments.insert(0, Field("@timestamp", start=start))
        return Call(name, tuple(arguments), start=start)

    def choices(self, *literals: Literal) -> Literal:
        return Literal(tuple(literal.value for literal in literals))

    def name(self, token: Token) -> str:
        return token.replace("`", "")

    def field(self, token: Token) -> Field:
        return Field(token.replace("`", ""), start=_start(token))

    def number(self, token: Token) -> Literal:
        return Literal(float(token) if "." in token else int(token), start=_start(token))

    def text(self, token: Token) -> Literal:
        return Literal(re.sub(r"""\\(["'\\])""", r"\1", token[1:-1]), start=_start(token))

    def regex(self, token: Token) -> Literal:
        # CloudWatch's own engine writes a named group without Python's P.
        pattern = re.sub(r"\(\?<(?=\w)", "(?P<", token[1:-1].replace("\\/", "/"))
        try:
            return Literal(re.compile(pattern, re.DOTALL), start=_start(token))
        except re.error as error:
            self._refuse(_start(token), f"invalid regular expression: {error}")

    def period(self, token: Token) -> _Period:
        count, unit = re.findall(r"\d+|\D+", token)
        if unit not in UNITS or not int(count):
            self._refuse(_start(token), f"'{token}' is not a time such as 30s, 5m, 1h or 1d")
        milliseconds, maximum = UNITS[unit]
        return _Period(min(int(count), maximum) * milliseconds, start=_start(token))


def _start(token: Token) -> int:
    return token.start_pos or 0


def _is_percent(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 100


def _glob(text: str) -> re.Pattern[str]:
    """A pattern in which each * matches as little as possible, or at either end all that there is."""
    first, *rest = map(re.escape, text.split("*"))
    start = first or r"\A"
    end = "" if rest and rest[-1] else r"\Z"
    return re.compile(start + "".join(f"(.*?){piece}" for piece in rest) + end, re.DOTALL)
