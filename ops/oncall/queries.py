"""Runs queries over the log: saved ones and those that a user types."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from ops.cloudwatch.queries import read
from ops.oncall.insights import Query, parse, run
from ops.oncall.insights.query import DEFAULT_COLUMNS, Column, Field, Pattern, Show, Stats
from ops.oncall.logs import LINES, METRICS, LogStore

Result: TypeAlias = dict[str, Any]

_MAX_ROWS: Final = 500  # that are sent to the page
_WEIGHT: Final = "sample_weight"  # the field of a request's line that says for how many requests it stands
_WHOLE: Final = "the whole message"  # a name with spaces, which no query can use


class QueryLibrary:
    """The saved queries, and the log that queries read.

    Args:
        logs: that queries read.
        folder: with a file for each saved query: comments that describe it and name its log group, and the query.
    """

    def __init__(self, logs: LogStore, folder: Path) -> None:
        self._logs = logs
        self.queries = [read(file) for file in sorted(folder.glob("*.txt"))]

    def run(self, text: str, start: float, end: float, group: str = LINES) -> Result:
        """Runs a query.

        Args:
            text: of the query.
            start: of the time range, in seconds since 1970.
            end: of the time range.
            group: the log group, unless the query names one.

        Returns:
            The columns, the first rows, the record of each row unless the query has `stats` or `pattern`, the number of
            rows, the number of lines that were read, and the number of requests for which these lines stand.

        Raises:
            ValueError: the query is not valid; the message names the place.
        """
        query = parse(text)
        records = self._logs.recent(_group(query.group or group), start * 1000, end * 1000 + 1)
        is_of_lines = not any(isinstance(command, Stats | Pattern) for command in query.commands)
        table = run(_with_message(query) if is_of_lines else query, records)
        columns, rows = table.columns, table.rows[:_MAX_ROWS]
        weights = (record.fields.get(_WEIGHT) for record in records)
        requests = sum(weight for weight in weights if isinstance(weight, int))
        found: Result = {"matched": len(table.rows), "scanned": len(records), "requests": requests}
        if not is_of_lines:
            return {**found, "columns": columns, "rows": rows}
        whole = [orjson.loads(str(row[-1])) for row in rows]
        return {**found, "columns": columns[:-1], "rows": [row[:-1] for row in rows], "records": whole}


def _group(name: str) -> str:
    """The short name of a log group, with which its full name ends."""
    short = name.rpartition("/")[2]
    if short not in {LINES, METRICS}:
        raise ValueError(f"There is no log group {name} here, only {LINES} and {METRICS}.")
    return short


def _with_message(query: Query) -> Query:
    """The same query with the whole message as its last column. A final command adds it to the remaining rows."""
    message = Column(Field("@message"), _WHOLE)
    shows = [command for command in query.commands if isinstance(command, Show)]
    displays = [command for command in shows if command.is_display]
    names = [column.name for column in displays[-1].columns] if displays else [] if shows else DEFAULT_COLUMNS
    columns = (*(Column(Field(name), name) for name in names), message)
    return replace(query, commands=(*query.commands, Show(columns, is_display=bool(displays))))
