"""Renders this repository's Markdown as HTML. HTML in the text is escaped, and unsafe links are not rendered."""

from typing import Final

from markdown_it import MarkdownIt

_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")


def to_html(text: str) -> str:
    """Renders a text as HTML."""
    return str(_MARKDOWN.render(text))
