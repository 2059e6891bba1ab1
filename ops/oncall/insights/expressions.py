"""The grammar of what is computed: a function for each rule, from what binds least to what binds most."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ops.oncall.insights.aggregates import AGGREGATES
from ops.oncall.insights.functions import CONDITIONS, FUNCTIONS, PERIODIC, UNITS_MS
from ops.oncall.insights.query import Call, Expression, Field, Literal
from ops.oncall.insights.tokens import Refused, Token, Words

_LEVELS: Final = (("=", "!=", "<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"), ("^",))
_PERIOD: Final = re.compile(r"(\d+)(\D+)")


class Expressions:
    """Reads expressions.

    Args:
        words: where from.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._names: list[str] | None = None  # that there are to read; None for any field of a record
        self._aggregates = False  # whether they may stand here

    @contextmanager
    def _reading(self, names: list[str] | None, *, aggregates: bool) -> Iterator[None]:
        before = self._names, self._aggregates
        self._names, self._aggregates = names, aggregates
        yield
        self._names, self._aggregates = before

    def condition(self, read: Callable[[], Expression] | None = None) -> Expression:
        """What holds or does not: in `a = 1 or 2`, the 2 does neither, and would let all pass."""
        start = self._words.now.start
        found = (read or self.expression)()
        self._check_condition(found, start)
        return found

    def _check_condition(self, found: Expression, start: int) -> None:
        if not (isinstance(found, Call) and found.name in CONDITIONS):
            self._words.refuse(f"{self._words.since(start)!r} is no condition, such as a comparison", start=start)

    def expression(self) -> Expression:
        """Anything that has a value."""
        return self._joined("or", lambda: self._joined("and", self._negation))

    def _joined(self, word: str, read: Callable[[], Expression]) -> Expression:
        start = self._words.now.start
        left = read()
        if self._words.is_at(word):
            self._check_condition(left, start)
        while self._words.takes_word(word):
            left = Call(word, (left, self.condition(read)))
        return left

    def _negation(self) -> Expression:
        return Call("not", (self.condition(self._negation),)) if self._words.takes_word("not") else self._test()

    def _test(self) -> Expression:
        left = self._binary(0)
        if self._words.takes("=~"):
            return Call("like", (left, self._pattern("regex")))
        is_negated = self._words.takes_word("not")
        if self._words.takes_word("like"):
            found = Call("like", (left, self._pattern("text", "regex")))
        elif self._words.takes_word("in"):
            found = Call("in", (left, Literal(self._choices())))
        elif is_negated:
            self._words.miss("like or in")
        else:
            return left
        return Call("not", (found,)) if is_negated else found

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._sign()
        left = self._binary(level + 1)
        while self._words.now.kind == "mark" and self._words.now.text in _LEVELS[level]:
            left = Call(self._words.next().text, (left, self._binary(level + 1)))
        return left

    def _sign(self) -> Expression:
        return Call("-", (Literal(0), self._sign())) if self._words.takes("-") else self._primary()

    def _primary(self) -> Expression:
        if self._words.takes("("):
            inner = self.expression()
            self._words.expect(")")
            return inner
        if self._words.now.kind in {"number", "text"}:
            return Literal(self._constant())
        word = self._words.take("a field, a value or a function", "name")
        return self._call(word) if self._words.takes("(") else self._known(word.text, word)

    def field(self) -> Field:
        """A field, and nothing else."""
        word = self._words.take("a field", "name")
        return self._known(word.text, word)

    def _known(self, name: str, word: Token) -> Field:
        if self._names is not None and name not in self._names:
            if self._aggregates:
                self._words.refuse(f"{name!r} has to stand within one of {', '.join(AGGREGATES)}", start=word.start)
            self._words.refuse(f"after stats there is no {name!r}, only {', '.join(self._names)}", start=word.start)
        return Field(name)

    def _call(self, word: Token) -> Call:
        name = word.text.lower()
        function = FUNCTIONS.get(name) or AGGREGATES.get(name)
        if function is None:
            self._words.refuse(f"{word.text!r} is no function that is known here", start=word.start)
        if name in AGGREGATES and not self._aggregates:
            self._words.refuse(f"{name} has its place in stats, and a name by as for later", start=word.start)
        if name in AGGREGATES:
            with self._reading(None, aggregates=False):
                arguments = self._arguments(name)
        else:
            arguments = self._arguments(name)
        if name == "bin":
            arguments = (self._known("@timestamp", word), *arguments)
        if not function.least <= len(arguments) <= function.most:
            self._words.refuse(f"{name} is not given what it takes", start=word.start)
        if name in PERIODIC or name == "pct":
            self._check_last(name, arguments[-1], word)
        return Call(name, arguments)

    def _arguments(self, name: str) -> tuple[Expression, ...]:
        if self._words.takes(")"):
            return ()
        if name == "count" and self._words.takes("*"):
            self._words.expect(")")
            return ()
        arguments = self._words.list(self._period_or_expression if name in PERIODIC else self.expression)
        self._words.expect(")")
        return arguments

    def _check_last(self, name: str, last: Expression, word: Token) -> None:
        is_percent = isinstance(last, Literal) and isinstance(last.value, int | float) and 0 <= last.value <= 100
        if name == "pct" and not is_percent:
            self._words.refuse("pct takes a number from 0 to 100 last", start=word.start)
        if name in PERIODIC and not isinstance(last, _Period):
            self._words.refuse(f"{name} takes a time such as 5m last", start=word.start)

    def _period_or_expression(self) -> Expression:
        if self._words.now.kind != "period":
            return self.expression()
        word = self._words.next()
        found = _PERIOD.fullmatch(word.text)
        assert found, "as the word is cut"
        count, unit = found.groups()
        if unit not in UNITS_MS or not int(count):
            self._words.refuse(f"{word.text!r} is no time such as 30s, 5m, 1h or 1d", start=word.start)
        return _Period(int(count) * UNITS_MS[unit])

    def _pattern(self, *kinds: str) -> Literal:
        word = self._words.take(" or ".join(f"a {kind}" for kind in kinds), *kinds)
        return Literal(self.regex(word) if word.kind == "regex" else word.text)

    def regex(self, word: Token) -> re.Pattern[str]:
        """Compiles an expression; Insights' own engine writes a named group without Python's P."""
        try:
            return re.compile(re.sub(r"\(\?<(?=\w)", "(?P<", word.text), re.DOTALL)
        except re.error as error:
            raise Refused(self._words.query, word.start, f"the regular expression is none: {error}") from None

    def _choices(self) -> tuple[str | float, ...]:
        self._words.expect("[")
        choices = self._words.list(self._constant)
        self._words.expect("]")
        return choices

    def _constant(self) -> str | float:
        if self._words.takes("-"):
            return -float(self._words.take("a number", "number").text)
        word = self._words.take("a number, or a text in quotes", "number", "text")
        if word.kind == "text":
            return word.text
        return float(word.text) if "." in word.text else int(word.text)


class _Period(Literal):
    """A time, in milliseconds."""
