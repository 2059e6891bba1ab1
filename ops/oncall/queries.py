"""Queries of the log: those that are files, and those that are typed in."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from ops.cloudwatch.queries import read
from ops.oncall.insights import Query, parse, run
from ops.oncall.insights.query import DEFAULT_COLUMNS, Column, Field, Show, Stats
from ops.oncall.logs import APPLICATION, METRICS, LogStore

Answer: TypeAlias = dict[str, Any]

_SHOWN_MOST: Final = 500  # rows; a person reads fewer
_WHOLE: Final = "the whole message"  # no name that a query could have


class Library:
    """Queries, and what they find.

    Args:
        logs: where they look.
        folder: with a file for each: comments that say what it answers, one that names its group, and the query.
    """

    def __init__(self, logs: LogStore, folder: Path) -> None:
        self._logs = logs
        self.queries = [read(file) for file in sorted(folder.glob("*.txt"))]

    def ask(self, text: str, start: float, end: float, group: str = APPLICATION) -> Answer:
        """What a query finds.

        Args:
            text: of the query.
            start: of the time to look at, in seconds since 1970.
            end: of it.
            group: where to look, unless the query says.

        Returns:
            Columns, the first rows, the whole records that they are made of unless they are made of many, how many rows
            there are, and how many lines were looked at.

        Raises:
            ValueError: it is not understood; the message says where.
        """
        query = parse(text)
        records = self._logs.recent(_group(query.group or group), start * 1000, end * 1000 + 1)
        is_of_lines = not any(isinstance(command, Stats) for command in query.commands)
        table = run(_with_message(query) if is_of_lines else query, records)
        columns, rows = table.columns, table.rows[:_SHOWN_MOST]
        found: Answer = {"matched": len(table.rows), "scanned": len(records)}
        if not is_of_lines:
            return {**found, "columns": columns, "rows": rows}
        whole = [orjson.loads(str(row[-1])) for row in rows]
        return {**found, "columns": columns[:-1], "rows": [row[:-1] for row in rows], "records": whole}


def _group(name: str) -> str:
    """A group by its short name, which the full one ends with."""
    short = name.rpartition("/")[2]
    if short not in {APPLICATION, METRICS}:
        raise ValueError(f"There is no log group {name} here, only {APPLICATION} and {METRICS}.")
    return short


def _with_message(query: Query) -> Query:
    """The same query, with the whole message as its last column: at the end, for what is left by then."""
    message = Column(Field("@message"), _WHOLE)
    shows = [command for command in query.commands if isinstance(command, Show)]
    displays = [command for command in shows if command.is_display]
    names = [column.name for column in displays[-1].columns] if displays else [] if shows else DEFAULT_COLUMNS
    columns = (*(Column(Field(name), name) for name in names), message)
    return replace(query, commands=(*query.commands, Show(columns, is_display=bool(displays))))
