"""The named queries in `sql/queries`, and the migrations that this build needs.

Each query has its own file, whose first line states its purpose.
"""

from pathlib import Path
from typing import Final

SQL: Final = Path(__file__).resolve().parents[2] / "sql"


def read(name: str) -> str:
    """The text of the query `name`, with $1, $2 … for its arguments."""
    return (SQL / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def migrations() -> list[str]:
    """The versions of all migrations in `sql/migrations`, as dbmate stores them in schema_migrations: 0001, 0002 …"""
    return sorted(file.name.partition("_")[0] for file in (SQL / "migrations").glob("*.sql"))
