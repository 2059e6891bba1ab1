"""Markdown of this repository's own, as HTML: no HTML comes through, and links lead only where http does."""

from typing import Final

from markdown_it import MarkdownIt

_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")


def to_html(text: str) -> str:
    """A text as HTML."""
    return str(_MARKDOWN.render(text))
