"""The grammar of commands."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from ops.oncall.insights.expressions import Expressions
from ops.oncall.insights.query import (
    Column,
    Command,
    Dedup,
    Expression,
    Field,
    Filter,
    Limit,
    Parse,
    Query,
    Show,
    Sort,
    Stats,
)
from ops.oncall.insights.tokens import Refused, Words

LIMIT_MOST: Final = 10_000  # rows; also where no limit is given

# After some commands CloudWatch takes only some others, or does not say what the rest would mean.
_REST: Final = ("fields", "display", "filter", "where", "sort", "limit", "dedup")
_AFTER: Final = {"stats": _REST, "sort": _REST, "dedup": ("limit",), "limit": ("display",)}


def parse(text: str) -> Query:
    """Reads a query.

    Raises:
        Refused: it has what is not understood.
    """
    try:
        return _Commands(Words(text)).query()
    except RecursionError:
        raise Refused(text, 0, "it has more within one another than can be read") from None


class _Commands(Expressions):
    def __init__(self, words: Words) -> None:
        super().__init__(words)
        self._known_commands: dict[str, Callable[[], Command]] = {
            "fields": lambda: Show(self._words.list(self._column), is_display=False),
            "display": lambda: Show(self._words.list(self._column), is_display=True),
            "filter": lambda: Filter(self.condition()),
            "where": lambda: Filter(self.condition()),
            "parse": self._parse,
            "stats": self._stats,
            "sort": lambda: Sort(self._words.list(self._sort_key)),
            "limit": self._limit,
            "dedup": lambda: Dedup(self._words.list(self.field)),
        }
        self._allowed: Sequence[str] = tuple(self._known_commands)

    def query(self) -> Query:
        group = ""
        if self._words.takes_word("source"):
            group = self._words.take("a log group's name in quotes", "text").text
            self._words.expect("|")
        commands = [self._command()]
        while self._words.takes("|"):
            commands.append(self._command())
        if self._words.now.kind != "end":
            self._words.miss('"|" or the end')
        return Query(tuple(commands), group)

    def _command(self) -> Command:
        name = self._words.now.text.lower()
        if name not in self._known_commands:
            self._words.miss(f"one of {', '.join(self._known_commands)}")
        if name not in self._allowed:
            self._words.refuse(f"{name} cannot stand here, only {', '.join(self._allowed)}")
        self._words.next()
        command = self._known_commands[name]()
        self._allowed = [after for after in self._allowed if after in _AFTER.get(name, self._allowed)]
        return command

    def _parse(self) -> Parse:
        source = self.field() if self._words.now.kind == "name" else Field("@message")
        word = self._words.take("a text with * in it, or a regular expression with named groups", "text", "regex")
        if word.kind == "regex":
            pattern = self.regex(word)
            names = tuple(pattern.groupindex)
        else:
            pattern = _glob(word.text)
            if not self._words.takes_word("as"):
                self._words.miss("as, with a name for each *")
            names = self._words.list(self._name)
        if not names or len(names) != pattern.groups:
            self._words.refuse(f"{pattern.groups} values and {len(names)} names do not fit together", start=word.start)
        return Parse(source, pattern, names)

    def _stats(self) -> Stats:
        with self._reading([], aggregates=True):
            columns = self._words.list(self._column)
        by = self._words.list(self._column) if self._words.takes_word("by") else ()
        self._names = [column.name for column in (*by, *columns)]
        return Stats(columns, by)

    def _sort_key(self) -> tuple[Expression, bool]:
        expression = self.expression()
        is_down = self._words.takes_word("desc")
        if not is_down:
            self._words.takes_word("asc")
        return expression, is_down

    def _limit(self) -> Limit:
        word = self._words.take("a number of rows", "number")
        if not (word.text.isdigit() and 1 <= int(word.text) <= LIMIT_MOST):
            self._words.refuse(f"a limit is a whole number from 1 to {LIMIT_MOST}", start=word.start)
        return Limit(int(word.text))

    def _column(self) -> Column:
        start = self._words.now.start
        expression = self.expression()
        name = expression.name if isinstance(expression, Field) else self._words.since(start)
        if self._words.takes_word("as"):
            name = self._name()
        if self._names is not None:
            self._names.append(name)
        return Column(expression, name)

    def _name(self) -> str:
        return self._words.take("a name", "name").text


def _glob(text: str) -> re.Pattern[str]:
    """A pattern of a text in which * stands for as little as may be, and at either end for all that there is."""
    first, *rest = map(re.escape, text.split("*"))
    start = first or r"\A"
    end = "" if rest and rest[-1] else r"\Z"
    return re.compile(start + "".join(f"(.*?){piece}" for piece in rest) + end, re.DOTALL)
