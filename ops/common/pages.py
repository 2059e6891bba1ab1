"""Report pages: one HTML file each, in a light and a dark theme, without scripts and without other files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ops.common.plots import Draw, sources


def number(value: float | None) -> str:
    """A figure with three significant digits; `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def render(template: Path, pictures: Mapping[str, Draw], **values: Any) -> str:
    """Renders a page.

    Args:
        template: a Jinja template that extends page.html.
        pictures: by name, for the template's `picture` macro.
        values: the other variables of the template.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = number
    drawn = {name: sources(draw) for name, draw in pictures.items()}
    return templates.get_template(template.name).render(pictures=drawn, **values)
