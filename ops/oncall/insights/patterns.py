"""The patterns of `pattern`: texts that differ in their numbers only.

CloudWatch has learned what varies, and names what it recognises, such as an address. Here, a word with a digit in it
varies. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Pattern.html
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from ops.oncall.insights.evaluate import Row, evaluator
from ops.oncall.insights.query import PATTERN_COLUMNS, Pattern
from ops.oncall.insights.values import text

_WORD: Final = re.compile(r"\w[\w.:+-]*")
_DIGIT: Final = re.compile(r"\d")


def patterns(rows: Iterable[Row], command: Pattern) -> Iterator[Row]:
    """A row for each pattern, the most frequent first: the pattern, its share of the texts, and their number."""
    evaluate = evaluator(command.expression)
    found = Counter(_pattern(text(value)) for row in rows if (value := evaluate(row)) is not None)
    for pattern, count in found.most_common():
        row = Row()
        row.update(zip(PATTERN_COLUMNS, (pattern, round(count / found.total(), 4), count), strict=True))
        yield row


def _pattern(line: str) -> str:
    tokens = 0

    def token(word: re.Match[str]) -> str:
        nonlocal tokens
        if not _DIGIT.search(word[0]):
            return word[0]
        tokens += 1
        return f"<Token-{tokens}>"

    return _WORD.sub(token, line)
