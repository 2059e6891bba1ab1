"""The named queries of `sql/queries`: a file each, its first line saying what it is for."""

from pathlib import Path
from typing import Final

SQL: Final = Path(__file__).resolve().parents[2] / "sql"


def read(name: str) -> str:
    """The text of the query `name`, with $1, $2 … where its arguments go."""
    return (SQL / "queries" / f"{name}.sql").read_text(encoding="utf-8")
