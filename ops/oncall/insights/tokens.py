"""The words of a query, and where it stops being understood."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

_T = TypeVar("_T")


class Refused(ValueError):
    """A query that is not understood; the message is a sentence that names the place."""

    def __init__(self, query: str, start: int, why: str) -> None:
        line = query.count("\n", 0, start) + 1
        column = start - query.rfind("\n", 0, start)
        super().__init__(f"Line {line}, column {column}: {why}.")


@dataclass(frozen=True)
class Token:
    """A word.

    Attributes:
        kind: name, number, period, text, regex, mark or end.
        text: as it is written; of a text, a regex and a name, what is between the quotes.
        start: where it begins.
        end: where it is over.
    """

    kind: str
    text: str
    start: int
    end: int


_NAME: Final = r"(?:[A-Za-z_@][\w@]*|`[^`\n]+`)(?:\.(?:[\w@]+|`[^`\n]+`))*"
_WORD: Final = re.compile(
    rf"""(?P<blank>\s+|\#[^\n]*)
    |(?P<name>{_NAME})
    |(?P<period>\d+[A-Za-z]+)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<mark>=~|!=|<=|>=|[|,()\[\]=<>+\-*/^%])""",
    re.VERBOSE | re.DOTALL,
)
_REGEX: Final = re.compile(r"(?P<regex>/(?:[^/\\\n]|\\.)+/)")


def _tokens(query: str) -> Iterator[Token]:
    position, last, command = 0, "|", ""
    while position < len(query):
        # A slash divides, except where only a regular expression can stand.
        may_be_regex = last in {"like", "=~"} or command == "parse"
        found = (may_be_regex and _REGEX.match(query, position)) or _WORD.match(query, position)
        if not found:
            raise Refused(query, position, f"{query[position]!r} begins nothing that is known here")
        position, kind = found.end(), str(found.lastgroup)
        if kind == "blank":
            continue
        word = found[0].lower()
        command = word if last == "|" else command
        last = word
        yield Token(kind, _inside(kind, found[0]), found.start(), found.end())
    yield Token("end", "", len(query), len(query))


def _inside(kind: str, written: str) -> str:
    match kind:
        case "text":
            return re.sub(r"""\\(["'\\])""", r"\1", written[1:-1])
        case "regex":
            return written[1:-1].replace("\\/", "/")
        case "name":
            return written.replace("`", "")
    return written


class Words:
    """A query's words, one by one; `now` is the next.

    Raises:
        Refused: there is what begins no word.
    """

    def __init__(self, query: str) -> None:
        self.query = query
        self._tokens = _tokens(query)
        self._end = 0
        self.now = next(self._tokens)

    def next(self) -> Token:
        """Takes the next one, whatever it is."""
        taken = self.now
        self._end = taken.end
        self.now = next(self._tokens, taken)
        return taken

    def since(self, start: int) -> str:
        """What was taken, as it is written."""
        return self.query[start : self._end]

    def takes(self, mark: str) -> bool:
        """Takes this mark where it is next."""
        found = self.now.kind == "mark" and self.now.text == mark
        if found:
            self.next()
        return found

    def is_at(self, word: str) -> bool:
        """Whether this keyword is next, in whatever case."""
        return self.now.kind == "name" and self.now.text.lower() == word

    def takes_word(self, word: str) -> bool:
        """Takes this keyword where it is next."""
        found = self.is_at(word)
        if found:
            self.next()
        return found

    def expect(self, mark: str) -> None:
        """Takes this mark."""
        if not self.takes(mark):
            self.miss(f'"{mark}"')

    def take(self, what: str, *kinds: str) -> Token:
        """Takes a word of one of these kinds."""
        if self.now.kind not in kinds:
            self.miss(what)
        return self.next()

    def list(self, read: Callable[[], _T]) -> tuple[_T, ...]:
        """Takes what is read again and again, with commas between."""
        found = [read()]
        while self.takes(","):
            found.append(read())
        return tuple(found)

    def miss(self, what: str) -> NoReturn:
        """Refuses what is next, since it is not what it has to be."""
        self.refuse(f"here is {self.now.text!r}" if self.now.text else "here is the end", f", and not {what}")

    def refuse(self, why: str, more: str = "", *, start: int | None = None) -> NoReturn:
        """Refuses the query, for what is next or for what is at `start`."""
        raise Refused(self.query, self.now.start if start is None else start, why + more)
