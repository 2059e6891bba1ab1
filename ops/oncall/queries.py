"""Runs queries over the log: saved ones and those that a user types."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from ops.cloudwatch.queries import read
from ops.oncall.histogram import histogram
from ops.oncall.insights import Query, parse, run
from ops.oncall.insights.query import DEFAULT_COLUMNS, Column, Dedup, Field, Limit, Pattern, Show, Sort, Stats
from ops.oncall.logs import LINES, METRICS, LogStore, Record

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
            text: of the query; an empty one finds all lines, the newest first.
            start: of the time range, in seconds since 1970.
            end: of the time range.
            group: the log group, unless the query names one.

        Returns:
            The columns, the first rows, the record of each row unless the query has `stats` or `pattern`, the number of
            rows, whether the newest are first, the number of lines that were read and of those that the filters let
            through, and the number of requests for which the lines that were read stand.

        Raises:
            ValueError: the query is not valid; the message names the place.
        """
        query = _parse(text)
        return _result(query, self._logs.recent(_group(query, group), *_milliseconds(start, end)))[0]

    async def explore(self, text: str, start: float, end: float, group: str = LINES) -> Result:
        """Runs a query in a thread, since it may take a second, and shows when the lines were written that it matches.

        The arguments, the result and the errors are those of `run`, with a histogram in the result, and with the number
        of lines that had been added to the log group, from which `tail` continues.
        """
        query = _parse(text)
        name = _group(query, group)
        records, added = self._logs.recent(name, *_milliseconds(start, end)), self._logs.added(name)

        def result() -> Result:
            found, matched = _result(query, records)
            return {**found, "histogram": histogram(matched, start, end), "added": added}

        return await asyncio.to_thread(result)

    def tail(self, text: str, added: int, group: str = LINES) -> Result:
        """The lines that a query matches among those that came after others, the newest first.

        Args:
            text: of the query, of which `sort`, `limit` and `dedup` do not apply.
            added: how many lines had been added to the log group before. The next call takes it from the result.
            group: the log group, unless the query names one.

        Returns:
            What `run` returns, the number of lines that were skipped because too many came at once, and the number of
            lines that have been added by now.

        Raises:
            ValueError: the query is not valid, or has no lines because it has `stats` or `pattern`.
        """
        query = _parse(text)
        if not _is_of_lines(query):
            raise ValueError("A live tail shows lines, so its query has neither stats nor pattern.")
        name = _group(query, group)
        commands = (command for command in query.commands if not isinstance(command, Sort | Limit | Dedup))
        records = self._logs.since(name, added)
        found, _ = _result(replace(query, commands=tuple(commands)), records[-_MAX_ROWS:])
        return {**found, "skipped": max(0, len(records) - _MAX_ROWS), "added": self._logs.added(name)}


def _parse(text: str) -> Query:
    return parse(text) if text.strip() else Query(())


def _milliseconds(start: float, end: float) -> tuple[float, float]:
    return start * 1000, end * 1000 + 1


def _result(query: Query, records: list[Record]) -> tuple[Result, list[Record]]:
    """The result as the page shows it, and the records that match."""
    is_of_lines = _is_of_lines(query)
    table = run(_with_message(query) if is_of_lines else query, records)
    columns, rows = table.columns, table.rows[:_MAX_ROWS]
    weights = (record.fields.get(_WEIGHT) for record in records)
    found: Result = {
        "total": len(table.rows),
        "matched": len(table.matched),
        "scanned": len(records),
        "requests": sum(weight for weight in weights if isinstance(weight, int)),
    }
    if not is_of_lines:
        return {**found, "columns": columns, "rows": rows}, table.matched
    whole = [orjson.loads(str(row[-1])) for row in rows]
    found |= {"columns": columns[:-1], "rows": [row[:-1] for row in rows], "records": whole}
    return {**found, "is_newest_first": _is_newest_first(query)}, table.matched


def _is_of_lines(query: Query) -> bool:
    """Whether a row of the result is a line."""
    return not any(isinstance(command, Stats | Pattern) for command in query.commands)


def _is_newest_first(query: Query) -> bool:
    sorts = [command for command in query.commands if isinstance(command, Sort)]
    return not sorts or sorts[-1].keys[0] == (Field("@timestamp"), True)


def _group(query: Query, otherwise: str) -> str:
    """The short name of the log group of a query, with which its full name ends."""
    name = query.group or otherwise
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
