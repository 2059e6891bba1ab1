"""Tables and progress on the terminal. Where the output is no terminal, it is plain text in lines of any length."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

_LOG_WIDTH: Final = 10_000  # of a log or a pipe, where a search with grep has to find whole lines


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _LOG_WIDTH
    return Console(stderr=stderr, width=width, soft_wrap=True, highlight=False, markup=False, emoji=False)


out: Final = _console(stderr=False)  # for results
err: Final = _console(stderr=True)  # for progress and errors


def right(header: str) -> Column:
    """A column that is aligned to the right, as figures are."""
    return Column(header, justify="right")


def table(title: str, columns: Sequence[str | Column], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines, to be printed by `out` or `err`. The title may be empty."""
    made = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        made.add_row(*row)
    return made


def progress() -> Progress:
    """A bar with a count and the time left, on stderr while it is entered; invisible where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
