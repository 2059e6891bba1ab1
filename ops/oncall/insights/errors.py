"""What is said of an invalid query."""

from typing import Final

from lark import UnexpectedToken

_OPERATORS: Final = "AND OR NOT LIKE IN MATCHES COMPARISON PLUS MINUS STAR DIVISION POWER".split()
_MARKS: Final = {"VBAR": "|", "COMMA": ",", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]"}
_EXPECTED: Final = {  # by the name of the terminal; a keyword is expected as it is
    **dict.fromkeys(_OPERATORS, "an operator"),
    **{name: f"'{mark}'" for name, mark in _MARKS.items()},
    "NAME": "a name",
    "NUMBER": "a number",
    "TEXT": "a text in quotes",
    "REGEX": "a regular expression in slashes",
    "PERIOD": "a time such as 5m",
    "$END": "the end",
}
# Commands of CloudWatch that have no sense here, and why.
_UNSUPPORTED: Final = {
    "anomaly": "it needs weeks of logs to learn from, and a recording has hours",
    "diff": "it compares with an earlier time, of which a recording may have nothing",
    "filterindex": "it reads only what a field index covers, and there is none here; filter reads all",
    "join": "it reads a second log group; each query reads one here",
    "lookup": "it reads a table that was uploaded to CloudWatch",
    "unnest": "lists as values are not supported; a name such as list.0 reads an item",
}


class InvalidQuery(ValueError):
    """The query is not valid; the message is a sentence that names the line and the column."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        super().__init__(f"Line {line}, column {column}: {reason}.")


def unexpected(text: str, error: UnexpectedToken) -> InvalidQuery:
    """The error of a text that is not in the grammar, with what could be in its place."""
    is_end = error.token.type == "$END"
    found = "the end" if is_end else error.token
    position = len(text) if is_end else error.token.start_pos or 0
    names = error.accepts or error.expected
    command = error.token.lower()
    if "_FIELDS" in names and command in _UNSUPPORTED:
        return InvalidQuery(text, position, f"{error.token} is not supported: {_UNSUPPORTED[command]}")
    if command == "loggroups":
        return InvalidQuery(text, position, "SOURCE takes one log group in quotes here, since each query reads one")
    if command == "stats" and "_FIELDS" in names:
        return InvalidQuery(text, position, "a query has at most two stats, with no sort, limit or pattern before them")
    expected = sorted({_EXPECTED.get(name) or f"'{name.strip('_').lower()}'" for name in names})
    return InvalidQuery(text, position, f"found {found}, expected {', '.join(expected)}")
