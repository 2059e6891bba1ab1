"""The named queries in `sql/queries`. Each has its own file, whose first line states its purpose."""

from pathlib import Path
from typing import Final

SQL: Final = Path(__file__).resolve().parents[2] / "sql"


def read(name: str) -> str:
    """The text of the query `name`, with $1, $2 … for its arguments."""
    return (SQL / "queries" / f"{name}.sql").read_text(encoding="utf-8")
