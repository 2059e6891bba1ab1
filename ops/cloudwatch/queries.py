"""The saved queries: one file each, whose comments say what it answers and which log group it reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent / "queries"

_GROUP: Final = "group: "  # starts the comment that names the log group
_IF_EMPTY: Final = "if empty: "  # starts the comment that says what an empty result means


@dataclass(frozen=True)
class SavedQuery:
    """A query in a file.

    Attributes:
        name: the file's name without its suffix.
        description: what the query answers.
        group: the log group that it reads: lines or metrics.
        if_empty: what it means that the query finds nothing, where this is good news; else empty.
        text: the query itself.
    """

    name: str
    description: str
    group: str
    if_empty: str
    text: str


def read(file: Path) -> SavedQuery:
    """Reads a query from a file.

    Raises:
        ValueError: the comments do not name exactly one group.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    (group,) = [comment.removeprefix(_GROUP) for comment in comments if comment.startswith(_GROUP)]
    if_empty = next((one.removeprefix(_IF_EMPTY) for one in comments if one.startswith(_IF_EMPTY)), "")
    description = " ".join(comment for comment in comments if not comment.startswith((_GROUP, _IF_EMPTY)))
    text = "\n".join(line for line in lines if not line.startswith("#")).strip()
    return SavedQuery(file.stem, description, group, if_empty, text)
