"""The saved queries: a file each, with comments that say what it answers and where it looks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent / "queries"

_GROUP: Final = "group: "  # the comment that names the log group


@dataclass(frozen=True)
class Saved:
    """A query in a file.

    Attributes:
        name: the file's, without its ending.
        says: what it answers.
        group: of the log that it is for: application or metrics.
        text: the query itself.
    """

    name: str
    says: str
    group: str
    text: str


def read(file: Path) -> Saved:
    """The query in a file.

    Raises:
        ValueError: it does not name one group.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    said = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    (group,) = [words.removeprefix(_GROUP) for words in said if words.startswith(_GROUP)]
    says = " ".join(words for words in said if not words.startswith(_GROUP))
    text = "\n".join(line for line in lines if not line.startswith("#")).strip()
    return Saved(file.stem, says, group, text)
