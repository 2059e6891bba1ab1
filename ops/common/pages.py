"""Pages of measurements: one HTML file each, in light and dark, that needs nothing else and runs no script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ops.common.plots import Draw, sources


def number(value: float | None) -> str:
    """A figure as people write it: three digits, and a mark where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def render(template: Path, pictures: Mapping[str, Draw], **values: Any) -> str:
    """A page.

    Args:
        template: extends page.html.
        pictures: by name, for its macro.
        values: what else it is made of.
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
