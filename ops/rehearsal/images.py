"""The images of the rehearsal's releases: the source of this checkout, with what each release changes."""

import shutil
from pathlib import Path
from typing import Final

from ops.rehearsal.steps import BAD_MIGRATION, IMAGE, NEVER_READY, ROOT, SECOND

_NEWEST: Final = 9000  # above the migrations of the service itself
_EXPAND: Final = "ALTER TABLE clients ADD rehearsed boolean NOT NULL DEFAULT true;"
_FAIL: Final = "ALTER TABLE clients ADD more text; SELECT 1 / 0;"


def write(folder: Path) -> dict[str, Path]:
    """Writes the images into a new folder, and returns the folder with the source of each.

    The second release adds a column, and is ready only with it. The next one's migration fails half-way. The last one's
    pods never get ready, since they ask for a column that no migration adds.
    """
    second = _copy(ROOT, folder / "second")
    _add_migration(second, 1, _EXPAND)
    bad_migration = _copy(second, folder / "bad-migration")
    _add_migration(bad_migration, 2, _FAIL)
    never_ready = _copy(second, folder / "never-ready")
    (never_ready / "sql" / "queries" / "ready.sql").write_text("SELECT forgotten FROM clients")
    return {IMAGE: ROOT, SECOND: second, BAD_MIGRATION: bad_migration, NEVER_READY: never_ready}


def migrations(source: Path) -> set[str]:
    """Returns the versions of the migrations that an image needs."""
    return {file.name.partition("_")[0] for file in (source / "sql" / "migrations").glob("*.sql")}


def _copy(source: Path, target: Path) -> Path:
    for name in ("svc", "sql"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _add_migration(source: Path, number: int, statement: str) -> None:
    file = source / "sql" / "migrations" / f"{_NEWEST + number}_rehearse.sql"
    file.write_text(f"-- migrate:up\n{statement}\n-- migrate:down\n")
